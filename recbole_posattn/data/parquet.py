"""Interactions in Parquet files: the types of columns, and their values, read some rows at a time.

A column is named as in an atomic file, with its type or without. Without it, the type follows from Arrow's, and from
what the settings use the column for; whole numbers of unknown use are refused, since they may be tokens or numbers.

Shape keys: n rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recbole.utils import FeatureType

from recbole_posattn.data.blocks import NUMBERS, SEQUENCES, Column, Table
from recbole_posattn.data.digest import FileState
from recbole_posattn.data.row_groups import row_batches
from recbole_posattn.data.tables import AtomicTable, TableGatherer, keep
from recbole_posattn.data.text import LARGEST
from recbole_posattn.errors import DataError

# Rows that are read at a time.
ROWS = 2**20

# How many of Arrow's units of time make a second.
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TYPES = {kind.value: kind for kind in FeatureType}
_TYPE_OF_NULLS = {
    FeatureType.TOKEN: pa.string(),
    FeatureType.TOKEN_SEQ: pa.list_(pa.string()),
    FeatureType.FLOAT: pa.float64(),
    FeatureType.FLOAT_SEQ: pa.list_(pa.float64()),
}


class ParquetColumn(NamedTuple):
    """A column of a Parquet file.

    Attributes:
        stored: Its name in the file, perhaps with its type.
        kind: Its type in Arrow, see :func:`_plain`.
        type: Its type in RecBole; ``None`` if nothing says whether its whole numbers are tokens.
    """

    stored: str
    kind: pa.DataType
    type: FeatureType | None

    def checked_type(self, file: Path, name: str) -> FeatureType:
        """The type of a column that is read.

        Raises:
            DataError: If nothing says whether its whole numbers are tokens, or its values do not fit its type.
        """
        if self.type is None:
            token, number = ("token_seq", "float_seq") if _is_list(self.kind) else ("token", "float")
            raise DataError(
                f"{file}: column {name!r} holds whole numbers, which may be tokens or numbers; name it {name}:{token} "
                f"or {name}:{number} in the file, or leave it out with load_col or unload_col"
            )
        if not _fits(self.kind, self.type):
            raise DataError(
                f"{file}: column {name!r} is of type {self.kind}, which cannot be read as {self.type.value}: tokens "
                "are text or whole numbers, floats are numbers or times, and sequences are lists of them"
            )
        return self.type


def parquet_columns(file: Path, settings: Mapping[str, Any]) -> dict[str, ParquetColumn]:
    """The columns of a file by their names without types.

    Args:
        file: The file.
        settings: Resolved settings, which name the columns of ids, times and numbers.

    Raises:
        DataError: If it is not a Parquet file, or a name occurs twice.
    """
    columns: dict[str, ParquetColumn] = {}
    for field in _opened(file).schema_arrow:
        name, _, given = field.name.rpartition(":")
        if not name or given not in _TYPES:
            name, given = field.name, ""
        if name in columns:
            raise DataError(f"{file} has the column {name!r} more than once; rename one of them")
        kind = _plain(field.type)
        columns[name] = ParquetColumn(field.name, kind, _TYPES[given] if given else _type_of(name, kind, settings))
    return columns


def known_types(columns: Mapping[str, ParquetColumn]) -> dict[str, FeatureType]:
    """The types of columns that have one."""
    return {name: column.type for name, column in columns.items() if column.type is not None}


def parquet_table(file: Path, columns: Sequence[Column]) -> Table:
    """A Parquet file as :mod:`recbole_posattn.data.tables` knows files; it has no separators."""
    return Table(file, columns, "", "", "")


def check_parquet(file: Path, columns: Sequence[Column], stored: Mapping[str, ParquetColumn], keeps: bool) -> set[str]:
    """Refuse a file with values that cannot be used.

    Args:
        file: The file.
        columns: Its columns.
        stored: See :func:`parquet_columns`.
        keeps: Whether to keep the rows for the data set.

    Returns:
        The columns of numbers that are read and have no value in any row.

    Raises:
        DataError: See :func:`read_parquet`.
    """
    state = FileState.of(file)
    rows = read_parquet(file, [column for column in columns if column.read], stored)
    if keeps:
        keep(state, parquet_table(file, columns), rows)
    empty = set()
    for column in columns:
        values = rows.columns.get(column.name)
        if column.type in NUMBERS and isinstance(values, np.ndarray):
            has_value = ~np.isnan(values) if column.type == FeatureType.FLOAT else [len(each) > 0 for each in values]
            if not np.any(has_value):
                empty.add(column.name)
    return empty


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _type_of(name: str, kind: pa.DataType, settings: Mapping[str, Any]) -> FeatureType | None:
    """The type of a column whose name does not say it."""
    tokens = {settings["USER_ID_FIELD"], settings["ITEM_ID_FIELD"]}
    tokens |= {*(settings["alias_of_user_id"] or ()), *(settings["alias_of_item_id"] or ())}
    numbers = {settings["TIME_FIELD"], settings["LABEL_FIELD"], settings["RATING_FIELD"]}
    numbers |= {*settings["numerical_features"], *(settings["threshold"] or ())}
    in_list = _is_list(kind)
    name = name.removesuffix(settings["LIST_SUFFIX"]) if in_list else name
    element = kind.value_type if in_list else kind
    if name in tokens or (name not in numbers and _is_text(element)):
        return FeatureType.TOKEN_SEQ if in_list else FeatureType.TOKEN
    if name in numbers or not pa.types.is_integer(element):
        return FeatureType.FLOAT_SEQ if in_list else FeatureType.FLOAT
    return None


def _fits(kind: pa.DataType, feature: FeatureType) -> bool:
    """Whether values of a type of Arrow can be read as a type of RecBole."""
    if pa.types.is_null(kind):
        return True  # no row has a value, which says more than its type
    if _is_list(kind) != (feature in SEQUENCES):
        return False
    element = kind.value_type if _is_list(kind) else kind
    checks = [pa.types.is_integer]
    if feature in NUMBERS:
        checks += [pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_timestamp]
        checks += [pa.types.is_date]
    else:
        checks += [_is_text]
    return any(check(element) for check in checks)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type of Arrow without dictionaries and fixed sizes of lists, which only tell how values are stored."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def read_parquet(file: Path, columns: Sequence[Column], stored: Mapping[str, ParquetColumn]) -> AtomicTable:
    """The columns of a file.

    Args:
        file: The file.
        columns: The columns to read, and whether every row needs a value there.
        stored: See :func:`parquet_columns`.

    Raises:
        DataError: If the file is damaged or has no rows, a required value is missing, or a number is not finite in 32
            bits; names the row, counted from 1.
    """
    rows, n_rows = TableGatherer(columns), 0
    for batch in _batches(file, [stored[column.name].stored for column in columns]):
        values = {}
        for column in columns:
            values[column.name] = _values(batch.column(stored[column.name].stored), column.type)
            bad = _first_problem(values[column.name], column)
            if bad is not None:
                row, problem = bad
                raise DataError(
                    f"{file}, row {n_rows + row + 1}: column {column.name!r} {problem}; correct the row or leave it out"
                )
        rows.add(values)
        n_rows += len(batch)
    if n_rows == 0:
        raise DataError(f"{file} has no rows")
    return rows.finish()


def read_columns(file: Path, names: Sequence[str], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Those of some columns that a file has; tokens are categories."""
    stored = {name: column for name, column in parquet_columns(file, settings).items() if name in names}
    columns = [Column(name, column.checked_type(file, name), True, False) for name, column in stored.items()]
    return read_parquet(file, columns, stored).frame(list(stored), categorical=True)


