"""A leaderboard as files: Markdown to read, CSV to go on with, LaTeX for the paper, HTML to look around in."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from recbole_posattn.experiments.leaderboard.board import SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.figures import draw_board
from recbole_posattn.experiments.leaderboard.spec import Published
from recbole_posattn.reporting.drawing import Drawing
from recbole_posattn.reporting.page import MARKS, MISSING, Cell, number_cell, one_line, render_page, write_files

# Columns of Board.costs: what they are called in a table, and how their numbers are written.
COSTS = {
    "seeds": ("seeds", "{:,.0f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "seconds_per_epoch": ("seconds an epoch", "{:,.2f}"),
    "best_epoch": ("epochs to best", "{:,.1f}"),
    "training_seconds": ("training seconds", "{:,.1f}"),
    "peak_mebibytes": ("peak MiB", "{:,.0f}"),
}

CSV_COLUMNS = [
    *("dataset", "protocol", "model", "kind", "metric", "mean", "deviation", "low", "high", "p", "verdict"),
    *("n_targets", "n_users", "seeds"),
]

_LATEX_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "tie": "$^{=}$"}

_PUBLISHED_TITLE = "Published by others"
_PUBLISHED_SUMMARY = (
    "Not run here. Other code, seeds and tuning, no spread and no test: for orientation beside the tables above, not "
    "for a ranking with them."
)
_PUBLISHED_TEXTS = ["model", "data set", "protocol", "source"]

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


class Provenance(NamedTuple):
    """Where a leaderboard comes from.

    Attributes:
        command: What was typed to make it.
        versions: Of the packages that matter, by name.
        date: In ISO 8601.
        revision: Of the code, if it is known.
        seeds: That every model was to be run with.
        published: Results of others, shown in a table of their own.
        not_run: Models that were left out, each with the reason.
        notes: Whatever else a reader should know.
    """

    command: str
    versions: dict[str, str]
    date: str
    revision: str | None
    seeds: list[int]
    published: list[Published]
    not_run: list[str]
    notes: list[str]


def write_report(boards: Sequence[Board], provenance: Provenance, folder: Path) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv``, ``.tex`` and ``.html``, each of them whole or not at all.

    The same boards and provenance give the same bytes.

    Args:
        boards: In the order in which they are shown.
        provenance: Where they come from.
        folder: Made if it is not there.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    contents = {
        "leaderboard.md": markdown(boards, provenance),
        "leaderboard.csv": csv(boards),
        "leaderboard.tex": latex(boards, provenance),
        "leaderboard.html": html(boards, provenance),
    }
    return write_files(folder, contents)


# -- what all formats say --------------------------------------------------------------------------------------------


def header(board: Board) -> list[str]:
    """The columns of a board's table; the interval stands behind the metric that it belongs to."""
    watched, *others = board.metrics
    return ["model", watched, "95 % interval", *others, *(title for title, _ in COSTS.values())]


def rows(board: Board) -> list[list[Cell]]:
    """A board's table, the best model first, with the columns of :func:`header`."""
    costs = board.costs.set_index("model")
    watched, *others = board.metrics
    best = {metric: board.best(metric) for metric in board.metrics}
    return [
        [
            Cell(model, model),
            _metric(board, model, watched, best),
            _interval(board, model, watched),
            *(_metric(board, model, metric, best) for metric in others),
            *(_cost(board, model, column, costs.loc[model, column], form) for column, (_, form) in COSTS.items()),
        ]
        for model in board.models
    ]


def _cost(board: Board, model: str, column: str, value: float, form: str) -> Cell:
    """A cost; the seeds of a model of which some failed stand as ``1 of 2``."""
    cell, n_failed = number_cell(value, form), sum(failed == model for failed, *_ in board.failures)
    return cell._replace(text=f"{cell.text} of {value + n_failed:,.0f}") if column == "seeds" and n_failed else cell


