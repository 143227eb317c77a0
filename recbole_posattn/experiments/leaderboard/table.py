"""The words around a leaderboard's tables, and its table of published results, whatever the output format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.leaderboard.board import FEW_SEEDS, SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.published import Published
from recbole_posattn.reporting.names import metric_title
from recbole_posattn.reporting.page import Cell, number_cell

PUBLISHED_TITLE = "Published by others"
PUBLISHED_SUMMARY = (
    "Not run here: other code, seeds and tuning, no spread and no test. For orientation only; do not rank these with "
    "the tables above."
)
PUBLISHED_TEXTS = ["model", "data set", "protocol", "source"]
PUBLISHED_SEEDS = "seeds"


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


def board_summary(
    board: Board,
    escape: Callable[[str], str],
    marks: Mapping[str, str],
    weak_marks: Mapping[str, str],
    short: bool = False,
) -> str:
    """How to read the table, in one paragraph; a ``short`` table has means alone, and marks beside one metric."""
    seen = ""
    if board.seen_targets is not None:
        seen = f", {100 * board.seen_targets:.1f} % of them already in the user's history"
    watched = metric_title(board.metrics[0])
    of_watched = board.scores[board.scores["metric"] == board.metrics[0]]
    interval = (
        "" if of_watched["low"].isna().all() else f"95 % interval of {watched} by bootstrap over users and seeds; "
    )
    means = "Means" if short else "Mean ± standard deviation"
    text = (
        f"{board.n_targets:,} test targets of {board.n_users:,} users{seen}. {means} over seeds, the best in bold; "
        f"{interval}seconds of training. "
    )
    untested = _untested(board)
    shown = of_watched if short else board.scores
    if shown["p"].isna().all():
        other = board.reference if board.pairs["p"].notna().any() else "another"
        return escape(f"{text}No model was tested against {other}{untested or '.'}")
    marked, beside = watched, "" if short else ", and beside other metrics the same for these"
    if of_watched["p"].isna().all():
        text += f"{watched} is not a mean over targets, so it has no test. "
        marked, beside = "metrics that are means over targets", ""
    text += (
        f"Marks: {marked} against {board.reference}, by a paired test over users and seeds with Holm's correction at "
        f"p < {SIGNIFICANCE}{beside}: "
    )
    legend = f"{marks['better']} better, {marks['worse']} worse, {marks['tie']} tie (no difference could be shown)."
    tested = board.scores.loc[board.scores["p"].notna(), "model"].unique()
    if any(board.has_few_seeds(model, board.reference) for model in tested):
        legend = legend.removesuffix(".") + (
            f"; {weak_marks['better']} and {weak_marks['worse']} with fewer than {escape(str(FEW_SEEDS))} seeds: "
            "weaker evidence."
        )
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
    seeds = [PUBLISHED_SEEDS] if any(entry.seeds for entry in published) else []
    return [*PUBLISHED_TEXTS, *map(metric_title, _published_metrics(published)), *seeds]


def published_rows(published: Sequence[Published]) -> list[list[Cell]]:
    """Published results in the given order, with the columns of :func:`published_header`."""
    metrics, with_seeds = _published_metrics(published), any(entry.seeds for entry in published)
    return [
        [
            *(Cell(text, text) for text in (entry.model, entry.dataset, entry.protocol, entry.source)),
            *(_published_cell(entry, metric) for metric in metrics),
            *([number_cell(entry.seeds, "{:,.0f}")] if with_seeds else []),
        ]
        for entry in published
    ]


def _published_metrics(published: Sequence[Published]) -> list[str]:
    return list(dict.fromkeys(metric for entry in published for metric in entry.metrics))


def _published_cell(entry: Published, metric: str) -> Cell:
    cell = number_cell(entry.metrics.get(metric), "{:.4f}")
    spread = f" ± {entry.deviations[metric]:.4f}" if metric in entry.deviations else ""
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
        "Trained longer than stopped runs": _longer_than_stopped(board),
        "Not started": lines_of_missing(board.not_started),
        "Different revisions of the code": _revisions(board),
    }
    return [(title, lines) for title, lines in found.items() if lines]


def _longer_than_stopped(board: Board) -> list[str]:
    """Runs with at least a tenth more time than one that was stopped, so that a comparison of the two favours them."""
    limit = min((run["max_minutes"] for run in board.runs if run["stopped_by"]), default=math.inf)
    return [
        f"{run['row']}, seed {run['seed']}: {run['training_seconds'] / 60:,.0f} minutes instead of {limit:g}"
        for run in board.runs
        if run["training_seconds"] > 1.1 * 60 * limit and not (run["stopped_by"] and run["max_minutes"] == limit)
    ]


def lines_of_missing(missing: Sequence[tuple[str, int, str]]) -> list[str]:
    """A line for each row and reason of runs that failed or were not started.

    Args:
        missing: ``(row, seed, reason)`` of each run.
    """
    seeds: dict[tuple[str, str], list[str]] = {}
    for model, seed, reason in missing:
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
    return [f"{_shortened(revision or 'unknown')}: {'; '.join(models)}" for revision, models in revisions.items()]


def _shortened(revision: str) -> str:
    """A revision with the first digits of Git's hash, as Git shows it; the whole one is in ``leaderboard.json``."""
    commit, mark, changes = revision.partition("+")
    return f"{commit[:10]}{mark}{changes}"


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
