"""A leaderboard as LaTeX."""

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
from recbole_posattn.reporting.page import Cell

_LATEX_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "tie": "$^{=}$"}
_LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    **{sign: f"\\{sign}" for sign in "%_&#${}"},
}


def latex(boards: Sequence[Board], provenance: Provenance) -> str:
    """A ``table`` for each board; needs the packages booktabs and graphicx."""
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        f"% {one_line(provenance.command)}",
        *(f"% {name}: {one_line(fact)}" for name, fact in how_it_was_made(provenance)),
    ]
    for board in boards:
        if board.models:
            lines += ["", *_latex_board(board)]
    if provenance.published:
        titles, table = published_header(provenance.published), published_rows(provenance.published)
        caption = f"{PUBLISHED_TITLE}. {_latex(PUBLISHED_SUMMARY)}"
        lines += ["", *_latex_table("published", caption, titles, table, len(PUBLISHED_TEXTS))]
    return "\n".join(lines) + "\n"


def _latex_board(board: Board) -> Iterator[str]:
    for title, lines in remarks(board):
        yield from (f"% {title.lower()}: {one_line(line)}" for line in lines)
    title = _latex(f"{board.dataset}, {board.protocol}")
    caption = f"{title}: {board_summary(board, _latex, _LATEX_MARKS)}"
    yield from _latex_table(f"{board.dataset} {board.protocol}", caption, header(board), rows(board))


def _latex_table(
    name: str, caption: str, titles: Sequence[str], table: Sequence[Sequence[Cell]], n_texts: int = 1
) -> Iterator[str]:
    label = re.sub(r"[^a-z0-9]+", "-", f"leaderboard {name}".lower()).strip("-")
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{caption}}}"
    yield rf"\label{{tab:{label}}}"
    yield r"\resizebox{\textwidth}{!}{%"
    yield rf"\begin{{tabular}}{{{'l' * n_texts}{'r' * (len(titles) - n_texts)}}}"
    yield r"\toprule"
    yield _latex_row(map(_latex, titles))
    yield r"\midrule"
    for row in table:
        yield _latex_row(map(_latex_cell, row))
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    yield r"\end{table}"


def _latex_row(cells: Iterator[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + _LATEX_MARKS.get(cell.verdict, "")


def _latex(text: str) -> str:
    """Plain text for pdfLaTeX, which supports accented Latin letters, but no other scripts and signs."""
    return "".join(_LATEX_SIGNS.get(sign) or (sign if _in_pdflatex(sign) else "?") for sign in text)


def _in_pdflatex(sign: str) -> bool:
    return sign.isascii() or (sign.isalpha() and sign < "\u0180")
