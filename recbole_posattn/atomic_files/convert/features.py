"""Reads the files that describe items and users, and writes them as atomic files.

Only what the interactions name is kept, so that a catalogue of millions of products takes the memory of those used.
"""

from __future__ import annotations

import codecs
import glob
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from recbole_posattn.atomic_files.convert.feature_formats import (
    ITEMS,
    USERS,
    Features,
    number_of,
    sequence_of,
    text_of,
)
from recbole_posattn.atomic_files.convert.formats import fits
from recbole_posattn.atomic_files.convert.interactions import quoted
from recbole_posattn.atomic_files.convert.lines import Lines, checked_encoding, read_lines
from recbole_posattn.atomic_files.convert.readers import PARSE_ERRORS, fields_of, literal
from recbole_posattn.atomic_files.convert.rejects import Rejects
from recbole_posattn.atomic_files.convert.shapes import SUFFIXES, Columns, ReadOptions
from recbole_posattn.atomic_files.convert.sources import (
    READ_ERRORS,
    Located,
    beside,
    category_of,
    open_stream,
    refuse_stream,
)
from recbole_posattn.errors import DataError, SettingError, did_you_mean, shown

Role = Literal["item", "user"]
ROLES: tuple[Role, ...] = ("item", "user")

# The value of --item_features and --user_features that leaves such files out.
NONE = "none"

_TYPES = ("token", "token_seq", "float", "float_seq")


class Source(NamedTuple):
    """A file of features to read.

    Attributes:
        role: Whether it describes items or users.
        located: Where it is.
        features: How it is read.
    """

    role: Role
    located: Located
    features: Features


class Table(NamedTuple):
    """The features of the items or users of a data set.

    Attributes:
        role: Whether it describes items or users.
        source: The file that was read.
        header: ``name:type`` of each column, the token first.
        rows: The texts of each item or user that the file describes.
        n_wanted: Items or users of the data set.
        rejects: The bad lines of the file.
    """

    role: Role
    source: str
    header: list[str]
    rows: list[list[str]]
    n_wanted: int
    rejects: Rejects

    def write(self, file: BinaryIO) -> None:
        """Write the table as an atomic file."""
        for row in (self.header, *self.rows):
            file.write(("\t".join(map(quoted, row)) + "\n").encode())


def find_sources(reading: ReadOptions, form: str | None, located: Located, columns: Columns) -> list[Source]:
    """The files of features to read: those that the user names, or else those of the format beside the interactions.

    Args:
        reading: What the user says.
        form: The name of the format; ``None`` for a user's own table.
        located: The file of interactions.
        columns: Its columns, of which a user's own table has that of the items or users.

    Raises:
        DataError: If a named file does not exist, or is a pipe.
        SettingError: If it is not clear how a named file is read.
    """
    found, category = [], glob.escape(category_of(located.name))
    for role, known in zip(ROLES, (ITEMS, USERS)):
        features, given = known.get(form or ""), getattr(reading, f"{role}_features")
        if given == NONE:
            continue
        if given is not None:
            place = Located(Path(given))
            refuse_stream(place.file)
            if not place.file.is_file():
                raise DataError(f"{role}_features: there is no file {given}")
            if features is None or _is_own(place, features):
                features = _own(role, getattr(columns, role), place, reading)
            found.append(Source(role, place, features))
        elif features is not None:
            near = beside(located, [pattern.format(category=category) for pattern in features.files])
            found += [] if near is None else [Source(role, near, features)]
    return found


def _is_own(located: Located, features: Features) -> bool:
    """Whether a named file is a user's own table beside a dump: by its suffix a table, and not named as the dump's."""
    names = [*(pattern.format(category="*") for pattern in features.files), *features.named]
    return _suffix(located) in SUFFIXES and not fits(located.name, names)


def _suffix(located: Located) -> str:
    return Path(located.name.removesuffix(".gz")).suffix.lower()


