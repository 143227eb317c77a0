"""Rows of an atomic file with more or fewer fields than it has columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_posattn.errors import DataError, shown


@dataclass
class Surplus:
    """Rows with more fields than columns, of which RecBole reads the first ones.

    Attributes:
        file: The file.
        n_columns: Columns in its header.
        separator: Of the fields of a row.
        separator_name: The words for it.
        n_rows: How many such rows there are.
        first: What is wrong with the first of them.
    """

    file: Path
    n_columns: int
    separator: str
    separator_name: str
    n_rows: int = 0
    first: str = ""

    def check(self, place: int, number: int, fields: Sequence[str], line: str) -> None:
        """Refuse a row with another number of fields than columns, unless pandas reads the first of its fields.

        Args:
            place: Of the row among all, from 1 on.
            number: Of its first line.
            fields: Its fields.
            line: All its lines.

        Raises:
            DataError: Naming the line.
        """
        n_fields, n_columns = len(fields), self.n_columns
        counts = (
            f"the header has {n_columns} columns separated by {self.separator_name}, but line {number} has {n_fields}"
        )
        # pandas takes columns for the names of rows if the first row has more fields, or the second one twice as many
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
        """Warn of what is left out."""
        if self.n_rows:
            more = f" ({self.n_rows:,} such lines in all)" if self.n_rows > 1 else ""
            logging.getLogger().warning(f"{self.file}: {self.first}{more}")
