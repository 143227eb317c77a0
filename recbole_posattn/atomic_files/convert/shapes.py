"""How a file is read: its kind, and the roles of its columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from recbole_posattn.errors import DataError, SettingError, did_you_mean

# The time format of a file without times, whose order counts.
ORDER = "order"

Kind = Literal["delimited", "jsonl", "python", "parquet"]
KINDS: dict[str, str] = {
    "delimited": "fields between separators, a line each",
    "jsonl": "a JSON object a line",
    "python": "a Python dict literal a line",
    "parquet": "Apache Parquet",
}

# The kind and separator of a user's own table, by the suffix of its name.
SUFFIXES: dict[str, tuple[Kind, str]] = {
    ".csv": ("delimited", ","),
    ".tsv": ("delimited", "\t"),
    ".inter": ("delimited", "\t"),
    ".json": ("jsonl", ""),
    ".jsonl": ("jsonl", ""),
    ".ndjson": ("jsonl", ""),
    ".parquet": ("parquet", ""),
    ".pq": ("parquet", ""),
}


class Columns(NamedTuple):
    """The names of the columns of a dump, by role.

    Attributes:
        user: Of the user, text or a whole number.
        item: Of the item, text or a whole number.
        time: Of the time; ``None`` if only the order of the file counts.
        rating: Of the rating; ``None`` if there is none, or it is not needed.
    """

    user: str
    item: str
    time: str | None
    rating: str | None = None

    def given(self) -> dict[str, str]:
        """The names of the columns that exist, by role."""
        return {role: name for role, name in self._asdict().items() if name is not None}


class TableFormat(NamedTuple):
    """How a file is read.

    Attributes:
        kind: One of :data:`KINDS`.
        columns: Of the user, the item and so on.
        time_format: See :class:`~recbole_posattn.atomic_files.convert.times.TimeFormat`.
        separator: Of ``delimited`` fields. If it is a single character, it may stand in a quoted field.
        fields: Names of all fields of a ``delimited`` file without a header line.
    """

    kind: str
    columns: Columns
    time_format: str = "auto"
    separator: str = ","
    fields: tuple[str, ...] | None = None


class ReadOptions(NamedTuple):
    """The description of a dump. The rest follows from its format, or from the name of the file.

    Attributes:
        format: A known format.
        user: See :class:`Columns`.
        item: See :class:`Columns`.
        time: See :class:`Columns`.
        rating: See :class:`Columns`.
        kind: See :class:`TableFormat`.
        separator: See :class:`TableFormat`.
        fields: See :class:`TableFormat`.
        time_format: See :class:`TableFormat`.
        encoding: Of a file of lines, see :func:`~recbole_posattn.atomic_files.convert.lines.checked_encoding`.
    """

    format: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    kind: str | None = None
    separator: str | None = None
    fields: tuple[str, ...] | None = None
    time_format: str | None = None
    encoding: str = "utf-8"


def shape_of(reading: ReadOptions, known: TableFormat | None, file: str) -> TableFormat:
    """How a file is read, from its description.

    Args:
        reading: The description.
        known: The shape of its format, which the description overrides; ``None`` for a user's own table.
        file: The name of the file, whose suffix gives the kind of a user's own table.

    Raises:
        SettingError: If an option is missing or not allowed.
    """
    shape = known or _shape_by_name(file, reading)
    given = {key: value for key, value in reading._asdict().items() if value is not None}
    shape = shape._replace(
        **{key: given[key] for key in ("kind", "separator", "fields", "time_format") if key in given}
    )
    columns = shape.columns._replace(**{role: given[role] for role in Columns._fields if role in given})
    if shape.time_format == ORDER:
        columns = columns._replace(time=None)
    elif not columns.time:
        raise SettingError(f"which column has the times must be given by --time; --time_format={ORDER} needs none.")
    if shape.kind not in KINDS:
        raise SettingError(f"kind must be one of {', '.join(KINDS)}; got {shape.kind!r}.")
    if shape.kind == "delimited" and not shape.separator:
        raise SettingError(f"the separator of the fields of {file} does not follow from its name; give --separator.")
    if shape.kind == "delimited" and shape.fields is not None:
        check_columns(f"the list of fields of {file}", shape.fields, columns)
    return shape._replace(columns=columns)


def _shape_by_name(file: str, reading: ReadOptions) -> TableFormat:
    """How a file is read, from its name."""
    if not (reading.user and reading.item):
        raise SettingError("a table of your own needs the columns of its users and items, --user and --item.")
    usual, separator = SUFFIXES.get(Path(file.removesuffix(".gz")).suffix.lower(), (None, ""))
    kind = reading.kind or ("delimited" if reading.separator else usual)
    if kind is None:
        raise SettingError(
            f"the kind of {file} does not follow from its name; give --kind ({', '.join(KINDS)}) or --separator."
        )
    return TableFormat(kind, Columns(reading.user, reading.item, None), separator=separator)


def check_columns(label: str, there: Iterable[str], columns: Columns) -> None:
    """Refuse a file that lacks a column, or has it twice.

    Raises:
        DataError: Says which columns are missing and which there are.
    """
    there = list(there)
    missing = [name for name in columns.given().values() if name not in there]
    if missing:
        raise DataError(
            f"{label} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there)) or 'none'}."
            f"{did_you_mean(missing[0], there)} Name the right ones by --user, --item, --time and --rating"
        )
    twice = [name for name in columns.given().values() if there.count(name) > 1]
    if twice:
        raise DataError(f"{label} has the column {twice[0]!r} more than once; column names must be unique")
