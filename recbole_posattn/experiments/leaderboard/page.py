"""A leaderboard as a web page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.figures import draw_board
from recbole_posattn.experiments.leaderboard.table import (
    PUBLISHED_SUMMARY,
    PUBLISHED_TEXTS,
    PUBLISHED_TITLE,
    Provenance,
    board_summary,
    header,
    how_it_was_made,
    published_header,
    published_rows,
    remarks,
    rows,
)
from recbole_posattn.reporting.drawing import Drawing
from recbole_posattn.reporting.page import MARKS, Cell, render_page


class Section(NamedTuple):
    """A board for the HTML template."""

    board: Board
    summary: str
    header: list[str]
    rows: list[list[Cell]]
    remarks: list[tuple[str, list[str]]]
    drawings: list[Drawing]


def html(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard as one page without external resources: sortable tables and figures."""
    sections = [
        Section(
            board,
            board_summary(board, str, MARKS) if board.models else "No run finished.",
            header(board),
            rows(board),
            remarks(board),
            draw_board(board),
        )
        for board in boards
    ]
    return render_page(
        Path(__file__).with_name("leaderboard.html.j2"),
        title="Leaderboard",
        date=provenance.date,
        command=provenance.command,
        sections=sections,
        provenance=provenance,
        published={
            "title": PUBLISHED_TITLE,
            "summary": PUBLISHED_SUMMARY,
            "header": published_header(provenance.published),
            "rows": published_rows(provenance.published),
            "n_texts": len(PUBLISHED_TEXTS),
        },
        origin=how_it_was_made(provenance),
    )