def _own(role: Role, key: str, located: Located, reading: ReadOptions) -> Features:
    """How a user's own table of features is read: all its columns; the item or user is named as in the interactions."""
    kind, separator = SUFFIXES.get(_suffix(located), ("", ""))
    if kind not in ("delimited", "jsonl"):
        raise SettingError(
            f"{role}_features: the file must be one of .csv, .tsv and .jsonl, perhaps with .gz; got {located.file}."
        )
    encoding = reading.encoding if checked_encoding(reading.encoding) == "utf-8" or not _is_utf8(located) else "utf-8"
    if kind == "delimited" and reading.separator and key not in _first_names(located, encoding, separator):
        separator = reading.separator
    return Features((), key, None, kind, separator, encoding=encoding)


def _is_utf8(located: Located) -> bool:
    """Whether a file is UTF-8, which is tried before the encoding of the interactions, as Latin-1 decodes anything."""
    with open_stream(located) as stream:
        try:
            for _ in codecs.iterdecode(iter(lambda: stream.file.read(2**20), b""), "utf-8"):
                pass
        except (UnicodeDecodeError, *READ_ERRORS):  # damaged files are told of when they are read
            return False
    return True


def _first_names(located: Located, encoding: str, separator: str) -> list[str]:
    """The names in the first line of a table."""
    with open_stream(located) as stream:
        try:
            first = stream.file.readline().decode(checked_encoding(encoding), errors="replace")
        except READ_ERRORS:
            return []
    return [name.strip().strip('"').removeprefix("\ufeff") for name in first.split(separator)]


def read_table(source: Source, wanted: Mapping[str, int], rejects: Rejects) -> Table:
    """Read the features of the items or users of a data set; of several records of one, the first.

    Args:
        source: The file.
        wanted: The tokens of the items or users, in the order of the rows.
        rejects: Collects bad lines.

    Raises:
        DataError: If the file cannot be read, lacks the column of the tokens, or has bad lines.
    """
    features = source.features
    rows: dict[str, Any] = {}
    with open_stream(source.located) as stream:
        lines = read_lines(stream, checked_encoding(features.encoding), rejects)
        for record in _records(lines, features, rejects):
            token = str(record.get(features.key))  # as the interactions name it
            if token in wanted and token not in rows:
                columns = features.columns
                rows[token] = dict(record) if columns is None else [column.value(record) for column in columns]
            rejects.flush()
    rejects.end()
    named = [(token, rows[token]) for token in wanted if token in rows]
    if features.columns is None:
        header, texts = _typed(features.key, [row for _, row in named])
    else:
        header, texts = [column.header for column in features.columns], [row for _, row in named]
    header.insert(0, f"{source.role}_id:token")
    _check_names(header, source)
    of_all = [[token, *row] for (token, _), row in zip(named, texts)]
    return Table(source.role, source.located.label, header, of_all, len(wanted), rejects)