def _metric(board: Board, model: str, metric: str, best: Mapping[str, Sequence[str]]) -> Cell:
    score = board.score(model, metric)
    cell = number_cell(score["mean"], "{:.4f}")
    if cell.value is None:
        return cell
    deviation = "" if pd.isna(score["deviation"]) else f" ± {score['deviation']:.4f}"
    verdict = board.verdict(model, metric)
    p = float(score["p"]) if verdict else math.nan
    return Cell(cell.text + deviation, cell.value, model in best[metric], verdict, p)


def _interval(board: Board, model: str, metric: str) -> Cell:
    low, high = board.score(model, metric)[["low", "high"]]
    return Cell(MISSING, None) if pd.isna(low) or pd.isna(high) else Cell(f"{low:.4f}–{high:.4f}", float(low))


def _summary(board: Board, escape: Callable[[str], str], marks: Mapping[str, str]) -> str:
    """What a reader has to know to read the table, in one line."""
    seen = ""
    if board.seen_targets is not None:
        seen = f", {100 * board.seen_targets:.1f} % of which their user had before"
    text = (
        f"{board.n_targets:,} test targets of {board.n_users:,} users{seen}. Mean ± standard deviation over seeds, the "
        f"best in bold; 95 % interval of {board.metrics[0]} by bootstrap over users and seeds. "
    )
    untested = _untested(board)
    if board.scores["p"].isna().all():
        return escape(f"{text}No model was tested against another{untested or '.'}")
    text += (
        f"Against {board.reference}, by a paired test over users and seeds with Holm's correction at "
        f"p < {SIGNIFICANCE}: "
    )
    legend = f"{marks['better']} better, {marks['worse']} worse, {marks['tie']} tie (no difference could be shown)."
    return escape(text) + legend + escape(f" Not tested{untested}" if untested else "")


def _untested(board: Board) -> str:
    """Which models have one seed, and what that means."""
    few = board.of_one_seed
    if not few:
        return ""
    which = "all models" if len(few) == len(board.models) else ", ".join(few)
    return (
        f": one seed of {which}. The intervals of one seed are over users only, and a difference of one seed may be "
        "that of lucky seeds."
    )


def published_header(published: Sequence[Published]) -> list[str]:
    """The columns of the table of what others published."""
    metrics = dict.fromkeys(metric for entry in published for metric in entry.metrics)
    return [*_PUBLISHED_TEXTS, *metrics]


def published_rows(published: Sequence[Published]) -> list[list[Cell]]:
    """What others published, in the order given, with the columns of :func:`published_header`."""
    metrics = published_header(published)[len(_PUBLISHED_TEXTS) :]
    return [
        [
            *(Cell(text, text) for text in (entry.model, entry.dataset, entry.protocol, entry.source)),
            *(number_cell(entry.metrics.get(metric, math.nan), "{:.4f}") for metric in metrics),
        ]
        for entry in published
    ]


def _failures(board: Board) -> list[str]:
    return [f"{model}, seed {seed}: {one_line(reason)}" for model, seed, reason in board.failures]


