"""Checks the rows of an atomic file before RecBole reads them.

RecBole silently fills missing values with the padding token or the mean of the column, drops rows without user or item,
and accepts infinite times. Here such a row is reported by line and column. In a row with too many fields, RecBole reads
the first ones; so does this package, with a warning. Correct rows cost one pass of Arrow's reader. Only blocks that
Arrow cannot read are checked row by row, as pandas reads them, which RecBole uses.
"""

from __future__ import annotations

import csv
import io
import logging
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
from recbole_posattn.atomic_files.field import LARGEST, NUMBERS, SEQUENCES, Column, has_value, problem
from recbole_posattn.atomic_files.surplus import Surplus
from recbole_posattn.errors import DataError, SettingError, shown

SEPARATOR_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space", "|": "bar"}

# How many bytes are checked at a time.
BLOCK = 2**24


class Table(NamedTuple):
    """An atomic file and its format.

    Attributes:
        file: The file.
        columns: All its columns, in their order.
        separator: Between the fields of a row; if it has several characters, it is not a regular expression.
        seq_separator: Between the values of a sequence.
        encoding: The Python name of its encoding.
    """

    file: Path
    columns: Sequence[Column]
    separator: str
    seq_separator: str
    encoding: str


def check_rows(table: Table) -> set[str]:
    """Refuse a file with rows that RecBole would misread.

    Each row must have a field for each column. Fields after the last column are left out with a warning. In the first
    row they are refused, because pandas would read the first column as row names. In the columns that are read, numbers
    must be valid and finite in 32 bits, and required columns must have a value in each row. Empty lines are ignored, as
    in RecBole.

    Returns:
        The columns of numbers that are read and have no value in any row.

    Raises:
        DataError: Naming the first such row, or if there are no rows.
    """
    empty = {column.name for column in table.columns if column.read and column.type in NUMBERS}
    with open(table.file, "rb") as stream, _long_fields():
        separator = SEPARATOR_NAMES.get(table.separator, repr(table.separator))
        surplus = Surplus(table.file, len(table.columns), table.separator, separator)
        if _arrow_can_check(table):
            n_rows = _check_blocks(table, stream, surplus, empty)
        else:
            n_rows = _check_records(table, _decoded_lines(table), surplus, empty)
        surplus.report()
        if n_rows == 0:
            raise DataError(
                f"{table.file} has no rows; it needs a header line of name:type columns, then one line per row"
            )
        stream.seek(-1, io.SEEK_END)
        if stream.read(1) not in (b"\n", b"\r", b"\0"):  # \0 ends a line break of UTF-16
            logging.getLogger().warning(
                f"{table.file}: the last line has no line break; if the file was cut off there, its last value is "
                "incomplete"
            )
    return empty


@contextmanager
def _long_fields() -> Iterator[None]:
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _arrow_can_check(table: Table) -> bool:
    """Whether Arrow can check the file: lines end with byte 10, the separator is one byte, no column holds vectors."""
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


# -- block by block --------------------------------------------------------------------------------------------------


def _check_blocks(table: Table, stream: BinaryIO, surplus: Surplus, empty: set[str]) -> int:
    """Check all rows after the header, block by block; returns their number.

    Args:
        table: The file and its format.
        stream: The open file, at its beginning.
        surplus: Counts rows with too many fields.
        empty: Columns of numbers; those with a value are removed.
    """
    encoding = checked_encoding(table.encoding)
    stream.readline()
    number, n_rows = 2, 0
    while block := stream.read(BLOCK):
        block += stream.readline()
        if b'"' in block:  # a quoted field may extend beyond the block
            stream.seek(-len(block), io.SEEK_CUR)
            return n_rows + _check_records(table, _lines(table, stream, number, encoding), surplus, empty, n_rows)
        n_checked = _count_if_correct(table, block, encoding, empty)
        if n_checked is None:
            lines = _lines(table, io.BytesIO(block), number, encoding)
            n_checked = _check_records(table, lines, surplus, empty, n_rows)
        n_rows += n_checked
        number += _count_line_breaks(block)
    return n_rows


def _count_line_breaks(block: bytes) -> int:
    """Number of line breaks in a block, as Python's universal newlines count them."""
    ends = block.count(b"\n")
    return ends + block.count(b"\r") - block.count(b"\r\n") if b"\r" in block else ends


def _count_if_correct(table: Table, block: bytes, encoding: str, empty: set[str]) -> int | None:
    """Number of rows in a block without quotes if all are correct; ``None`` if they must be checked one by one.

    Columns with a value are removed from ``empty``.
    """
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
        if column.required and column.type in SEQUENCES:
            blank = pa.compute.equal(pa.compute.replace_substring(values, table.seq_separator, ""), "")
            if pa.compute.any(blank).as_py():
                return None
        if column.type == FeatureType.FLOAT:
            numbers = values.to_numpy()  # NaN for a null
            if np.nanmax(np.abs(numbers), initial=0) > LARGEST or np.isnan(numbers).sum() > values.null_count:
                return None
            if values.null_count < len(values):
                empty.discard(column.name)
    return len(rows)


# -- row by row ------------------------------------------------------------------------------------------------------


def _lines(table: Table, stream: Iterable[bytes], number: int, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines with their line breaks, each with its number, counted from ``number``."""
    for line in stream:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            bad = number + _count_line_breaks(line[: error.start])
            raise DataError(
                f"{table.file}, line {bad}: not {encoding} ({error.reason}: byte "
                f"{line[error.start]:#04x}); give the encoding of the file with --encoding"
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


def _check_records(
    table: Table, lines: Iterator[tuple[int, str]], surplus: Surplus, empty: set[str], before: int = 0
) -> int:
    """Check rows one by one, after ``before`` others; returns their number. See :func:`_check_blocks`."""
    n_rows = 0
    for number, fields, line in _records(table, lines):
        n_rows += 1
        if len(fields) != len(table.columns):
            surplus.check(before + n_rows, number, fields, line)
        for column, field in zip(table.columns, fields):
            wrong = problem(column, field, table.seq_separator) if column.read else None
            if wrong is not None:
                raise DataError(
                    f"{table.file}, line {number}: column {column.name!r} {wrong}; correct the row or leave it out"
                )
            if column.name in empty and has_value(field, table.seq_separator):
                empty.remove(column.name)
    return n_rows


def _records(table: Table, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str], str]]:
    """The rows that are not empty: the number of the first line, the fields, and the text of all lines of each."""
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
                raise DataError(
                    f"{table.file}, line {number}: a NUL byte, which does not occur in text; the file is damaged"
                )
            taken.append((number, line))
            yield line

    if len(table.separator) == 1:
        fields_of: Iterator[list[str]] = csv.reader(taking(), delimiter=table.separator)
    else:
        # as pandas does
        fields_of = (line.strip().split(table.separator) for line in taking())
    while True:
        try:
            fields = next(fields_of)
            whole = "".join(line for _, line in taken)
            if len(taken) > 1:  # a single quote may have swallowed whole rows
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
