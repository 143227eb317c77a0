"""A leaderboard as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import Board
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
from recbole_posattn.reporting.page import MARKS, Cell


def markdown(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard in GitHub Markdown."""
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
    for title, lines in remarks(board):
        yield ""
        yield f"{title}:"
        yield ""
        yield from (f"- {_markdown(line)}" for line in lines)


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
    """Plain text, escaped so that nothing in it is read as Markdown or HTML; a < before a space needs no escape."""
    return re.sub(r"[\\`*_|~$\[\]&]|<(?! )", r"\\\g<0>", text)
