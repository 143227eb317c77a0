"""The columns of a board's table: a few that are shown, and all the others for those who choose them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_posattn.experiments.leaderboard.board import Board
from recbole_posattn.reporting.names import MAIN_METRICS, metric_title, without_duplicate_metrics
from recbole_posattn.reporting.page import MISSING, Cell, number_cell

# Columns of Board.costs: title and number format.
COSTS = {
    "seeds": ("seeds", "{:,.0f}"),
    "training_seconds": ("seconds", "{:,.1f}"),
    "parameters": ("parameters", "{:,.0f}"),
    "seconds_per_epoch": ("seconds per epoch", "{:,.2f}"),
    "best_epoch": ("epochs to best", "{:,.1f}"),
    "peak_mebibytes": ("peak MiB", "{:,.0f}"),
}

# Shown without a choice, beside the main metrics at the cut-off of the watched one.
_SHOWN_COSTS = ("seeds", "training_seconds", "parameters")

INTERVAL, MARK, MODEL = "95 % interval", "mark", "model"


class Column(NamedTuple):
    """A column of a board's table.

    Attributes:
        title: Its heading.
        cell: The cell of a model.
        shown: Whether it is shown without a choice.
        name: Of its metric or cost in ``leaderboard.json``; empty for others.
    """

    title: str
    cell: Callable[[str], Cell]
    shown: bool = True
    name: str = ""


def columns(board: Board) -> list[Column]:
    """All columns of a board, those that are shown first."""
    watched, *others = _metrics(board)
    cutoff = watched.partition("@")[2] or next((metric.partition("@")[2] for metric in others if "@" in metric), "")
    shown = [f"{name}@{cutoff}" for name in MAIN_METRICS if f"{name}@{cutoff}" in others]
    costs = [
        Column(title, partial(_cost, board, cost), cost in _SHOWN_COSTS, cost) for cost, (title, _) in COSTS.items()
    ]
    return [
        Column(MODEL, lambda model: Cell(model, model)),
        Column(metric_title(watched), partial(_metric, board, watched, marked=False), name=watched),
        *(Column(metric_title(metric), partial(_metric, board, metric), name=metric) for metric in shown),
        Column(INTERVAL, partial(_interval, board, watched)),
        Column(MARK, partial(_mark, board, watched)),
        *(column for column in costs if column.shown),
        Column("p", partial(_p_value, board, watched), shown=False),
        *(
            Column(metric_title(metric), partial(_metric, board, metric), shown=False, name=metric)
            for metric in others
            if metric not in shown
        ),
        *(column for column in costs if not column.shown),
    ]


def rows(board: Board, chosen: Sequence[Column]) -> list[list[Cell]]:
    """The cells of some columns, the best model first."""
    return [[column.cell(model) for column in chosen] for model in board.models]


def shown_columns(board: Board) -> list[Column]:
    """The columns that are shown without a choice."""
    return [column for column in columns(board) if column.shown]


def _metrics(board: Board) -> list[str]:
    """The metrics of a board, the watched one first, without Recall or Hit where both are equal."""
    means = {metric: scores["mean"].to_numpy() for metric, scores in board.scores.groupby("metric", sort=False)}
    return without_duplicate_metrics(
        board.metrics, lambda one, other: np.array_equal(means[one], means[other], equal_nan=True)
    )


def _metric(board: Board, metric: str, model: str, marked: bool = True) -> Cell:
    score = board.score(model, metric)
    cell = number_cell(score["mean"], "{:.4f}")
    if cell.value is None:
        return cell
    deviation = "" if pd.isna(score["deviation"]) else f" ± {score['deviation']:.4f}"
    cell = cell._replace(text=cell.text + deviation, best=model in board.best(metric))
    return cell._replace(**_tested(board, metric, model)) if marked else cell


def _tested(board: Board, metric: str, model: str) -> dict[str, Any]:
    """What the test found, as fields of a cell."""
    verdict = board.verdict(model, metric)
    p = float(board.score(model, metric)["p"]) if verdict else math.nan
    return {"verdict": verdict, "p": p, "weak": bool(verdict) and board.has_few_seeds(model, board.reference)}


def _mark(board: Board, metric: str, model: str) -> Cell:
    """Sorted from surely better to surely worse."""
    if model == board.reference:
        return Cell("ref.", 0.0)
    tested = _tested(board, metric, model)
    if not tested["verdict"]:
        return Cell(MISSING, None)
    higher = board.score(model, metric)["mean"] > board.score(board.reference, metric)["mean"]
    return Cell("", (1 - tested["p"]) * (1 if higher else -1), **tested)


def _p_value(board: Board, metric: str, model: str) -> Cell:
    return number_cell(float(board.score(model, metric)["p"]), "{:.4f}")


def _interval(board: Board, metric: str, model: str) -> Cell:
    low, high = board.score(model, metric)[["low", "high"]]
    return Cell(MISSING, None) if pd.isna(low) or pd.isna(high) else Cell(f"{low:.4f}–{high:.4f}", float(low))


def _cost(board: Board, cost: str, model: str) -> Cell:
    """A cost; seeds are shown as ``1 of 2`` if some are missing, epochs as ``8.0 of 9.0`` if a run was stopped."""
    value, form = board.cost(model, cost), COSTS[cost][1]
    cell = number_cell(value, form)
    n_missing = board.n_missing(model)
    if cost == "seeds" and n_missing:
        return cell._replace(text=f"{cell.text} of {value + n_missing:,.0f}")
    runs = [run for run in board.runs if run["row"] == model]
    if cost == "best_epoch" and any(run["stopped_by"] for run in runs):
        epochs = sum(run["epochs"] for run in runs) / len(runs)
        return cell._replace(text=f"{cell.text} of {form.format(epochs)}, stopped")
    return cell
