"""A leaderboard as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.columns import rows, shown_columns
from recbole_posattn.experiments.leaderboard.findings import findings
from recbole_posattn.experiments.leaderboard.matrix import pair_cells
from recbole_posattn.experiments.leaderboard.table import (
    PUBLISHED_SUMMARY,
    PUBLISHED_TEXTS,
    PUBLISHED_TITLE,
    Provenance,
    board_summary,
    how_it_was_made,
    published_header,
    published_rows,
    remarks,
)
from recbole_posattn.reporting.names import metric_title
from recbole_posattn.reporting.page import MARKS, WEAK_MARKS, Cell


def markdown(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard in GitHub Markdown."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        lines += [*_markdown_board(board), ""]
    if provenance.published:
        lines += [f"## {PUBLISHED_TITLE}", "", escaped(PUBLISHED_SUMMARY), ""]
        titles = published_header(provenance.published)
        lines += [*table_lines(titles, published_rows(provenance.published), len(PUBLISHED_TEXTS)), ""]
    for title, entries in (("Not run", provenance.not_run), ("Notes", provenance.notes)):
        lines += _markdown_list(title, entries)
    lines += ["## How it was made", "", "```bash", provenance.command, "```", ""]
    lines += [f"- {name}: {escaped(fact)}" for name, fact in how_it_was_made(provenance)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_board(board: Board) -> Iterator[str]:
    yield f"## {escaped(board.title)}"
    yield ""
    if board.models:
        yield f"**In short:** {escaped(' '.join(findings(board)))}"
        yield ""
        chosen = shown_columns(board)
        yield from table_lines([column.title for column in chosen], rows(board, chosen))
        yield ""
        yield f"{board_summary(board, escaped, MARKS, WEAK_MARKS)} The page and the CSV file have all other columns."
    else:
        yield "No run finished."
    for title, lines in remarks(board):
        yield ""
        yield f"{title}:"
        yield ""
        yield from (f"- {escaped(line)}" for line in lines)
    yield from _markdown_pairs(board)


def _markdown_pairs(board: Board) -> Iterator[str]:
    """The tests of every pair as a matrix of marks; nothing with fewer than three models or without a test."""
    if len(board.models) < 3 or board.pairs["p"].isna().all():
        return
    yield ""
    yield (
        f"Every pair: is the row better or worse than the column by {metric_title(board.metrics[0])}? The same test, "
        f"with Holm's correction for all pairs, at p < {SIGNIFICANCE}."
    )
    yield ""
    models, cells = board.models, pair_cells(board)
    numbers = [str(number) for number in range(1, len(models) + 1)]
    table = [
        [Cell(f"{number} {model}", None), *(cells[model][other] for other in models)]
        for number, model in zip(numbers, models)
    ]
    yield from table_lines(["", *numbers], table)


def table_lines(titles: Sequence[str], table: Sequence[Sequence[Cell]], n_texts: int = 1) -> Iterator[str]:
    """A table whose first columns are texts, line by line."""
    yield _markdown_row(map(escaped, titles))
    yield _markdown_row([*[":---"] * n_texts, *["---:"] * (len(titles) - n_texts)])
    for row in table:
        yield _markdown_row(map(_markdown_cell, row))


def _markdown_list(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    return [f"## {title}", "", *(f"- {escaped(one_line(entry))}" for entry in entries), ""]


def _markdown_row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = f"**{text}**" if cell.best else text
    return f"{text} {cell.mark}".strip()


def escaped(text: str) -> str:
    """Plain text, escaped so that nothing in it is read as Markdown or HTML; a < before a space needs no escape."""
    return re.sub(r"[\\`*_|~$\[\]&]|<(?! )", r"\\\g<0>", text)
