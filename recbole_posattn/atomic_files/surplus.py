"""Rows of an atomic file with more or fewer fields than it has columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_posattn.errors import DataError, shown


@dataclass
class Surplus:
    """Rows with more fields than columns; RecBole reads the first fields.

    Attributes:
        file: The file.
        n_columns: Columns in its header.
        separator: Of the fields of a row.
        separator_name: Its name in messages.
        n_rows: The number of such rows.
        first: What is wrong with the first of them.
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
            number: Number of its first line.
            fields: Its fields.
            line: All its lines.

        Raises:
            DataError: Naming the line.
        """
        n_fields, n_columns = len(fields), self.n_columns
        counts = (
            f"the header has {n_columns} columns separated by {self.separator_name}, but line {number} has {n_fields}"
        )
        # pandas reads columns as row names if the first row has more fields, or the second row at least twice as many
        names_rows = place == 1 or (place == 2 and n_fields >= 2 * n_columns)
        if n_fields > n_columns and not names_rows:
            self.n_rows += 1
            left_out = shown(self.separator.join(fields[n_columns:]))
            self.first = self.first or f"{counts}; left out, as RecBole does, is what follows: {left_out}"
            return
        cut_off = "" if line.endswith(("\n", "\r")) else "; it is the last line, and the file seems cut off there"
        misread = "; pandas would take the first column for names of rows" if n_fields > n_columns else cut_off
        raise DataError(f"{self.file}: {counts}: {shown(line.rstrip())}{misread}")

    def report(self) -> None:
        """Warn of the fields that are left out."""
        if self.n_rows:
            more = f" ({self.n_rows:,} such lines in all)" if self.n_rows > 1 else ""
            logging.getLogger().warning(f"{self.file}: {self.first}{more}")
