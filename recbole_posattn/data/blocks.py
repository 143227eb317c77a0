"""Reads atomic files with Arrow, block by block, and tells correct blocks from all others.

A block is correct if Arrow and pandas, which RecBole uses, read the same values from it, and none of them is refused.
What is not correct here may still be a row that pandas reads: blocks without a result are left to others.

Shape keys: n rows of a block.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from recbole.utils import FeatureType

from recbole_posattn.data.text import LARGEST, LONGEST_LINE, READ_AS_MISSING, line_encoding

NUMBERS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
SEQUENCES = (FeatureType.TOKEN_SEQ, FeatureType.FLOAT_SEQ)

# How many bytes are read at a time.
BLOCK = 2**24

# Texts of at most so many digits, points and signs, from which pandas' parser gets the nearest number, as Arrow's does:
# their digits are an integer below 2^53, and the power of ten that divides it is exact.
_EXACT_LENGTH = 15
_IN_PLAIN_NUMBERS = np.zeros(256, dtype=bool)
_IN_PLAIN_NUMBERS[np.frombuffer(b"0123456789.-", np.uint8)] = True


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
        separator: Between the fields of a row; if it has several characters, it is not a regular expression.
        seq_separator: Between the values of a sequence.
        encoding: The Python name of its encoding.
    """

    file: Path
    columns: Sequence[Column]
    separator: str
    seq_separator: str
    encoding: str


class Block(NamedTuple):
    """Correct rows.

    Attributes:
        n_rows: Their number.
        values: By column, null if missing: texts, and numbers for columns of that type; each of shape (n,).
    """

    n_rows: int
    values: dict[str, pa.ChunkedArray]


def arrow_can_read(table: Table) -> bool:
    """Whether Arrow can read the file: lines end with byte 10, the separator is one byte, no column holds vectors."""
    if len(table.separator) != 1 or not table.separator.isascii() or line_encoding(table.encoding) is None:
        return False
    if any(column.read and column.type == FeatureType.FLOAT_SEQ for column in table.columns):
        return False
    with open(table.file, "rb") as stream:
        return b"\r" not in stream.readline(LONGEST_LINE).removesuffix(b"\r\n")


def read_block(table: Table, block: bytes, columns: Sequence[Column]) -> Block | None:
    """Read whole lines without quotes if all their rows are correct; else returns ``None``.

    Args:
        table: The file, which :func:`arrow_can_read`.
        block: Some of its lines, not the header.
        columns: The columns to read and check.
    """
    if b"\0" in block or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return None
    encoding = line_encoding(table.encoding) or "utf-8"
    try:
        text = block.decode(encoding)
        lines = block if encoding == "utf-8" else text.encode()
    except UnicodeError:
        return None
    places = {column.name: str(place) for place, column in enumerate(table.columns)}
    texts = _parsed(table, lines, {places[column.name]: pa.string() for column in columns})
    if texts is None:
        return None
    values = {}
    for column in columns:
        of_column = texts[places[column.name]]
        if column.required and not _has_values(of_column, column, table.seq_separator):
            return None
        if column.type == FeatureType.FLOAT:
            numbers = _plain_numbers(of_column)
            if numbers is None:
                numbers = _other_numbers(table, lines, places[column.name])
            if numbers is None or not _finite(numbers):
                return None
            of_column = numbers
        values[column.name] = of_column
    return Block(len(texts), values)


def _parsed(table: Table, lines: bytes, types: Mapping[str, pa.DataType]) -> pa.Table | None:
    """Columns of lines in UTF-8, by their places; ``None`` if a row has another number of fields, or a bad value."""
    try:
        return pa.csv.read_csv(
            pa.py_buffer(lines),
            pa.csv.ReadOptions(column_names=[str(place) for place in range(len(table.columns))]),
            pa.csv.ParseOptions(delimiter=table.separator, quote_char=False),
            pa.csv.ConvertOptions(
                include_columns=list(types) or ["0"],
                column_types=dict(types),
                null_values=["", *READ_AS_MISSING],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )
    except pa.ArrowInvalid:
        return None


def _has_values(texts: pa.ChunkedArray, column: Column, seq_separator: str) -> bool:
    """Whether each row has a value, in a column of sequences at least one."""
    if texts.null_count:
        return False
    if column.type not in SEQUENCES:
        return True
    return not pc.any(pc.equal(pc.replace_substring(texts, seq_separator, ""), "")).as_py()


def _plain_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Short numbers of digits, points and signs; ``None`` if there are any others."""
    if (pc.max(pc.binary_length(texts)).as_py() or 0) > _EXACT_LENGTH:
        return None
    for chunk in filter(len, texts.chunks):
        begin, end = np.frombuffer(chunk.buffers()[1], np.int32)[[chunk.offset, chunk.offset + len(chunk)]]
        characters = np.frombuffer(chunk.buffers()[2] or b"", np.uint8)[begin:end]
        if not _IN_PLAIN_NUMBERS[characters].all():
            return None
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _other_numbers(table: Table, lines: bytes, place: str) -> pa.ChunkedArray | None:
    """Numbers as pandas reads them; ``None`` if some are bad.

    It reads a column of integers exactly, while other numbers may differ from the nearest one in the last bit.
    """
    checked = _parsed(table, lines, {place: pa.float64()})
    if checked is None:
        return None
    names = [str(number) for number in range(len(table.columns))]
    try:
        column = pd.read_csv(
            io.BytesIO(lines), sep=table.separator, header=None, names=names, usecols=[place], low_memory=False
        )[place]
    except ValueError:
        return None
    if len(column) != len(checked) or column.dtype.kind not in "iuf":
        return None
    return pa.chunked_array([pa.array(column.to_numpy("float64"), from_pandas=True)])


def _finite(numbers: pa.ChunkedArray) -> bool:
    """Whether all numbers that are there are finite in 32 bits."""
    values = numbers.to_numpy()  # NaN for a null
    largest = np.nanmax(np.abs(values), initial=0)
    return bool(largest <= LARGEST) and int(np.isnan(values).sum()) == numbers.null_count
