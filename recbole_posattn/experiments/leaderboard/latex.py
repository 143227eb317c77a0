"""A leaderboard as LaTeX, for one column of a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.experiments.leaderboard.columns import INTERVAL, MARK, MODEL, Column, shown_columns
from recbole_posattn.experiments.leaderboard.table import (
    PUBLISHED_SEEDS,
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
from recbole_posattn.reporting.names import compact
from recbole_posattn.reporting.page import Cell

_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "tie": "$^{=}$"}
_WEAK_MARKS = {"better": "$^{(+)}$", "worse": "$^{(-)}$", "tie": "$^{=}$"}
_SIGNS = {
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
    "−": "$-$",
    **{sign: f"\\{sign}" for sign in "%_&#${}"},
    # At the start of a row, these would be arguments of the commands \midrule and \\ before it.
    **{sign: f"{{{sign}}}" for sign in "[*"},
}

# Names longer than this are broken into lines.
_LONGEST = 18


def latex(boards: Sequence[Board], provenance: Provenance) -> str:
    """A ``table`` for each board that fits one column; needs the packages booktabs, array and adjustbox.

    The numbers are short, so that the type remains readable: without the deviations, which the CSV file has, without
    the zero before the point, seconds and parameters as 377 and 156k.
    """
    lines = [
        r"% \usepackage{booktabs,array,adjustbox}",
        f"% {one_line(provenance.command)}",
        *(f"% {name}: {one_line(fact)}" for name, fact in how_it_was_made(provenance)),
    ]
    for board in boards:
        if board.models:
            lines += ["", *_board(board)]
    if provenance.published:
        titles, table = published_header(provenance.published), published_rows(provenance.published)
        metrics = set(titles) - {*PUBLISHED_TEXTS, PUBLISHED_SEEDS}
        caption = f"{PUBLISHED_TITLE}. {_latex(PUBLISHED_SUMMARY)}"
        cells = [
            [_score(cell) if title in metrics else _latex(cell.text) for title, cell in zip(titles, row, strict=True)]
            for row in table
        ]
        lines += ["", *_table("published", caption, titles, cells, "p{4em}p{4.5em}p{5.5em}p{7em}")]
    return "\n".join(lines) + "\n"


def _board(board: Board) -> Iterator[str]:
    for title, lines in remarks(board):
        yield from (f"% {title.lower()}: {one_line(line)}" for line in lines)
    title = _latex(board.title)
    caption = f"{title}: {board_summary(board, _latex, _MARKS, _WEAK_MARKS, short=True)}"
    seeds = board.costs["seeds"].unique()
    chosen = [column for column in shown_columns(board) if column.title != MARK]
    if len(seeds) == 1:
        chosen = [column for column in chosen if column.name != "seeds"]
        caption += f" {seeds[0]} {'seed' if seeds[0] == 1 else 'seeds'} a row."
    models = "l" if max(map(len, board.models)) <= _LONGEST else f"p{{{_LONGEST / 2:g}em}}"
    cells = [[_cell(board, column, model) for column in chosen] for model in board.models]
    titles = [_SHORT_TITLES.get(column.name or column.title, column.title) for column in chosen]
    if cutoff := board.metrics[0].partition("@")[2]:  # that of all shown metrics
        titles = [title.removesuffix(f"@{cutoff}") for title in titles]
        caption += f" All metrics at {_latex(cutoff)}."
    yield from _table(f"{board.dataset} {board.protocol}", caption, titles, cells, models)


# Headings that would be wider than their numbers.
_SHORT_TITLES = {INTERVAL: "95 %", "training_seconds": "s", "parameters": "par.", "seeds": "n"}


def _cell(board: Board, column: Column, model: str) -> str:
    """A cell in as few characters as are readable; the mark is beside the watched metric."""
    cell = column.cell(model)
    if column.title == MODEL:
        return _latex(cell.text)
    if column.title == INTERVAL:
        low, high = board.score(model, board.metrics[0])[["low", "high"]]
        return "--" if pd.isna(low) else f"{_short(low, 3)}--{_short(high, 3)}"
    if column.name in ("training_seconds", "parameters"):
        return _latex(cell.text) if cell.value is None else compact(float(cell.value))
    if column.name == "seeds":
        return _latex(cell.text)
    mark = Cell("", None)
    if column.name == board.metrics[0]:
        mark = next(each for each in shown_columns(board) if each.title == MARK).cell(model)
    return _score(cell._replace(verdict=mark.verdict, weak=mark.weak))


def _score(cell: Cell) -> str:
    """A metric with its mark."""
    if not isinstance(cell.value, float):
        return _latex(cell.text)
    text = _short(cell.value, 4)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + (_WEAK_MARKS if cell.weak else _MARKS).get(cell.verdict, "")


def _short(value: float, digits: int) -> str:
    """A number with so many digits after the point, without the zero before it."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.{digits}f}"


def _table(name: str, caption: str, titles: Sequence[str], cells: Sequence[Sequence[str]], texts: str) -> Iterator[str]:
    """A table of one column's width: in small type, and made smaller still only if that is too wide."""
    label = re.sub(r"[^a-z0-9]+", "-", f"leaderboard {name}".lower()).strip("-")
    n_texts = texts.count("p{") or 1
    columns = texts.replace("p{", r">{\raggedright\arraybackslash}p{")
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{caption}}}"
    yield rf"\label{{tab:{label}}}"
    yield r"\scriptsize\setlength{\tabcolsep}{2pt}"
    yield r"\begin{adjustbox}{max width=\columnwidth}"
    yield rf"\begin{{tabular}}{{@{{}}{columns}{'r' * (len(titles) - n_texts)}@{{}}}}"
    yield r"\toprule"
    yield _row(map(_latex, titles))
    yield r"\midrule"
    for row in cells:
        yield _row(row)
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{adjustbox}"
    yield r"\end{table}"


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex(text: str) -> str:
    """Plain text for pdfLaTeX, which supports accented Latin letters, but no other scripts and signs."""
    return "".join(_SIGNS.get(sign) or (sign if _in_pdflatex(sign) else "?") for sign in text)


def _in_pdflatex(sign: str) -> bool:
    return sign.isascii() or (sign.isalpha() and sign < "\u0180")