def _check_names(header: Sequence[str], source: Source) -> None:
    """Refuse two columns of one name.

    Raises:
        DataError: Naming the column.
    """
    names = [column.rpartition(":")[0] for column in header]
    name = _repeated(names)
    if name is not None:
        first = f"column {source.features.key!r}" if name == names[0] else "another"
        raise DataError(
            f"{source.located.label} has a column that would be written as {name!r}, as would {first}: rename it, "
            "or leave it out"
        )


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs a second time."""
    return next((name for nth, name in enumerate(names) if name in names[:nth]), None)


def _records(lines: Iterator[Lines], features: Features, rejects: Rejects) -> Iterator[Mapping[str, Any]]:
    fields = features.fields
    parsers: dict[str, Callable[[str], Any]] = {"jsonl": json.loads, "python": literal}
    parse = parsers.get(features.kind)
    n_records, has_key = 0, False
    there: dict[str, None] = {}
    for block in lines:
        for number, text in zip(block.number.tolist(), block.texts):
            if parse is None and fields is None:
                fields = _header(text, features, rejects.label)
                continue
            record = _fields(text, features, fields or ()) if parse is None else _object(text, parse)
            if not isinstance(record, str):
                record = _problem(record, features) or record
            if isinstance(record, str):
                rejects.add(number, record, text)
                continue
            n_records, has_key = n_records + 1, has_key or features.key in record
            there = there or dict.fromkeys(record)
            yield record
    if n_records and not has_key:
        raise _no_key(features.key, there, rejects.label)


def _header(line: str, features: Features, label: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in fields_of(line, features.separator) or ())
    bare = {name.partition(":")[0]: name for name in names}
    if features.key not in names and features.key not in bare:
        raise _no_key(features.key, names, label)
    repeated = _repeated(names)
    if repeated is not None:
        raise DataError(f"{label} has two columns {repeated!r}: rename one, or leave it out")
    return tuple(features.key if name == bare.get(features.key) else name for name in names)


def _no_key(key: str, there: Iterable[str], label: str) -> DataError:
    names = list(there)
    return DataError(
        f"{label} has no column {key!r}; it has {', '.join(map(repr, names)) or 'none'}.{did_you_mean(key, names)} It "
        "must name items and users as the interactions do"
    )


def _fields(line: str, features: Features, fields: Sequence[str]) -> dict[str, Any] | str:
    """A record, or what is wrong with its line."""
    values = fields_of(line, features.separator)
    if values is None:
        return "the line has unbalanced quotes"
    if len(values) != len(fields):
        return f"the number of fields is {len(values)}, not {len(fields)}"
    return dict(zip(fields, values))


def _object(line: str, parse: Callable[[str], Any]) -> dict[str, Any] | str:
    try:
        record = parse(line)
    except PARSE_ERRORS:
        record = None
    return record if isinstance(record, dict) else "the line is not an object"


def _problem(record: Mapping[str, Any], features: Features) -> str:
    """What is wrong with a record of a user's own table, whose header gives types; empty if nothing."""
    if features.columns is not None:
        return ""
    for field, value in record.items():
        kind = _named_type(field)
        values = value if isinstance(value, list) else [value]
        if kind == "float_seq" and not isinstance(value, list):
            values = text_of(value).split()
        if kind in ("float", "float_seq") and value not in (None, "") and not all(map(number_of, values)):
            return f"column {str(field)!r} must hold numbers; got {shown(value)}"
        if kind == "float" and isinstance(value, list):
            return f"column {str(field)!r} must hold one number; got {shown(value)}"
    return ""


def _named_type(field: object) -> str | None:
    """The type in the name of a column, such as ``price:float``."""
    name, _, kind = str(field).rpartition(":")
    return kind if name and kind in _TYPES else None


def _typed(key: str, records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a user's own table: each column gets the type that all its values have."""
    header, columns = [], []
    for field in dict.fromkeys(name for record in records for name in record if name != key):
        values = [record.get(field) for record in records]
        kind = _named_type(field)
        name = text_of(field).replace(":", "_") if kind is None else str(field).removesuffix(f":{kind}")
        kind = kind or _type(values)
        header.append(f"{name}:{kind}")
        columns.append([_as(kind, value) for value in values])
    return header, [list(row) for row in zip(*columns)] if columns else [[] for _ in records]


def _type(values: Sequence[Any]) -> str:
    if any(isinstance(value, list) for value in values):
        each = [one for value in values if value is not None for one in (value if isinstance(value, list) else [None])]
        are_numbers = any(isinstance(one, float) for one in each) and all(map(number_of, each))
        return "float_seq" if are_numbers else "token_seq"  # whole numbers may be names
    texts = [text for text in map(text_of, values) if text]
    # a comma may separate ids
    return "float" if texts and all("," not in text and number_of(text) for text in texts) else "token"


def _as(kind: str, value: Any) -> str:
    if kind == "float":
        return number_of(value)
    if kind.endswith("_seq"):
        values = value if isinstance(value, list) else text_of(value).split()
        return sequence_of(map(number_of, values) if kind == "float_seq" else values)
    return text_of(value)
