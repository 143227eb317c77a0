"""Figures of a leaderboard, as SVG. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_posattn.reporting.drawing import COLORS, Drawing, drawing, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from recbole_posattn.experiments.leaderboard.board import Board

# Colours of test outcomes that colour-blind readers can distinguish (Okabe and Ito).
VERDICT_COLORS = {"better": "#0072b2", "worse": "#d55e00", "tie": "#a3abb5", "reference": "#262b33", "": "#a3abb5"}

_LINE_STYLES = ["-", "--", ":"]

# Shorter training times are drawn as this, for the logarithmic axis.
_SHORTEST_SECONDS = 0.01


def draw_board(board: Board) -> list[Drawing]:
    """The figures of a board, without empty ones; the same board always gives the same SVG."""
    if not board.models:
        return []
    metric = board.metrics[0]
    tested = any(board.verdict(model, metric) for model in board.models)
    colours = f"Colours: the paired test against {board.reference}." if tested else "No model was tested."
    plan = [
        (draw_scores, f"{metric} with 95 % intervals", colours, False),
        (draw_times, f"{metric} against training time", "Means over seeds.", False),
        (
            draw_curves,
            f"{metric} on the validation set by epoch",
            "Thin: seeds. Thick: their mean, up to the epoch in which the first of them stopped.",
            True,
        ),
        (draw_groups, f"{metric} by group of test targets", "Below each group: number of targets.", True),
    ]
    salt = f"{board.dataset} {board.protocol}"
    drawings = (drawing(functools.partial(draw, board), title, note, wide, salt) for draw, title, note, wide in plan)
    return [each for each in drawings if each is not None]


def draw_scores(board: Board) -> Figure:
    """Bars of the watched metric with 95 % intervals, the best on top, coloured by test outcome."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    metric = board.metrics[0]
    models = board.models
    scores = [board.score(model, metric) for model in models]
    verdicts = ["reference" if model == board.reference else board.verdict(model, metric) for model in models]
    rows = np.arange(len(models))
    mean, low, high = (np.array([score[column] for score in scores], dtype=float) for column in ("mean", "low", "high"))

    figure = Figure(figsize=(5.2, max(3.4, 1.1 + 0.27 * len(models))), layout="constrained")
    axis = figure.subplots()
    axis.barh(rows, mean, height=0.7, color=[VERDICT_COLORS[verdict] for verdict in verdicts], alpha=0.8)
    axis.hlines(rows, low, high, color="black", linewidth=1.2)
    for row, value, end in zip(rows, mean, np.fmax(mean, high)):
        axis.annotate(f"{value:.4f}", (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.margins(x=0.2, y=0.02)
    axis.set_xlim(left=0)
    axis.set_yticks(rows, labels=[short(model) for model in models])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set(xlabel=metric)
    axis.grid(axis="x")

    shown = [verdict for verdict in ("better", "tie", "worse", "reference") if verdict in verdicts]
    patches = [Patch(color=VERDICT_COLORS[verdict], alpha=0.8) for verdict in shown]
    figure.legend(patches, shown, loc="outside lower center", ncols=4)
    return figure


def draw_times(board: Board) -> Figure | None:
    """The watched metric against the training time, with labelled points; ``None`` if no time is known."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    known = board.costs.set_index("model")["training_seconds"].dropna()
    models = [model for model in board.models if model in known.index]
    if not models:
        return None
    seconds = np.maximum(known[models].to_numpy(dtype=float), _SHORTEST_SECONDS)
    mean = np.array([board.score(model, board.metrics[0])["mean"] for model in models])

    figure = Figure(figsize=(5.2, max(3.4, 1.1 + 0.27 * len(board.models))), layout="constrained")
    axis = figure.subplots()
    for model, x, y in zip(models, seconds, mean):
        axis.plot(x, y, "o", markersize=6, color=_line_style(board, model)["color"])
    span = seconds.max() / seconds.min()
    if span > 10:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 300 else (1,)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(x=0.15, y=0.12)
    axis.set(xlabel="training time in seconds", ylabel=board.metrics[0])
    axis.grid()
    _label_points(axis, np.column_stack([seconds, mean]), [short(model) for model in models])
    return figure


def draw_curves(board: Board) -> Figure | None:
    """The watched metric on the validation set by epoch; ``None`` if no model was validated by epoch."""
    from matplotlib.figure import Figure

    curves = board.curves.dropna(subset=["valid"])
    models = [model for model in board.models if model in set(curves["model"])]
    if not models:
        return None
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    axis = figure.subplots()
    lines = []
    for model in models:
        style = _line_style(board, model)
        by_seed = curves[curves["model"] == model].pivot(index="epoch", columns="seed", values="valid")
        for seed in by_seed:
            axis.plot(by_seed[seed].dropna(), **style, linewidth=0.6, alpha=0.4)
        mean = by_seed.dropna().mean(axis=1)  # a mean over fewer seeds would jump
        lines += axis.plot(mean, **style, linewidth=2, marker="o" if len(mean) == 1 else "", markersize=4)
    axis.set(xlabel="epoch", ylabel=f"{board.metrics[0]} (validation)")
    axis.locator_params(axis="x", integer=True)
    axis.grid()
    figure.legend(lines, [short(model) for model in models], loc="outside right upper")
    return figure


def draw_groups(board: Board) -> Figure | None:
    """The watched metric on each group of targets, a panel for each kind of group; ``None`` if there are no groups."""
    from matplotlib.figure import Figure

    groups = board.groups
    models = [model for model in board.models if model in set(groups["model"])]
    if not models:
        return None
    kinds = groups["kind"].unique()
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    lines = {}
    for axis, kind in zip(figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0], kinds):
        rows = groups[groups["kind"] == kind]
        targets = rows.drop_duplicates("group").set_index("group")["targets"]  # in the order of the groups
        means = rows.pivot(index="group", columns="model", values="mean").reindex(targets.index)
        places = np.arange(len(targets))
        for model in (model for model in models if model in means):
            style = _line_style(board, model)
            (lines[model],) = axis.plot(places, means[model], **style, linewidth=1.4, marker="o", markersize=4)
        axis.set_xticks(places, labels=[f"{group}\n{number:,}" for group, number in targets.items()])
        axis.margins(x=0.08)
        axis.set(xlabel=kind)
        axis.grid(axis="y")
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].set_ylabel(board.metrics[0])
    figure.legend(list(lines.values()), [short(model) for model in lines], loc="outside right upper")
    return figure


def _line_style(board: Board, model: str) -> dict[str, Any]:
    """Colour and dashes of a model, the same in all figures of a board: the reference in black."""
    if model == board.reference:
        return {"color": VERDICT_COLORS["reference"], "linestyle": "-"}
    others = [name for name in board.models if name != board.reference]
    turn, color = divmod(others.index(model), len(COLORS))
    return {"color": COLORS[color], "linestyle": _LINE_STYLES[turn % len(_LINE_STYLES)]}


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
