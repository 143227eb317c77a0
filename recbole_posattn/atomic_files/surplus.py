"""Rows of an atomic file with more or fewer fields than it has columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_posattn.errors import DataError, counted, shown


@dataclass
class Surplus:
    """Counts rows with more fields than columns, of which RecBole reads the first fields.

    Attributes:
        file: The file.
        n_columns: Columns in its header.
        separator: Between the fields of a row.
        separator_name: Its name in messages.
        n_rows: The number of such rows.
        first: What is wrong with the first of these rows.
    """

    file: Path
    n_columns: int
    separator: str
    separator_name: str
    n_rows: int = 0
    first: str = ""

    def check(self, place: int, number: int, fields: Sequence[str], line: str) -> None:
        """Refuse a row whose number of fields differs from that of the columns, unless pandas reads its first fields.

        Args:
            place: Position of the row in the file, from 1.
            number: Number of its first line, from 1.
            fields: Its fields.
            line: The text of all its lines.

        Raises:
            DataError: If it has fewer fields, or more where pandas misreads them; names the line.
        """
        n_fields, n_columns = len(fields), self.n_columns
        columns = f"{counted(n_columns, 'column')} separated by {self.separator_name}"
        counts = f"the header has {columns}, but line {number} has {n_fields}"
        # pandas takes columns for row names if the first row has too many fields, or the second at least twice as many
        names_rows = place == 1 or (place == 2 and n_fields >= 2 * n_columns)
        if n_fields > n_columns and not names_rows:
            self.n_rows += 1
            left_out = shown(self.separator.join(fields[n_columns:]))
            self.first = self.first or f"{counts}; the rest is left out, as in RecBole: {left_out}"
            return
        cut_off = "" if line.endswith(("\n", "\r")) else "; it is the last line, and the file seems to be cut off there"
        misread = "; pandas would read the first column as row names" if n_fields > n_columns else cut_off
        raise DataError(f"{self.file}: {counts}: {shown(line.rstrip())}{misread}")

    def report(self) -> None:
        """Warn of the fields that are left out."""
        if self.n_rows:
            more = f" ({self.n_rows:,} such lines in all)" if self.n_rows > 1 else ""
            logging.getLogger().warning(f"{self.file}: {self.first}{more}")
