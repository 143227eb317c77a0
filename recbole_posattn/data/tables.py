"""Typed tables of atomic files: tokens as numbers, read once, and handed from the check of a file to its data set.

Shape keys: n rows of a file, m different tokens of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from recbole.utils import FeatureType

from recbole_posattn.data import blocks
from recbole_posattn.data.blocks import Column, Table, arrow_can_read, read_block
from recbole_posattn.data.digest import Digesting, FileState


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
    """Numbers the tokens of a column, block by block, in the order in which they first occur."""

    def __init__(self) -> None:
        self._codes: list[np.ndarray] = []
        self._known = pa.array([], pa.string())

    def add(self, texts: pa.ChunkedArray | pa.Array) -> None:
        """Add rows: text, null if missing; perhaps in a dictionary without duplicates, in the order of the rows."""
        encoded = texts.dictionary_encode()
        for chunk in encoded.chunks if isinstance(encoded, pa.ChunkedArray) else [encoded]:
            of_token = self._numbers(chunk.dictionary)
            self._codes.append(of_token[chunk.indices.fill_null(-1).to_numpy()])

    def _numbers(self, tokens: pa.Array) -> np.ndarray:
        """The numbers of different tokens, of which new ones get the next, and −1 at the end; int32, shape (m + 1,)."""
        tokens = tokens.cast(pa.string())
        number = pc.index_in(tokens, value_set=self._known).fill_null(-1).to_numpy().astype(np.int32)
        is_new = number < 0
        if is_new.any():
            n_known = len(self._known)
            number[is_new] = np.arange(n_known, n_known + is_new.sum(), dtype=np.int32)
            self._known = pa.concat_arrays([self._known, tokens.filter(pa.array(is_new))])
        return np.append(number, np.int32(-1))

    def finish(self) -> Tokens:
        """The whole column."""
        codes, self._codes = self._codes, []
        return Tokens(np.concatenate(codes) if codes else np.empty(0, np.int32), self._known)


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
        self._others: dict[str, list[np.ndarray]] = {name: [] for name in self._names if name not in self._tokens}

    def add(self, values: Mapping[str, pa.ChunkedArray | pa.Array | np.ndarray]) -> None:
        """Add a block: texts of tokens and of sequences, null if missing, and numbers; each of shape (n,)."""
        with ThreadPoolExecutor(max(1, len(self._tokens))) as threads:  # Arrow computes without Python's lock
            list(threads.map(lambda name: self._tokens[name].add(values[name]), self._tokens))
        for name, parts in self._others.items():
            column = values[name]
            if isinstance(column, pa.ChunkedArray):
                column = column.to_numpy()
                if column.dtype == object:
                    column[pd.isna(column)] = np.nan  # not None, as in pandas
            parts.append(column)

    def finish(self) -> AtomicTable:
        """The whole table."""
        columns: dict[str, Tokens | np.ndarray] = {}
        for name in self._names:
            if name in self._tokens:
                columns[name] = self._tokens.pop(name).finish()
            else:
                parts = self._others.pop(name)
                columns[name] = np.concatenate(parts) if parts else np.empty(0)
        return AtomicTable(columns)


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
