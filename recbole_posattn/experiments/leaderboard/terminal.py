"""Leaderboards as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.columns import Column, shown_columns
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.table import remarks
from recbole_posattn.reporting.page import Cell
from recbole_posattn.reporting.terminal import WIDE, print_line

_STYLES = {"better": "green", "worse": "red", "tie": "dim"}


def print_boards(boards: Sequence[Board], console: Console) -> None:
    """Print the table of each board and what it shows."""
    for board in boards:
        print_line(console, board.title)
        if board.models:
            chosen = shown_columns(board)
            cells = [[_cell(board, column, model) for column in chosen] for model in board.models]
            print_cells([column.title for column in chosen], cells, console)
        for sentence in findings(board) or ["No run finished."]:
            print_line(console, sentence)
        for title, lines in remarks(board):
            print_line(console, f"{title}:")
            for line in lines:
                print_line(console, f"  {line}")
        print_line(console, "")


def _cell(board: Board, column: Column, model: str) -> Cell:
    """The deviation is beside ``valid_metric`` alone: a terminal is narrow."""
    cell = column.cell(model)
    return cell if column.name == board.metrics[0] else cell._replace(text=cell.text.partition(" ± ")[0])


def print_cells(header: Sequence[str], cells: Sequence[Sequence[Cell]], console: Console) -> None:
    """Print a table. If the console is too narrow, the last columns are left out, and a line names them."""
    for n_columns in range(len(header), 1, -1):
        table = _table(header[:n_columns], cells)
        if console.measure(table, options=console.options.update(width=WIDE)).maximum <= console.width:
            break
    console.print(table)
    if hidden := header[n_columns:]:
        print_line(console, f"Too wide for {console.width} characters: {', '.join(hidden)}")


def _table(header: Sequence[str], cells: Sequence[Sequence[Cell]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for nth, title in enumerate(header):
        table.add_column(Text(title), justify="right" if nth else "left", no_wrap=True)
    marked = [any(row[nth].verdict and row[nth].text for row in cells) for nth in range(len(header))]
    for row in cells:
        table.add_row(*(_text(cell, has_marks) for cell, has_marks in zip(row, marked)))
    return table


def _text(cell: Cell, has_marks: bool) -> Text:
    """A cell, with room for a mark in a column that has marks beside its numbers."""
    text = Text(cell.text, style="bold" if cell.best else "")
    if cell.verdict or has_marks:
        text.append(f" {cell.mark or ' '}" if has_marks else cell.mark, style=_STYLES.get(cell.verdict, ""))
    return text
