"""The rows and columns of a leaderboard's tables, as text without a format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from recbole_posattn.experiments.leaderboard.board import SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.spec import Published
from recbole_posattn.reporting.page import MISSING, Cell, number_cell, one_line

# Columns of Board.costs: what they are called in a table, and how their numbers are written.
COSTS = {
    "seeds": ("seeds", "{:,.0f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "seconds_per_epoch": ("seconds an epoch", "{:,.2f}"),
    "best_epoch": ("epochs to best", "{:,.1f}"),
    "training_seconds": ("training seconds", "{:,.1f}"),
    "peak_mebibytes": ("peak MiB", "{:,.0f}"),
}
PUBLISHED_TITLE = "Published by others"
PUBLISHED_SUMMARY = (
    "Not run here. Other code, seeds and tuning, no spread and no test: for orientation beside the tables above, not "
    "for a ranking with them."
)
PUBLISHED_TEXTS = ["model", "data set", "protocol", "source"]


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


def board_summary(board: Board, escape: Callable[[str], str], marks: Mapping[str, str]) -> str:
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
    return [*PUBLISHED_TEXTS, *metrics]


def published_rows(published: Sequence[Published]) -> list[list[Cell]]:
    """What others published, in the order given, with the columns of :func:`published_header`."""
    metrics = published_header(published)[len(PUBLISHED_TEXTS) :]
    return [
        [
            *(Cell(text, text) for text in (entry.model, entry.dataset, entry.protocol, entry.source)),
            *(number_cell(entry.metrics.get(metric, math.nan), "{:.4f}") for metric in metrics),
        ]
        for entry in published
    ]


def failed_runs(board: Board) -> list[str]:
    """The runs that failed, a line each."""
    return [f"{model}, seed {seed}: {one_line(reason)}" for model, seed, reason in board.failures]


def how_it_was_made(provenance: Provenance) -> list[tuple[str, str]]:
    """What a reader needs to make the report again, by name."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    facts = {
        "date": provenance.date,
        "revision": provenance.revision or "",
        "seeds": ", ".join(map(str, provenance.seeds)),
        "versions": versions,
    }
    return [(name, fact) for name, fact in facts.items() if fact]
