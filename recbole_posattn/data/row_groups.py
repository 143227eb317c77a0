"""Reads Parquet files some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def row_batches(opened: pq.ParquetFile, n_rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a file, in the order of its rows.

    No batch has rows of two row groups, because Arrow cannot join lists whose values are in dictionaries.

    Args:
        opened: The file.
        n_rows: The most rows of a batch.
        columns: Names of the columns.
    """
    for group in range(opened.num_row_groups):
        yield from opened.iter_batches(n_rows, row_groups=[group], columns=list(columns))
