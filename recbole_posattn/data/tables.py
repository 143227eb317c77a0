"""Typed tables of atomic files: tokens as numbers, read once, and handed from the check of a file to its data set.

Shape keys: n rows of a file, m different tokens of a column.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from recbole.utils import FeatureType

from recbole_posattn.data import blocks
from recbole_posattn.data.blocks import SEQUENCES, Column, Table, arrow_can_read, read_block
from recbole_posattn.data.digest import Digesting, FileState

# Whole numbers below this are looked up in a table of at most 128 MiB.
_LARGEST_ID = 2**25


class Tokens(NamedTuple):
    """A column of tokens.

    Attributes:
        code: Number of each row's token, −1 if it is missing; int32, shape (n,).
        known: The tokens in the order in which they first occur; shape (m,).
    """

    code: np.ndarray
    known: pa.Array

    def categorical(self) -> pd.Categorical:
        """The column as pandas stores it in at most four bytes a row."""
        tokens = self.known.to_numpy(zero_copy_only=False)
        return pd.Categorical.from_codes(self.code, pd.Index(tokens, dtype=object))

    def strings(self) -> np.ndarray:
        """The column as RecBole reads it: strings, and NaN where they are missing; shape (n,)."""
        return np.array([*self.known.to_pylist(), np.nan], dtype=object)[self.code]


class TokenGatherer:
    """Numbers the tokens of a column, block by block, in the order in which they first occur.

    As long as all tokens are whole numbers below :data:`_LARGEST_ID`, written as Python writes them, they are looked up
    in a table instead of a dictionary of texts.
    """

    def __init__(self) -> None:
        self._codes = array("i")  # grows in place: arrays in a list would be in memory twice when they are joined
        self._are_ids, self._ids = True, np.empty(0, dtype=np.int64)
        self._of_id = np.empty(0, dtype=np.int32)
        self._known = pa.array([], pa.string())

    def add(self, tokens: pa.ChunkedArray | pa.Array) -> None:
        """Add rows: text or whole numbers, null if missing; perhaps in a dictionary, in the order of the rows."""
        for chunk in tokens.chunks if isinstance(tokens, pa.ChunkedArray) else [tokens]:
            ids = _as_ids(chunk) if self._are_ids else None
            if ids is not None:
                _append(self._codes, self._codes_of_ids(ids))
                continue
            if self._are_ids:
                self._known, self._are_ids = pa.array(self._ids).cast(pa.string()), False
            encoded = chunk.dictionary_encode()
            of_token = self._numbers(encoded.dictionary.cast(pa.string()))
            _append(self._codes, of_token[encoded.indices.fill_null(-1).to_numpy()])

    def _codes_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """The codes of whole numbers; int32, shape (n,)."""
        if len(ids) and ids.max() >= len(self._of_id):
            table = np.full(max(int(ids.max()) + 1, 2 * len(self._of_id)), -1, dtype=np.int32)
            table[: len(self._of_id)] = self._of_id
            self._of_id = table
        codes = self._of_id[ids]
        is_new = codes < 0
        if is_new.any():
            new = pd.unique(ids[is_new])
            self._of_id[new] = np.arange(len(self._ids), len(self._ids) + len(new), dtype=np.int32)
            self._ids = np.concatenate([self._ids, new])
            codes[is_new] = self._of_id[ids[is_new]]
        return codes

    def _numbers(self, tokens: pa.Array) -> np.ndarray:
        """The numbers of different tokens, of which new ones get the next, and −1 at the end; int32, shape (m + 1,)."""
        number = pc.index_in(tokens, value_set=self._known).fill_null(-1).to_numpy().astype(np.int32)
        is_new = number < 0
        if is_new.any():
            n_known = len(self._known)
            number[is_new] = np.arange(n_known, n_known + is_new.sum(), dtype=np.int32)
            self._known = pa.concat_arrays([self._known, tokens.filter(pa.array(is_new))])
        return np.append(number, np.int32(-1))

    def finish(self) -> Tokens:
        """The whole column."""
        known = pa.array(self._ids).cast(pa.string()) if self._are_ids else self._known
        return Tokens(np.frombuffer(self._codes, dtype=np.int32), known)


def _as_ids(tokens: pa.Array) -> np.ndarray | None:
    """Tokens as whole numbers from 0; ``None`` if some are missing, larger, or not the text of their number."""
    if tokens.null_count or pa.types.is_dictionary(tokens.type):
        return None
    if not pa.types.is_integer(tokens.type):
        if not len(tokens):
            return np.empty(0, dtype=np.int64)
        offsets = np.frombuffer(tokens.buffers()[1], np.int32)[tokens.offset : tokens.offset + len(tokens) + 1]
        first = np.frombuffer(tokens.buffers()[2] or b"\0", np.uint8)[np.minimum(offsets[:-1], offsets[-1] - 1)]
        length = np.diff(offsets)
        if ((length == 0) | (first < ord("0")) | (first > ord("9")) | ((first == ord("0")) & (length > 1))).any():
            return None
    try:
        ids = tokens.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return ids if not len(ids) or (ids.min() >= 0 and ids.max() < _LARGEST_ID) else None


def _append(values: array[Any], more: np.ndarray) -> None:
    """Append values of the type of the array."""
    values.frombytes(np.ascontiguousarray(more).data.cast("B"))


class AtomicTable(NamedTuple):
    """The rows of a file.

    Attributes:
        columns: The columns that were read, by name: tokens; numbers, NaN if missing; for sequences, texts as in the
            file, NaN if missing, or (from Parquet) arrays; each of shape (n,).
    """

    columns: Mapping[str, Tokens | np.ndarray]

    def frame(self, names: Sequence[str], categorical: bool) -> pd.DataFrame:
        """Some columns, tokens as categories or as strings."""
        columns = {}
        for name in names:
            column = self.columns[name]
            if isinstance(column, Tokens):
                columns[name] = column.categorical() if categorical else column.strings()
            else:
                columns[name] = column
        return pd.DataFrame(columns, copy=False)


class TableGatherer:
    """Gathers the columns of a file from its blocks.

    Args:
        columns: The columns that are read.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._names = [column.name for column in columns]
        self._tokens = {column.name: TokenGatherer() for column in columns if column.type == FeatureType.TOKEN}
        self._numbers = {column.name: array("d") for column in columns if column.type == FeatureType.FLOAT}
        self._sequences: dict[str, list[np.ndarray]] = {
            column.name: [] for column in columns if column.type in SEQUENCES
        }

    def add(self, values: Mapping[str, pa.ChunkedArray | pa.Array | np.ndarray]) -> None:
        """Add a block: texts of tokens and of sequences, null if missing, and numbers; each of shape (n,)."""
        with ThreadPoolExecutor(max(1, len(self._tokens))) as threads:  # Arrow computes without Python's lock
            list(threads.map(lambda name: self._tokens[name].add(values[name]), self._tokens))
        for name, numbers in self._numbers.items():
            _append(numbers, _as_array(values[name]))
        for name, parts in self._sequences.items():
            column = _as_array(values[name])
            column[pd.isna(column)] = np.nan  # not None, as in pandas
            parts.append(column)

    def finish(self) -> AtomicTable:
        """The whole table."""
        columns: dict[str, Tokens | np.ndarray] = {}
        for name in self._names:
            if name in self._tokens:
                columns[name] = self._tokens[name].finish()
            elif name in self._numbers:
                columns[name] = np.frombuffer(self._numbers[name], dtype=np.float64)
            else:
                parts = self._sequences[name]
                columns[name] = np.concatenate(parts) if parts else np.empty(0, dtype=object)
        pa.default_memory_pool().release_unused()
        return AtomicTable(columns)


