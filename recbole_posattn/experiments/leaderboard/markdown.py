"""A leaderboard as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.table import (
    PUBLISHED_SUMMARY,
    PUBLISHED_TEXTS,
    PUBLISHED_TITLE,
    Provenance,
    board_summary,
    failed_runs,
    header,
    how_it_was_made,
    published_header,
    published_rows,
    rows,
)
from recbole_posattn.reporting.page import MARKS, Cell, one_line

# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard in GitHub's Markdown."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        lines += [*_markdown_board(board), ""]
    if provenance.published:
        lines += [f"## {PUBLISHED_TITLE}", "", _markdown(PUBLISHED_SUMMARY), ""]
        titles = published_header(provenance.published)
        lines += [*_markdown_table(titles, published_rows(provenance.published), len(PUBLISHED_TEXTS)), ""]
    for title, entries in (("Not run", provenance.not_run), ("Notes", provenance.notes)):
        lines += _markdown_list(title, entries)
    lines += ["## How it was made", "", "```bash", provenance.command, "```", ""]
    lines += [f"- {name}: {_markdown(fact)}" for name, fact in how_it_was_made(provenance)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_board(board: Board) -> Iterator[str]:
    yield f"## {_markdown(board.dataset)}, {_markdown(board.protocol)}"
    yield ""
    if board.models:
        yield board_summary(board, _markdown, MARKS)
        yield ""
        yield from _markdown_table(header(board), rows(board))
    else:
        yield "No run finished."
    if board.failures:
        yield ""
        yield "Failed:"
        yield ""
        yield from (f"- {_markdown(failure)}" for failure in failed_runs(board))


def _markdown_table(titles: Sequence[str], table: Sequence[Sequence[Cell]], n_texts: int = 1) -> Iterator[str]:
    yield _markdown_row(map(_markdown, titles))
    yield _markdown_row([*[":---"] * n_texts, *["---:"] * (len(titles) - n_texts)])
    for row in table:
        yield _markdown_row(map(_markdown_cell, row))


def _markdown_list(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    return [f"## {title}", "", *(f"- {_markdown(one_line(entry))}" for entry in entries), ""]


def _markdown_row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    return f"{text} {MARKS[cell.verdict]}" if cell.verdict else text


def _markdown(text: str) -> str:
    """Plain text in which nothing is taken for Markdown or HTML; a < before a space is none in any case."""
    return re.sub(r"[\\`*_|~$\[\]&]|<(?! )", r"\\\g<0>", text)
