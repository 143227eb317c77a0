"""Accuracy against cost. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recbole_posattn.experiments.leaderboard.styles import line_style
from recbole_posattn.reporting.drawing import short
from recbole_posattn.reporting.names import compact, metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recbole_posattn.experiments.leaderboard.board import Board

# Columns of Board.costs: title, and the least that is drawn on a logarithmic axis.
DRAWN_COSTS = {
    "training_seconds": ("training time in seconds", 0.01),
    "parameters": ("trainable parameters", 1.0),
    "peak_mebibytes": ("peak memory in MiB", 1.0),
}


def draw_cost(board: Board, cost: str) -> Figure | None:
    """The watched metric against a cost of :data:`DRAWN_COSTS`, with labelled points; ``None`` if it is not known.

    Small points are seeds. The dotted line joins the models that are better than all cheaper ones.
    """
    from matplotlib.figure import Figure

    known = board.costs.set_index("model")[cost].dropna()
    models = [model for model in board.models if model in known.index]
    if not models:
        return None
    title, least = DRAWN_COSTS[cost]
    metric = board.metrics[0]
    amounts = np.maximum(known[models].to_numpy(dtype=float), least)
    means = np.array([board.score(model, metric)["mean"] for model in models])

    figure = Figure(figsize=(5.2, max(3.4, 1.1 + 0.27 * len(board.models))), layout="constrained")
    axis = figure.subplots()
    for model, amount, mean in zip(models, amounts, means):
        color = line_style(board, model)["color"]
        of_seeds = list(board.of_seeds(model, metric).values())
        axis.plot([amount] * len(of_seeds), of_seeds, "o", markersize=2.5, color=color, alpha=0.6, markeredgewidth=0)
        axis.plot(amount, mean, "o", markersize=6, color=color)
    _draw_front(axis, amounts, means)
    _scale(axis, amounts)
    axis.set(xlabel=title, ylabel=metric_title(metric))
    _label_points(axis, np.column_stack([amounts, means]), [short(model) for model in models])
    return figure


def _draw_front(axis: Axes, amounts: np.ndarray, means: np.ndarray) -> None:
    """The best that each amount buys."""
    order = np.lexsort((-means, amounts))  # the better first of equally cheap ones
    best = np.maximum.accumulate(means[order])
    axis.step(amounts[order], best, where="post", color="#7b8794", linewidth=0.8, linestyle=":", zorder=0)


def _scale(axis: Axes, amounts: np.ndarray) -> None:
    """A logarithmic axis with round numbers, where the costs differ by more than ten times."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    span = amounts.max() / amounts.min()
    if span > 10:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 300 else (1,)))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.locator_params(axis="x", nbins=6)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value) if value >= 1 else f"{value:g}"))
    axis.margins(x=0.15, y=0.12)
    axis.grid()


def _label_points(axis: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Write each name near its point, at the nearest place where it covers the least of other points and names."""
    from matplotlib.figure import Figure

    figure = axis.figure
    assert isinstance(figure, Figure)  # not a SubFigure
    figure.draw_without_rendering()  # computes the layout
    to_points = 72 / figure.dpi
    pixels = axis.transData.transform(points)
    taken = pixels[:, None] + np.array([[-5, -5], [5, 5]])  # boxes: lower left and upper right corner
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    gaps = np.array([7, 16, 28, 42, 60, 80])
    distance, direction = np.repeat(gaps, len(directions))[:, None], np.tile(directions, (len(gaps), 1))

    for point, pixel, name in zip(points, pixels, names):
        label = axis.annotate(name, point, (0, 0), textcoords="offset points", ha="center", va="center", fontsize=8)
        label.set_in_layout(False)
        size = label.get_window_extent().size + np.array([6, 0])  # space between names in a row
        centers = direction * (distance + size / 2)
        boxes = (pixel + centers)[:, None] + np.array([-size / 2, size / 2])
        hidden = _shared(boxes, taken).sum(axis=1) - _shared(boxes, axis.bbox.get_points()[None]).sum(axis=1)
        best = int(np.argmin(np.round(hidden)))  # the first of equals
        taken = np.concatenate([taken, boxes[[best]]])
        label.set_position(centers[best] * to_points)
        if distance[best] > 20:
            line = {"arrowstyle": "-", "linewidth": 0.5, "color": "#7b8794", "shrinkA": 0, "shrinkB": 3}
            end = direction[best] * distance[best] * to_points
            axis.annotate("", point, end, textcoords="offset points", arrowprops=line, in_layout=False)


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The overlap of each box with each other box; shapes (n, 2, 2) and (m, 2, 2), result (n, m)."""
    sides = np.minimum(boxes[:, None, 1], others[:, 1]) - np.maximum(boxes[:, None, 0], others[:, 0])
    return np.maximum(sides, 0).prod(axis=-1)