def _batches(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from row_batches(_opened(file), ROWS, names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is damaged: {str(error).splitlines()[0]}") from error


def _values(array: pa.Array, feature: FeatureType) -> pa.Array | np.ndarray:
    """Tokens in a dictionary, numbers, or an array of lists of them; null or empty if missing; shape (n,)."""
    if array.type != _plain(array.type):
        array = array.cast(_plain(array.type))
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    if pa.types.is_null(array.type):
        array = array.cast(_TYPE_OF_NULLS[feature])
    if feature == FeatureType.TOKEN:
        return _tokens(array)
    if feature == FeatureType.FLOAT:
        return _numbers(array)
    array = array.fill_null(pa.scalar([], array.type))
    flat = array.flatten()
    if feature == FeatureType.FLOAT_SEQ:
        elements = _numbers(flat).to_numpy(zero_copy_only=False)
    else:
        elements = flat.cast(pa.string()).to_numpy(zero_copy_only=False)
    ends = pc.list_value_length(array).to_numpy().cumsum()[:-1]
    lists = np.empty(len(array), dtype=object)
    lists[:] = [each[~(pd.isna(each) | (each == ""))] for each in np.split(elements, ends)]
    return lists


def _tokens(array: pa.Array) -> pa.Array:
    """Text or whole numbers as tokens; empty text is missing, as in an atomic file."""
    if pa.types.is_integer(array.type):
        return array
    encoded = array.dictionary_encode()
    known = encoded.dictionary.cast(pa.string())
    indices, empty = encoded.indices, pc.index(known, "").as_py()
    if empty >= 0:
        indices = pc.if_else(pc.equal(indices, empty), pa.scalar(None, indices.type), indices)
    return pa.DictionaryArray.from_arrays(indices, known)


def _numbers(array: pa.Array) -> pa.Array:
    """Numbers in 64 bits, times as seconds since 1970; null for what is missing and for NaN."""
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(array.type):
        unit = _UNITS[array.type.unit]
        count = array.cast(pa.int64())
        whole = pc.divide(count, unit)
        rest = pc.subtract(count, pc.multiply(whole, unit))
        return pc.add(whole.cast(pa.float64(), safe=False), pc.divide(rest.cast(pa.float64()), float(unit)))
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return pa.array(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), from_pandas=True)


def _first_problem(values: pa.Array | np.ndarray, column: Column) -> tuple[int, str] | None:
    """The first row with a value that cannot be used, and what is wrong with it."""
    problems = []
    if column.required:
        missing = [len(each) == 0 for each in values] if isinstance(values, np.ndarray) else values.is_null()
        problems.append((np.asarray(missing), "has no value"))
    if column.type == FeatureType.FLOAT and isinstance(values, pa.Array):
        numbers = np.abs(values.to_numpy(zero_copy_only=False))
        problems.append((numbers > LARGEST, "must be a finite number of at most 3.4e38"))
    elif column.type == FeatureType.FLOAT_SEQ:
        bad = [bool((np.abs(each) > LARGEST).any()) for each in values]
        problems.append((np.asarray(bad), "must be finite numbers of at most 3.4e38"))
    found = [(int(bad.argmax()), problem) for bad, problem in problems if bad.any()]
    return min(found) if found else None
