"""Reads Parquet files as batches of records: only the columns that are needed, some rows at a time.

A row may be an interaction, or a user with lists of items and times.

Shape keys: n records of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbole_posattn.atomic_files.convert.interactions import Batch, plain_value
from recbole_posattn.atomic_files.convert.rejects import Rejects
from recbole_posattn.atomic_files.convert.shapes import Columns, check_columns
from recbole_posattn.data.row_groups import row_batches
from recbole_posattn.errors import DataError

# Rows of a batch if they are interactions, and if they hold lists.
ROWS, LIST_ROWS = 2**17, 2**10


def open_parquet(file: Path, columns: Columns) -> pq.ParquetFile:
    """Open a Parquet file, and check that it has the columns, with usable types.

    Raises:
        DataError: If it is not a Parquet file, or a column is missing or of another type.
    """
    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    schema = opened.schema_arrow
    check_columns(str(file), schema.names, columns)
    in_lists = _is_list(schema.field(columns.item).type)
    for role, name in columns.given().items():
        kind = schema.field(name).type
        if role != "user" and _is_list(kind) != in_lists:
            raise DataError(f"{file}: the columns of items, times and ratings must all be lists, or none of them")
        kind = kind.value_type if role != "user" and in_lists else kind
        if not _usable(role, kind.value_type if pa.types.is_dictionary(kind) else kind):
            allowed = {"time": "a time, a number or text", "rating": "a number or text"}
            raise DataError(
                f"{file}: column {name!r} is of type {kind}; the {role} must be "
                f"{allowed.get(role, 'text or a whole number')}"
            )
    return opened


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    is_a = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in (*is_a, pa.types.is_string_view, pa.types.is_binary_view))


def _usable(role: str, kind: pa.DataType) -> bool:
    if _is_text(kind) or pa.types.is_integer(kind):
        return True
    is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return (role in ("time", "rating") and is_number) or (role == "time" and is_time)


def parquet_batches(opened: pq.ParquetFile, columns: Columns, rejects: Rejects) -> Iterator[Batch]:
    """The records of a Parquet file.

    Args:
        opened: See :func:`open_parquet`.
        columns: The columns to read.
        rejects: Collects rows that are not records.

    Raises:
        DataError: If the file is damaged.
    """
    given = columns.given()
    in_lists = _is_list(opened.schema_arrow.field(columns.item).type)
    done, rows = 0, row_batches(opened, LIST_ROWS if in_lists else ROWS, [*given.values()])
    while True:
        try:
            batch = next(rows, None)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{rejects.label} is damaged after row {done}: {str(error).splitlines()[0]}") from error
        if batch is None:
            return
        number = np.arange(done + 1, done + 1 + len(batch))
        done += len(batch)
        table = {role: batch.column(name) for role, name in given.items()}
        if in_lists:
            number, table = _flat(number, table, rejects)
        yield _batch(number, table, done, rejects)


def _flat(number: np.ndarray, table: dict[str, pa.Array], rejects: Rejects) -> tuple[np.ndarray, dict[str, pa.Array]]:
    """Turn rows with lists into one row per element."""
    listed = [column for role, column in table.items() if role != "user"]
    lengths = [pc.fill_null(pc.list_value_length(column), -1).to_numpy() for column in listed]
    good = np.logical_and.reduce([(length == lengths[0]) & (length >= 0) for length in lengths])
    for index in np.flatnonzero(~good).tolist():
        rejects.add(int(number[index]), "lists are missing or have different lengths", str(table["user"][index]))
    mask = pa.array(good)
    flat = {role: column.filter(mask).flatten() for role, column in table.items() if role != "user"}
    row = np.repeat(np.flatnonzero(good), lengths[0][good])
    return number[row], {"user": table["user"].take(pa.array(row)), **flat}


def _batch(number: np.ndarray, table: dict[str, pa.Array], done: int, rejects: Rejects) -> Batch:
    good = np.ones(len(number), dtype=bool)
    for role, column in table.items():
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if _is_text(column.type):
            column, is_text = _decoded(column)
            for index in np.flatnonzero(good & ~is_text).tolist():
                rejects.add(int(number[index]), f"{role} is not utf-8", "")
            good &= is_text
        elif role in ("user", "item"):
            column = column.cast(pa.string())
        table[role] = column
    if not good.all():
        number, table = number[good], {role: column.filter(pa.array(good)) for role, column in table.items()}
    shown = list(table.values())
    time, rating = table.get("time"), table.get("rating")

    def text(index: int) -> str:
        return "\t".join(str(plain_value(column[index])) for column in shown)

    return Batch(number, table["user"], table["item"], time, rating, text, done)


def _decoded(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Bytes (or text that was not checked) as text, and whether each value is text; boolean, shape (n,)."""
    raw = column.cast(pa.large_binary())
    is_text = np.ones(len(raw), dtype=bool)
    try:
        return raw.cast(pa.string()), is_text
    except pa.ArrowInvalid:
        values = raw.to_pylist()
    for index, value in enumerate(values):
        try:
            values[index] = value and value.decode()
        except UnicodeError:
            values[index], is_text[index] = None, False
    return pa.array(values, pa.string()), is_text
