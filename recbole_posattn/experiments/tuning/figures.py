"""Figures of a search. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_posattn.experiments.tuning.importance import caution, importances
from recbole_posattn.experiments.tuning.records import FINISHED, PRUNED, TrialRecord, best_trial
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.reporting.drawing import COLORS, Drawing, drawing, short
from recbole_posattn.reporting.names import metric_title, setting_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FINISHED_COLOR, _PRUNED_COLOR, _FAILED_COLOR, _BEST_COLOR = COLORS[0], "#a3abb5", "#d55e00", "#262b33"


# Width of the figure of settings in inches, and of a character beside its axes in points.
_PARALLEL_WIDTH, _POINTS_A_CHARACTER = 10.4, 5.2

# Background of a label, so that lines do not cross it.
_LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


def draw_search(
    records: Sequence[TrialRecord], space: Space, fixed: Mapping[str, Any], metric: str, bigger: bool
) -> dict[str, Drawing]:
    """The figures of a search by file name, without empty ones.

    Args:
        records: The trials, by number.
        space: The search space.
        fixed: All other settings.
        metric: ``valid_metric``.
        bigger: Whether higher is better.
    """
    metric = metric_title(metric)
    plan: dict[str, tuple[Callable[[], Figure | None], str, str, bool]] = {
        "history": (
            functools.partial(draw_history, records, metric, bigger),
            f"Best {metric} of each trial",
            "Line: the best finished trial so far.",
            False,
        ),
        "importance": (
            functools.partial(draw_importance, records, space, fixed, bigger),
            "Importance of each key",
            "Share of the variance over the search space (fANOVA), for keys that all trials have.",
            False,
        ),
        "parallel": (
            functools.partial(draw_parallel, records, space, metric, bigger),
            "Settings and results",
            "Each line is a trial; colour and last axis show its best score. A gap: the trial does not have the key.",
            True,
        ),
        "curves": (
            functools.partial(draw_curves, records, metric, bigger),
            f"{metric} on the validation set by epoch",
            "Grey: pruned. Black: the best trial.",
            True,
        ),
    }
    drawings = {
        name: drawing(draw, title, note, wide, "search", with_png=True)
        for name, (draw, title, note, wide) in plan.items()
    }
    return {name: each for name, each in drawings.items() if each is not None}


def draw_history(records: Sequence[TrialRecord], metric: str, bigger: bool) -> Figure:
    """The best score of each trial in starting order, and the best so far."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    scored = [record for record in records if record.best(bigger) is not None]
    for state, color, name in ((FINISHED, _FINISHED_COLOR, "finished"), (PRUNED, _PRUNED_COLOR, "pruned")):
        points = [(record.number, record.best(bigger)) for record in scored if record.state == state]
        if points:
            axis.plot(*zip(*points), "o", color=color, markersize=5, label=name)
    failed = [record.number for record in records if record.state not in (FINISHED, PRUNED)]
    if failed:
        axis.plot(
            failed, [0.02] * len(failed), "x", color=_FAILED_COLOR, transform=axis.get_xaxis_transform(), label="failed"
        )
    finished = [record for record in scored if record.state == FINISHED]
    scores = np.array([record.best(bigger) for record in finished], dtype=float)
    so_far = (np.maximum if bigger else np.minimum).accumulate(scores)
    axis.step([record.number for record in finished], so_far, where="post", color=_BEST_COLOR, linewidth=1.2)
    axis.set(xlabel="trial", ylabel=f"{metric} (validation)")
    axis.locator_params(axis="x", integer=True)
    axis.grid()
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def draw_importance(
    records: Sequence[TrialRecord], space: Space, fixed: Mapping[str, Any], bigger: bool
) -> Figure | None:
    """Bars of the importance of each key; ``None`` if it cannot be estimated."""
    from matplotlib.figure import Figure

    shares = importances(records, space, fixed, bigger)
    if not shares:
        return None
    keys, values = list(shares), list(shares.values())
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.barh(range(len(keys)), values, height=0.7, color=_FINISHED_COLOR, alpha=0.8)
    for row, value in enumerate(values):
        axis.annotate(f"{value:.2f}", (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(keys)), labels=[short(key) for key in keys])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel="share of the variance")
    if text := caution(records, bigger):
        axis.set_title(text, fontsize=8.5, color=_FAILED_COLOR)
    axis.grid(axis="x")
    return figure


