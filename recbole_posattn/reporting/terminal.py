"""Lines and tables as plain text, for terminals and Markdown files."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNDERLINED = box.Box("    \n    \n == \n    \n    \n    \n    \n    \n", ascii=True)
# Characters; no terminal's width, so that no cell is wrapped or cut.
WIDE = 100_000


def table_console() -> Console:
    """Standard output; in a file or a pipe, tables are as wide as they need."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def print_line(console: Console, text: str) -> None:
    """Print a text as it is, on one line however long it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def text_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table with an underlined header, the first column aligned left and the others right."""
    table = Table(box=_UNDERLINED, show_edge=False, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(Text(str(name)), justify="right" if number else "left", no_wrap=True)
    return _plain(table, rows)


def listing(rows: Sequence[Sequence[object]], widest: int = 28) -> str:
    """Rows without a header, aligned left; the last column is not padded, and one of more characters moves right.

    Args:
        rows: Rows of the same number of columns.
        widest: The most characters to which a column is padded.
    """
    widths = [min(widest, max(len(str(cell)) for cell in column)) for column in zip(*rows)]
    lines = ("  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table in GitHub's Markdown, aligned left."""
    table = Table(box=box.MARKDOWN)
    for name in header:
        table.add_column(Text(str(name)), no_wrap=True)
    return _plain(table, rows)


def _plain(table: Table, rows: Sequence[Sequence[object]]) -> str:
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(file=io.StringIO(), width=WIDE, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())
