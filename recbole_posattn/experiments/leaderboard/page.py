"""A leaderboard as a web page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.columns import Column, columns, rows
from recbole_posattn.experiments.leaderboard.figures import draw_board
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.table import (
    PUBLISHED_SUMMARY,
    PUBLISHED_TITLE,
    Provenance,
    board_summary,
    how_it_was_made,
    published_header,
    published_rows,
    remarks,
)
from recbole_posattn.reporting.drawing import Drawing
from recbole_posattn.reporting.page import MARKS, WEAK_MARKS, Cell, render_page


class Section(NamedTuple):
    """A board for the HTML template; it is sorted by the second column."""

    board: Board
    findings: list[str]
    summary: str
    columns: list[Column]
    rows: list[list[Cell]]
    remarks: list[tuple[str, list[str]]]
    drawings: list[Drawing]


def html(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard as one page without external resources: sortable tables whose columns are chosen, and figures."""
    return render_page(
        Path(__file__).with_name("leaderboard.html.j2"),
        title="Leaderboard",
        date=provenance.date,
        command=provenance.command,
        sections=[_section(board) for board in boards],
        provenance=provenance,
        published={
            "title": PUBLISHED_TITLE,
            "summary": PUBLISHED_SUMMARY,
            "header": published_header(provenance.published),
            "rows": published_rows(provenance.published),
        },
        origin=how_it_was_made(provenance),
    )


def _section(board: Board) -> Section:
    every = columns(board) if board.models else []
    return Section(
        board,
        findings(board),
        board_summary(board, str, MARKS, WEAK_MARKS) if board.models else "No run finished.",
        every,
        rows(board, every) if board.models else [],
        remarks(board),
        draw_board(board),
    )
