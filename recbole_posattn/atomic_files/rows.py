"""Checks the rows of an atomic file before RecBole reads them.

RecBole silently fills missing values with the padding token or the mean of the column, drops rows without user or item,
and accepts infinite times. Here such a row is reported by line and column. Of a row with too many fields RecBole reads
the first ones; so does this package, with a warning. Correct rows cost one pass of Arrow's reader; only blocks that
Arrow cannot read are checked row by row, by the rules of pandas, with which RecBole reads.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
from recbole.utils import FeatureType

from recbole_posattn.atomic_files.convert.interactions import READ_AS_MISSING
from recbole_posattn.atomic_files.convert.lines import LONGEST_LINE, checked_encoding
from recbole_posattn.atomic_files.surplus import Surplus
from recbole_posattn.errors import DataError, SettingError, shown

SEPARATOR_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space", "|": "bar"}

# Bytes of a block.
BLOCK = 2**24

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_SEQUENCES = (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ)
_LARGEST = float(np.finfo(np.float32).max)  # RecBole keeps numbers in 32 bits


class Column(NamedTuple):
    """A column of an atomic file.

    Attributes:
        name: Without its type.
        type: As the header says.
        read: Whether RecBole reads it.
        required: Whether every row needs a value; for a sequence, at least one.
    """

    name: str
    type: FeatureType
    read: bool
    required: bool


class Table(NamedTuple):
    """An atomic file and its format.

    Attributes:
        file: The file.
        columns: All its columns, in their order.
        separator: Of the fields of a row; several characters are taken literally.
        seq_separator: Of the values of a sequence.
        encoding: Python's name of it.
    """

    file: Path
    columns: Sequence[Column]
    separator: str
    seq_separator: str
    encoding: str


def check_rows(table: Table) -> None:
    """Refuse a file whose rows RecBole would misread.

    Each row must have a field for each column. Fields after the last column are left out with a warning, but refused
    in the first row, where they would make pandas read the first column as row names. In the columns that are read,
    numbers must be valid and finite in 32 bits, and required columns must have a value in each row. Empty lines are
    ignored, as in RecBole.

    Raises:
        DataError: Naming the first such row, or if there are no rows.
    """
    with open(table.file, "rb") as stream, _long_fields():
        separator = SEPARATOR_NAMES.get(table.separator, repr(table.separator))
        surplus = Surplus(table.file, len(table.columns), table.separator, separator)
        if _is_plain(table):
            n_rows = _check_blocks(table, stream, surplus)
        else:
            n_rows = _check_records(table, _decoded_lines(table), surplus)
        surplus.report()
        if n_rows == 0:
            raise DataError(
                f"{table.file} has no interactions; it needs a header line of name:type columns and a line for each"
            )
        stream.seek(-1, io.SEEK_END)
        if stream.read(1) not in (b"\n", b"\r", b"\0"):  # the last: half a character of UTF-16
            logging.getLogger().warning(
                f"{table.file}: the last line has no end; if the file was cut off there, its last value is not whole"
            )


@contextmanager
def _long_fields() -> Iterator[None]:
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _is_plain(table: Table) -> bool:
    """Whether lines end with byte 10, the separator is one byte, and there are no sequences of numbers."""
    if len(table.separator) != 1 or not table.separator.isascii():
        return False
    if any(column.read and column.type == FeatureType.FLOAT_SEQ for column in table.columns):
        return False
    try:
        checked_encoding(table.encoding)
    except SettingError:
        return False
    with open(table.file, "rb") as stream:
        return b"\r" not in stream.readline(LONGEST_LINE).removesuffix(b"\r\n")


# -- blocks of rows --------------------------------------------------------------------------------------------------


def _check_blocks(table: Table, stream: BinaryIO, surplus: Surplus) -> int:
    """Check all rows after the header, block by block; returns their number."""
    encoding = checked_encoding(table.encoding)
    stream.readline()
    number, n_rows = 2, 0
    while block := stream.read(BLOCK):
        block += stream.readline()
        if b'"' in block:  # a quoted field may extend beyond the block
            stream.seek(-len(block), io.SEEK_CUR)
            return n_rows + _check_records(table, _lines(table, stream, number, encoding), surplus, n_rows)
        n_checked = _count_good(table, block, encoding)
        if n_checked is None:
            n_checked = _check_records(table, _lines(table, io.BytesIO(block), number, encoding), surplus, n_rows)
        n_rows += n_checked
        number += _ends(block)
    return n_rows


def _ends(block: bytes) -> int:
    """Line ends in a block, as Python's universal newlines count them."""
    ends = block.count(b"\n")
    return ends + block.count(b"\r") - block.count(b"\r\n") if b"\r" in block else ends


