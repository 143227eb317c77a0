"""How a file is read: its kind, and the roles of its columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from recbole_posattn.errors import DataError, SettingError, did_you_mean

# The time format of a file without times, in which the order of the rows counts.
ORDER = "order"

Kind = Literal["delimited", "jsonl", "python", "parquet"]
KINDS: dict[str, str] = {
    "delimited": "one record per line, with fields between separators",
    "jsonl": "one JSON object per line",
    "python": "one Python dict literal per line",
    "parquet": "Apache Parquet",
}

# The kind and separator of a user's own table, by the suffix of its file.
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
        user: Column of users, which are text or whole numbers.
        item: Column of items, which are text or whole numbers.
        time: Column of times; ``None`` if only the order of the file counts.
        rating: Column of ratings; ``None`` if there is none, or it is not needed.
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
        columns: Names of the columns that are read.
        time_format: See :class:`~recbole_posattn.atomic_files.convert.times.TimeFormat`.
        separator: Between ``delimited`` fields. Quoted fields may contain it if it is a single character.
        fields: Names of all fields of a ``delimited`` file without a header line.
    """

    kind: str
    columns: Columns
    time_format: str = "auto"
    separator: str = ","
    fields: tuple[str, ...] | None = None


class ReadOptions(NamedTuple):
    """How to read a dump. What is ``None`` follows from its format, or from the name of the file.

    Attributes:
        format: Name of a known format.
        user: See :class:`Columns`.
        item: See :class:`Columns`.
        time: See :class:`Columns`.
        rating: See :class:`Columns`.
        kind: See :class:`TableFormat`.
        separator: See :class:`TableFormat`.
        fields: See :class:`TableFormat`.
        time_format: See :class:`TableFormat`.
        encoding: Encoding of a text file, see :func:`~recbole_posattn.atomic_files.convert.lines.checked_encoding`.
        item_features: The file that describes the items, or ``none``; by default that of the format beside the source.
            A user's own table is read with ``separator`` and ``encoding`` if it needs them.
        user_features: The file that describes the users, likewise.
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
    item_features: str | None = None
    user_features: str | None = None


def shape_of(reading: ReadOptions, known: TableFormat | None, file: str) -> TableFormat:
    """Find out how a file is read.

    Args:
        reading: What the user says.
        known: How its known format is read, which ``reading`` overrides; ``None`` for a user's own table.
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
        raise SettingError(f"name the column of times with --time, or set --time_format={ORDER}, which needs none.")
    _check_roles(columns)
    if shape.kind not in KINDS:
        raise SettingError(f"kind must be one of {', '.join(KINDS)}; got {shape.kind!r}.")
    if shape.kind == "delimited" and not shape.separator:
        raise SettingError(f"the name of {file} does not show how its fields are separated; give --separator.")
    if shape.kind == "delimited" and shape.fields is not None:
        check_columns(f"the list of fields of {file}", shape.fields, columns)
    return shape._replace(columns=columns)


def _check_roles(columns: Columns) -> None:
    """Refuse one column for two roles.

    Raises:
        SettingError: Naming the flags.
    """
    roles: dict[str, str] = {}
    for role, name in columns.given().items():
        if name in roles:
            raise SettingError(
                f"--{roles[name]} and --{role} are both the column {name!r}; name a column of its own for each."
            )
        roles[name] = role


def _shape_by_name(file: str, reading: ReadOptions) -> TableFormat:
    """How a file is read, from its name."""
    if not (reading.user and reading.item):
        raise SettingError("for a table of your own, name the columns of users and items with --user and --item.")
    usual, separator = SUFFIXES.get(Path(file.removesuffix(".gz")).suffix.lower(), (None, ""))
    kind = reading.kind or ("delimited" if reading.separator else usual)
    if kind is None:
        raise SettingError(
            f"the name of {file} does not show its kind; give --kind ({', '.join(KINDS)}) or --separator."
        )
    return TableFormat(kind, Columns(reading.user, reading.item, None), separator=separator)


def check_columns(label: str, there: Iterable[str], columns: Columns) -> None:
    """Refuse a file that lacks a column, or has it twice.

    Raises:
        DataError: If so; names the missing columns and those that exist.
    """
    there = list(there)
    missing = [name for name in columns.given().values() if name not in there]
    if missing:
        raise DataError(
            f"{label} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, there)) or 'none'}."
            f"{did_you_mean(missing[0], there)} Name the right ones with --user, --item, --time and --rating"
        )
    twice = [name for name in columns.given().values() if there.count(name) > 1]
    if twice:
        raise DataError(f"{label} has the column {twice[0]!r} more than once; column names must be unique")