def _origin(provenance: Provenance) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    facts = {
        "date": provenance.date,
        "revision": provenance.revision or "",
        "seeds": ", ".join(map(str, provenance.seeds)),
        "versions": versions,
    }
    return [(name, fact) for name, fact in facts.items() if fact]


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard in GitHub's Markdown."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        lines += [*_markdown_board(board), ""]
    if provenance.published:
        lines += [f"## {_PUBLISHED_TITLE}", "", _markdown(_PUBLISHED_SUMMARY), ""]
        titles = published_header(provenance.published)
        lines += [*_markdown_table(titles, published_rows(provenance.published), len(_PUBLISHED_TEXTS)), ""]
    for title, entries in (("Not run", provenance.not_run), ("Notes", provenance.notes)):
        lines += _markdown_list(title, entries)
    lines += ["## How it was made", "", "```bash", provenance.command, "```", ""]
    lines += [f"- {name}: {_markdown(fact)}" for name, fact in _origin(provenance)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_board(board: Board) -> Iterator[str]:
    yield f"## {_markdown(board.dataset)}, {_markdown(board.protocol)}"
    yield ""
    if board.models:
        yield _summary(board, _markdown, MARKS)
        yield ""
        yield from _markdown_table(header(board), rows(board))
    else:
        yield "No run finished."
    if board.failures:
        yield ""
        yield "Failed:"
        yield ""
        yield from (f"- {_markdown(failure)}" for failure in _failures(board))


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


# -- CSV -------------------------------------------------------------------------------------------------------------


def csv(boards: Sequence[Board]) -> str:
    """All boards as one long table with the columns :data:`CSV_COLUMNS`, numbers in full.

    A row holds one number of one model, which ``kind`` and ``metric`` name: ``kind`` is ``metric`` with the name of a
    metric (``ndcg@10``) or ``cost`` with the name of a cost (``parameters``, ``training_seconds`` …). The number is in
    ``mean``, as all of them are means over seeds; what a cost does not have (spread, interval, test) stays empty, as
    does ``verdict`` where nothing was tested. ``seeds`` is the number of finished runs.
    """
    table = []
    for board in boards:
        costs = board.costs.set_index("model")
        for model in board.models:
            about: dict[str, Any] = {"dataset": board.dataset, "protocol": board.protocol, "model": model}
            about |= {"n_targets": board.n_targets, "n_users": board.n_users}
            about |= {"seeds": costs.loc[model, "seeds"]}
            for metric in board.metrics:
                verdict = board.verdict(model, metric)
                table.append({**board.score(model, metric), **about, "kind": "metric", "verdict": verdict})
            for cost in COSTS:
                if cost != "seeds":
                    table.append({**about, "kind": "cost", "metric": cost, "mean": costs.loc[model, cost]})
    return pd.DataFrame(table, columns=CSV_COLUMNS).to_csv(index=False)


# -- LaTeX -----------------------------------------------------------------------------------------------------------


def latex(boards: Sequence[Board], provenance: Provenance) -> str:
    """A ``table`` for each board; needs the packages booktabs and graphicx."""
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        f"% {one_line(provenance.command)}",
        *(f"% {name}: {one_line(fact)}" for name, fact in _origin(provenance)),
    ]
    for board in boards:
        if board.models:
            lines += ["", *_latex_board(board)]
    if provenance.published:
        titles, table = published_header(provenance.published), published_rows(provenance.published)
        caption = f"{_PUBLISHED_TITLE}. {_latex(_PUBLISHED_SUMMARY)}"
        lines += ["", *_latex_table("published", caption, titles, table, len(_PUBLISHED_TEXTS))]
    return "\n".join(lines) + "\n"


def _latex_board(board: Board) -> Iterator[str]:
    title = _latex(f"{board.dataset}, {board.protocol}")
    caption = f"{title}: {_summary(board, _latex, _LATEX_MARKS)}"
    return _latex_table(f"{board.dataset} {board.protocol}", caption, header(board), rows(board))


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
    """Plain text for pdfLaTeX, which takes accented Latin letters, but no other scripts and signs."""
    return "".join(_LATEX_SIGNS.get(sign) or (sign if _in_pdflatex(sign) else "?") for sign in text)


def _in_pdflatex(sign: str) -> bool:
    return sign.isascii() or (sign.isalpha() and sign < "\u0180")


# -- HTML ------------------------------------------------------------------------------------------------------------


class Section(NamedTuple):
    """A board as the HTML template takes it."""

    board: Board
    summary: str
    header: list[str]
    rows: list[list[Cell]]
    failures: list[str]
    drawings: list[Drawing]


def html(boards: Sequence[Board], provenance: Provenance) -> str:
    """The leaderboard as one page that loads nothing: sortable tables and figures."""
    sections = [
        Section(
            board,
            _summary(board, str, MARKS) if board.models else "No run finished.",
            header(board),
            rows(board),
            _failures(board),
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
            "title": _PUBLISHED_TITLE,
            "summary": _PUBLISHED_SUMMARY,
            "header": published_header(provenance.published),
            "rows": published_rows(provenance.published),
            "n_texts": len(_PUBLISHED_TEXTS),
        },
        origin=_origin(provenance),
    )