def _count_good(table: Table, block: bytes, encoding: str) -> int | None:
    """The number of rows in a block without quotes if all are certainly correct, else ``None``."""
    if b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
        return None
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        return None
    types = {
        str(place): pa.float64() if column.type == FeatureType.FLOAT else pa.string()
        for place, column in enumerate(table.columns)
        if column.read and (column.required or column.type == FeatureType.FLOAT)
    }
    try:
        rows = pa.csv.read_csv(
            pa.py_buffer(block if encoding == "utf-8" else text.encode()),
            pa.csv.ReadOptions(column_names=[str(place) for place in range(len(table.columns))]),
            pa.csv.ParseOptions(delimiter=table.separator, quote_char=False),
            pa.csv.ConvertOptions(
                include_columns=list(types) or ["0"],
                column_types=types,
                null_values=["", *READ_AS_MISSING],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return None
    for place in types:
        column, values = table.columns[int(place)], rows[place]
        if column.required and values.null_count:
            return None
        if column.required and column.type in _SEQUENCES:
            blank = pa.compute.equal(pa.compute.replace_substring(values, table.seq_separator, ""), "")
            if pa.compute.any(blank).as_py():
                return None
        if column.type == FeatureType.FLOAT:
            numbers = values.to_numpy()  # NaN for a null
            if np.nanmax(np.abs(numbers), initial=0) > _LARGEST or np.isnan(numbers).sum() > values.null_count:
                return None
    return len(rows)


# -- row by row ------------------------------------------------------------------------------------------------------


def _lines(table: Table, stream: Iterable[bytes], number: int, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their line ends, each with its number, counted from ``number``."""
    for line in stream:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{table.file}, line {number + _ends(line[: error.start])}: not {encoding} ({error.reason}: byte "
                f"{line[error.start]:#04x}); name the encoding of the file by --encoding"
            ) from error
        for part in io.StringIO(text, newline="") if "\r" in text else (text,):
            yield number, part
            number += 1


def _decoded_lines(table: Table) -> Iterator[tuple[int, str]]:
    """All lines after the header, in any encoding."""
    with open(table.file, encoding=table.encoding, newline="") as lines:
        lines.readline()
        number = 2
        while True:
            try:
                line = lines.readline()
            except UnicodeError as error:
                raise DataError(f"{table.file} cannot be read after line {number - 1}: {error}") from error
            if not line:
                return
            yield number, line
            number += 1


def _check_records(table: Table, lines: Iterator[tuple[int, str]], surplus: Surplus, before: int = 0) -> int:
    """Check rows one by one, after ``before`` others; returns their number."""
    n_rows = 0
    for number, fields, line in _records(table, lines):
        n_rows += 1
        if len(fields) != len(table.columns):
            surplus.check(before + n_rows, number, fields, line)
        for column, field in zip(table.columns, fields):
            problem = _problem(table, column, field) if column.read else None
            if problem is not None:
                raise DataError(
                    f"{table.file}, line {number}: column {column.name!r} {problem}; correct the row or leave it out"
                )
    return n_rows


def _records(table: Table, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str], str]]:
    """The rows that are not empty: number of the first line, fields, and the text of all lines."""
    taken: list[tuple[int, str]] = []

    def taking() -> Iterator[str]:
        with open(table.file, encoding=table.encoding, errors="replace", newline="") as file:
            previous = file.readline()
        for number, line in lines:
            if previous.endswith("\r") and line.startswith(table.separator):
                raise DataError(
                    f"{table.file}, line {number}: begins with an empty field after a line that ends with \\r alone, "
                    "which pandas misreads; end lines with \\n"
                )
            previous = line
            if "\0" in line:
                raise DataError(f"{table.file}, line {number}: a NUL byte, which no text has; the file is damaged")
            taken.append((number, line))
            yield line

    fields_of: Iterator[list[str]] = csv.reader(taking(), delimiter=table.separator[0])
    if len(table.separator) > 1:
        # as pandas reads them
        fields_of = (line.strip().split(table.separator) for line in taking())
    while True:
        try:
            fields = next(fields_of)
            whole = "".join(line for _, line in taken)
            if len(taken) > 1:  # a lone quote may have swallowed whole rows
                next(csv.reader(io.StringIO(whole, newline=""), delimiter=table.separator, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{table.file}, line {taken[0][0]}: a quoted field does not end ({error}): "
                f"{shown(taken[0][1].rstrip())}"
            ) from error
        if whole.strip(" \t\r\n") or table.separator in whole.rstrip("\r\n"):
            yield taken[0][0], fields, whole
        taken.clear()


def _problem(table: Table, column: Column, field: str) -> str | None:
    """What is wrong with a field; ``None`` if it is correct."""
    if not field or field in READ_AS_MISSING:
        missing = f"is {field!r}, which is read as a missing value" if field else "has no value"
        return missing if column.required else None
    if column.type == FeatureType.FLOAT:
        return _number_problem(field)
    if column.required and column.type in _SEQUENCES and not any(field.split(table.seq_separator)):
        return f"has no value, only separators: {shown(field)}"
    if column.type == FeatureType.FLOAT_SEQ:
        return next(filter(None, map(_number_problem, filter(None, field.split(table.seq_separator)))), None)
    return None


def _number_problem(text: str) -> str | None:
    number = text.strip(" \t\r\n\v\f")
    if _NUMBER.fullmatch(number):
        return None if abs(float(number)) <= _LARGEST else f"must be a number of at most 3.4e38; got {shown(text)}"
    if _INFINITE.fullmatch(number):
        return f"must be a finite number; got {shown(text)}"
    return f"must be a number; got {shown(text)}"


def begins_with_utf8_mark(file: Path) -> bool:
    """Whether a file begins with the byte order mark of UTF-8, which editors and spreadsheets write."""
    with open(file, "rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