def draw_curves(records: Sequence[TrialRecord], metric: str, bigger: bool) -> Figure:
    """The score of each trial by epoch."""
    from matplotlib.figure import Figure

    best = best_trial(records, bigger)

    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for record in sorted(records, key=lambda record: (record.state == FINISHED, record is best)):  # the best on top
        if record.curve:
            color = _FINISHED_COLOR if record.state == FINISHED else _PRUNED_COLOR
            color, width = (_BEST_COLOR, 2.0) if record is best else (color, 1.0)
            epochs, scores = zip(*record.curve)
            marker = "o" if len(epochs) == 1 else ""
            axis.plot(epochs, scores, color=color, linewidth=width, marker=marker, markersize=3)
    axis.set(xlabel="epoch", ylabel=f"{metric} (validation)")
    axis.locator_params(axis="x", integer=True)
    axis.grid()
    return figure


def draw_parallel(records: Sequence[TrialRecord], space: Space, metric: str, bigger: bool) -> Figure | None:
    """A line for each trial across an axis for each searched key and one for the score; ``None`` without a key."""
    import matplotlib
    from matplotlib.figure import Figure

    scored = [record for record in records if record.best(bigger) is not None]
    dimensions = [dimension for dimension in space.dimensions if dimension.kind != "like"]
    if not dimensions or not scored:
        return None
    scores = np.array([record.best(bigger) for record in scored])
    low, high = scores.min(), scores.max()
    heights = (scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)

    figure = Figure(figsize=(_PARALLEL_WIDTH, 4.2), layout="constrained")
    axis = figure.subplots()
    colors = matplotlib.colormaps["viridis"](heights if bigger else 1 - heights)
    for index in np.argsort(scores if bigger else -scores):  # the best on top
        settings = scored[index].settings
        line = [
            _height(dimension, settings[dimension.key]) if dimension.key in settings else np.nan
            for dimension in dimensions
        ]
        axis.plot([*line, heights[index]], color=colors[index], linewidth=1.3, alpha=0.85, marker="o", markersize=3)
    most = int((_PARALLEL_WIDTH * 72 / (len(dimensions) + 0.7) - 6) / _POINTS_A_CHARACTER)  # of a label beside its axis
    for place, dimension in enumerate(dimensions):
        axis.axvline(place, color="#7b8794", linewidth=0.8, zorder=0)
        for height, label in _marks(dimension, most):
            axis.annotate(
                label, (place, height), (4, 0), textcoords="offset points", va="center", fontsize=7.5, bbox=_LABEL_BOX
            )
    axis.axvline(len(dimensions), color="#7b8794", linewidth=0.8, zorder=0)
    for height, score in ((0, low), (1, high)) if high > low else ((0.5, low),):
        axis.annotate(f"{score:.4f}", (len(dimensions), height), (4, 0), textcoords="offset points", va="center")
    labels = [*(short(dimension.key, 20) for dimension in dimensions), metric]
    rotation = 12 if len(labels) <= 8 else 30
    axis.set_xticks(
        range(len(labels)), labels=labels, fontsize=8, rotation=rotation, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(axis="x", length=0)
    axis.margins(x=0.02, y=0.05)
    axis.set_xlim(-0.1, len(dimensions) + 0.6)
    return figure


def _height(dimension: Dimension, value: Any) -> float:
    """The place of a value on its axis, from 0 to 1."""
    if dimension.kind == "choice":
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    scale = math.log if dimension.kind == "loguniform" else float
    low, high = map(scale, dimension.values[:2])
    return (scale(value) - low) / (high - low)


def _marks(dimension: Dimension, most: int) -> list[tuple[float, str]]:
    """The labels of an axis, of so many characters at most, and their places."""
    if dimension.kind == "choice":
        return [(_height(dimension, value), short(setting_text(value), most)) for value in dimension.values]
    low, high = dimension.values[:2]
    middle = math.sqrt(low * high) if dimension.kind == "loguniform" else (low + high) / 2
    return [(_height(dimension, value), f"{value:.3g}") for value in (low, middle, high)]
