"""The rows and columns of a leaderboard's tables, independent of the output format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.published import Published
from recbole_posattn.reporting.page import MISSING, Cell, number_cell

# Columns of Board.costs: title and number format.
COSTS = {
    "seeds": ("seeds", "{:,.0f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "seconds_per_epoch": ("seconds per epoch", "{:,.2f}"),
    "best_epoch": ("epochs to best", "{:,.1f}"),
    "training_seconds": ("training seconds", "{:,.1f}"),
    "peak_mebibytes": ("peak MiB", "{:,.0f}"),
}
PUBLISHED_TITLE = "Published by others"
PUBLISHED_SUMMARY = (
    "Not run here: other code, seeds and tuning, no spread and no test. For orientation only; do not rank these with "
    "the tables above."
)
PUBLISHED_TEXTS = ["model", "data set", "protocol", "source"]


class Provenance(NamedTuple):
    """How a leaderboard was made.

    Attributes:
        command: The command line.
        versions: Versions of the relevant packages in the runs, by name.
        date: In ISO 8601.
        revision: Git revisions of the code of the runs; ``None`` if unknown.
        seeds: The seeds of every model.
        published: Results that others published.
        not_run: Models that were left out and the reasons.
        notes: Further notes.
        tuning: How each row was tuned; for the fields, see ``leaderboard.schema.json``.
    """

    command: str
    versions: dict[str, str]
    date: str
    revision: str | None
    seeds: list[int]
    published: list[Published]
    not_run: list[str]
    notes: list[str]
    tuning: list[dict[str, Any]] = []  # noqa: RUF012 - never changed


def header(board: Board) -> list[str]:
    """The columns of a board's table; the interval follows its metric."""
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


def _cost(board: Board, model: str, column: str, value: Any, form: str) -> Cell:
    """A cost; seeds are shown as ``1 of 2`` if some are missing, epochs as ``8.0 of 9.0`` if a run was stopped."""
    cell = number_cell(value, form)
    n_missing = sum(missing == model for missing, *_ in (*board.failures, *board.not_started))
    if column == "seeds" and n_missing:
        return cell._replace(text=f"{cell.text} of {value + n_missing:,.0f}")
    runs = [run for run in board.runs if run["row"] == model]
    if column == "best_epoch" and any(run["stopped_by"] for run in runs):
        epochs = sum(run["epochs"] for run in runs) / len(runs)
        return cell._replace(text=f"{cell.text} of {form.format(epochs)}, stopped")
    return cell


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
    """How to read the table, in one line."""
    seen = ""
    if board.seen_targets is not None:
        seen = f", {100 * board.seen_targets:.1f} % of them already in the user's history"
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
    """The models with one seed, and the consequence."""
    few = board.of_one_seed
    if not few:
        return ""
    which = "all models" if len(few) == len(board.models) else ", ".join(few)
    return (
        f": {which} with one seed. The intervals of one seed are over users only, and a difference between single "
        "seeds may be chance."
    )


def published_header(published: Sequence[Published]) -> list[str]:
    """The columns of the table of published results."""
    metrics = dict.fromkeys(metric for entry in published for metric in entry.metrics)
    return [*PUBLISHED_TEXTS, *metrics, *(["seeds"] if any(entry.seeds for entry in published) else [])]


def published_rows(published: Sequence[Published]) -> list[list[Cell]]:
    """Published results in the given order, with the columns of :func:`published_header`."""
    columns = published_header(published)[len(PUBLISHED_TEXTS) :]
    return [
        [
            *(Cell(text, text) for text in (entry.model, entry.dataset, entry.protocol, entry.source)),
            *(_published_cell(entry, column) for column in columns),
        ]
        for entry in published
    ]


def _published_cell(entry: Published, column: str) -> Cell:
    if column == "seeds":
        return number_cell(entry.seeds, "{:,.0f}")
    cell = number_cell(entry.metrics.get(column), "{:.4f}")
    spread = f" ± {entry.deviations[column]:.4f}" if column in entry.deviations else ""
    return cell._replace(text=cell.text + spread)


def remarks(board: Board) -> list[tuple[str, list[str]]]:
    """What is to be said about single runs and rows below the table: titles, each with its lines."""
    stopped = [
        f"{run['row']}, seed {run['seed']}: stopped by {run['stopped_by']} {run['max_minutes']:g} after "
        f"{run['epochs']} epochs; the best one so far, epoch {run['best_epoch']}, was tested"
        for run in board.runs
        if run["stopped_by"]
    ]
    found = {
        "Failed": [f"{model}, seed {seed}: {one_line(reason)}" for model, seed, reason in board.failures],
        "Stopped before their end": stopped,
        "Not started": _not_started(board),
        "Different revisions of the code": _revisions(board),
    }
    return [(title, lines) for title, lines in found.items() if lines]


def _not_started(board: Board) -> list[str]:
    """A line for each row and reason."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for model, seed, reason in board.not_started:
        seeds.setdefault((model, reason), []).append(str(seed))
    return [
        f"{model}, {'seed' if len(of_model) == 1 else 'seeds'} {', '.join(of_model)}: {one_line(reason)}"
        for (model, reason), of_model in seeds.items()
    ]


def _revisions(board: Board) -> list[str]:
    """A line for each revision of the code, if there are several."""
    revisions = board.revisions
    if len(revisions) < 2:
        return []
    return [f"{revision or 'unknown'}: {', '.join(models)}" for revision, models in revisions.items()]


def how_it_was_made(provenance: Provenance) -> list[tuple[str, str]]:
    """The facts needed to reproduce the report, by name."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    facts = {
        "date": provenance.date,
        "revision": provenance.revision or "",
        "seeds": ", ".join(map(str, provenance.seeds)),
        "versions": versions,
    }
    return [(name, fact) for name, fact in facts.items() if fact]
