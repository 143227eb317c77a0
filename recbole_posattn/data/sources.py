"""Which file holds the rows of an atomic file: the text file, or for interactions a Parquet file beside it."""

from __future__ import annotations

from pathlib import Path

PARQUET = ".parquet"


def file_of(file: Path) -> Path:
    """The file with the rows of an atomic file: itself, or ``<file>.parquet`` if only that exists."""
    parquet = file.with_name(file.name + PARQUET)
    return parquet if parquet.is_file() and not file.is_file() else file


def is_parquet(file: Path) -> bool:
    """Whether a file that :func:`file_of` returned is a Parquet file."""
    return file.suffix == PARQUET
