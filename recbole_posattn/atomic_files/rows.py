"""Checks the rows of an atomic file before RecBole reads them.

RecBole silently fills missing values with the padding token or the mean of the column, drops rows without user or item,
and accepts infinite times. Here such a row is reported by line and column. In a row with too many fields, RecBole reads
the first ones; so does this package, with a warning. Correct rows cost one pass of Arrow's reader, whose values go to
the data set. Only blocks that Arrow cannot read are checked row by row, as pandas reads them, which RecBole uses.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import recbole_posattn.compat  # noqa: F401

from recbole.utils import FeatureType

from recbole_posattn.atomic_files.convert.lines import checked_encoding
from recbole_posattn.atomic_files.field import has_value, problem
from recbole_posattn.atomic_files.surplus import Surplus
from recbole_posattn.data import blocks
from recbole_posattn.data.blocks import NUMBERS, Column, Table, arrow_can_read, read_block
from recbole_posattn.data.digest import Digesting, FileState, n_line_ends
from recbole_posattn.data.tables import TableGatherer, can_be_kept, keep
from recbole_posattn.data.text import LONGEST_LINE
from recbole_posattn.errors import DataError, shown

SEPARATOR_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space", "|": "bar"}


# Files in which no row was refused and of which no warning was given, with their columns of numbers without a value.
_without_fault: dict[tuple[FileState, Table], frozenset[str]] = {}


def check_rows(table: Table, keeps: bool = False) -> set[str]:
    """Refuse a file with rows that RecBole would misread.

    Each row must have a field for each column. Fields after the last column are left out with a warning. In the first
    row they are refused, because pandas would read the first column as row names. In the columns that are read, numbers
    must be valid and finite in 32 bits, and required columns must have a value in each row. Empty lines are ignored, as
    in RecBole. A file without faults is not read again as long as it stays the same, unless its rows are kept.

    Args:
        table: The file and its format.
        keeps: Whether to keep the rows for the data set, unless some of them had to be checked one by one.

    Returns:
        The columns of numbers that are read and have no value in any row.

    Raises:
        DataError: Naming the first such row, or if there are no rows.
    """
    file = (FileState.of(table.file), table._replace(columns=tuple(table.columns)))
    if file in _without_fault and not keeps:
        return set(_without_fault[file])
    empty = {column.name for column in table.columns if column.read and column.type in NUMBERS}
    with open(table.file, "rb") as stream, _long_fields():
        separator = SEPARATOR_NAMES.get(table.separator, repr(table.separator))
        surplus = Surplus(table.file, len(table.columns), table.separator, separator)
        if arrow_can_read(table):
            n_rows = _check_blocks(table, stream, surplus, empty, keeps)
        else:
            n_rows = _check_records(table, _decoded_lines(table), surplus, empty)
        surplus.report()
        if n_rows == 0:
            raise DataError(
                f"{table.file} has no rows; it needs a header line of name:type columns, then one line per row"
            )
        stream.seek(-1, io.SEEK_END)
        ends_with_break = stream.read(1) in (b"\n", b"\r", b"\0")  # \0 ends a line break of UTF-16
        if not ends_with_break:
            logging.getLogger().warning(
                f"{table.file}: the last line has no line break; if the file was cut off there, its last value is "
                "incomplete"
            )
    if file[0].is_settled and ends_with_break and not surplus.n_rows:
        _without_fault[file] = frozenset(empty)
    return empty


@contextmanager
def _long_fields() -> Iterator[None]:
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


# -- block by block --------------------------------------------------------------------------------------------------


def _check_blocks(table: Table, stream: BinaryIO, surplus: Surplus, empty: set[str], keeps: bool) -> int:
    """Check all rows after the header, block by block; returns their number.

    The digest of the file is computed on the way.

    Args:
        table: The file and its format.
        stream: The open file, at its beginning.
        surplus: Counts rows with too many fields.
        empty: Columns of numbers; those with a value are removed.
        keeps: See :func:`check_rows`.
    """
    encoding = checked_encoding(table.encoding)
    columns = [column for column in table.columns if column.read and (keeps or _is_checked(column))]
    rows = TableGatherer(columns) if keeps and can_be_kept(table) else None
    number, n_rows = 2, 0
    with Digesting(table.file) as digest:
        digest.add(stream.readline())
        while block := stream.read(blocks.BLOCK):
            block += stream.readline()
            if b'"' in block:  # a quoted field may extend beyond the block
                stream.seek(-len(block), io.SEEK_CUR)
                return n_rows + _check_records(table, _lines(table, stream, number, encoding), surplus, empty, n_rows)
            digest.add(block)
            read = read_block(table, block, columns)
            if read is None:
                rows = None
                lines = _lines(table, io.BytesIO(block), number, encoding)
                n_rows += _check_records(table, lines, surplus, empty, n_rows)
            else:
                n_rows += read.n_rows
                empty -= {name for name, values in read.values.items() if values.null_count < read.n_rows}
                if rows is not None:
                    rows.add(read.values)
            number += _count_line_breaks(block)
        digest.finish()
    if rows is not None and n_rows:
        keep(digest.state, table, rows.finish())
    return n_rows


def _is_checked(column: Column) -> bool:
    """Whether the values of a column that is read can be wrong; any text is a token."""
    return column.required or column.type == FeatureType.FLOAT


def _count_line_breaks(block: bytes) -> int:
    """Number of line breaks in a block, as Python's universal newlines count them."""
    ends = n_line_ends(block)
    return ends + block.count(b"\r") - block.count(b"\r\n") if b"\r" in block else ends


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