def _as_array(values: pa.ChunkedArray | pa.Array | np.ndarray) -> np.ndarray:
    """Values of Arrow as an array that can be written to: NaN or None where they are missing."""
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, pa.ChunkedArray):
        return np.array(values.to_numpy())
    return np.array(values.to_numpy(zero_copy_only=False))


def can_be_kept(table: Table) -> bool:
    """Whether Arrow's rows of a file are those of pandas, which skips a line of spaces even if they are a token."""
    return arrow_can_read(table) and len(table.columns) > 1


# -- from the check of a file to its data set ------------------------------------------------------------------------


class _Kept(NamedTuple):
    state: FileState
    table: Table
    rows: AtomicTable


_kept: dict[Path, _Kept] = {}


def keep(state: FileState, table: Table, rows: AtomicTable) -> None:
    """Keep the rows of a file for the data set that will read it.

    Args:
        state: The state of the file when its reader began.
        table: Its format, with the columns that were read.
        rows: What was read.
    """
    _kept[state.file] = _Kept(state, table, rows)


def forget() -> None:
    """Free the rows that no data set has taken."""
    _kept.clear()


def take(table: Table) -> AtomicTable | None:
    """The rows that were kept of a file in its present state, read in the same format; ``None`` if there are none."""
    kept = _kept.pop(table.file.absolute(), None)
    if kept is None or not kept.state.is_of(table.file) or not _holds(kept.table, table):
        return None
    return kept.rows


def _holds(kept: Table, wanted: Table) -> bool:
    """Whether a file was read in a format with all the columns that are wanted."""
    of_file = {column.name: column for column in kept.columns}
    same_format = kept._replace(file=wanted.file, columns=()) == wanted._replace(columns=())
    return same_format and all(
        column.name in of_file and of_file[column.name].read and of_file[column.name].type == column.type
        for column in wanted.columns
        if column.read
    )


def read_table(table: Table) -> AtomicTable | None:
    """The rows of a file; ``None`` if Arrow and pandas may not read the same from it."""
    if not can_be_kept(table):
        return None
    columns = [column for column in table.columns if column.read]
    rows = TableGatherer(columns)
    with open(table.file, "rb") as stream, Digesting(table.file) as digest:
        digest.add(stream.readline())
        while block := stream.read(blocks.BLOCK):
            block += stream.readline()
            read = None if b'"' in block else read_block(table, block, columns)
            if read is None:
                return None
            digest.add(block)
            rows.add(read.values)
        digest.finish()
    return rows.finish()
