"""Figures of a leaderboard, as SVG. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_posattn.experiments.leaderboard.costs_figure import DRAWN_COSTS, draw_cost
from recbole_posattn.experiments.leaderboard.matrix import draw_pairs
from recbole_posattn.experiments.leaderboard.styles import PALE, VERDICT_COLORS, WEAK_ALPHA, line_style
from recbole_posattn.reporting.drawing import Drawing, drawing, short
from recbole_posattn.reporting.names import metric_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from recbole_posattn.experiments.leaderboard.board import Board

# Bars by what the test against the reference found
_BARS: dict[str, dict[str, Any]] = {
    **{
        verdict: {"color": VERDICT_COLORS[verdict], "alpha": 0.8} for verdict in ("better", "tie", "worse", "reference")
    },
    "not tested": {"facecolor": PALE, "edgecolor": VERDICT_COLORS[""], "linewidth": 1.0},
}


def draw_board(board: Board) -> list[Drawing]:
    """The figures of a board, without empty ones; the same board always gives the same SVG."""
    if not board.models:
        return []
    metric = metric_title(board.metrics[0])
    colours = f"Colours: the paired test against {board.reference}, pale with few seeds."
    if not any(board.verdict(model, board.metrics[0]) for model in board.models):
        by = "" if board.scores["p"].isna().all() else f" by {metric}"
        against = f" against {board.reference}" if board.pairs["p"].notna().any() else ""
        colours = f"No model was tested{against}{by}."
    costs = [
        (functools.partial(draw_cost, board, cost), f"{metric} against {title}", "Small points: seeds.", False)
        for cost, (title, _) in DRAWN_COSTS.items()
    ]
    plan: list[tuple[Callable[[], Figure | None], str, str, bool]] = [
        (
            functools.partial(draw_scores, board),
            f"{metric} with 95 % intervals",
            f"Points: single seeds. {colours}",
            False,
        ),
        *costs,
        (
            functools.partial(draw_pairs, board),
            f"{metric}, row minus column",
            "Coloured where the paired test shows a difference, with Holm's correction for all pairs; pale with few "
            "seeds.",
            True,
        ),
        (
            functools.partial(draw_curves, board),
            f"{metric} on the validation set by epoch",
            "Thin: seeds. Thick: their mean, up to the epoch in which the first of them stopped.",
            True,
        ),
        (
            functools.partial(draw_groups, board),
            f"{metric} by group of test targets",
            "Below each group: number of targets.",
            True,
        ),
    ]
    salt = f"{board.dataset} {board.protocol}"
    drawings = (drawing(draw, title, note, wide, salt) for draw, title, note, wide in plan)
    return [each for each in drawings if each is not None]


def draw_scores(board: Board) -> Figure:
    """Bars of the watched metric with 95 % intervals and the seeds, the best on top, coloured by test outcome."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    metric = board.metrics[0]
    models = board.models
    scores = [board.score(model, metric) for model in models]
    verdicts = [
        "reference" if model == board.reference else board.verdict(model, metric) or "not tested" for model in models
    ]
    rows = np.arange(len(models))
    mean, low, high = (np.array([score[column] for score in scores], dtype=float) for column in ("mean", "low", "high"))

    figure = Figure(figsize=(5.2, max(3.4, 1.1 + 0.27 * len(models))), layout="constrained")
    axis = figure.subplots()
    for row, model in zip(rows, models):
        weak = verdicts[row] in ("better", "worse") and board.has_few_seeds(model, board.reference)
        axis.barh(row, mean[row], height=0.7, **_BARS[verdicts[row]] | ({"alpha": WEAK_ALPHA} if weak else {}))
    axis.hlines(rows, low, high, color="black", linewidth=1.2)
    for row, model in zip(rows, models):
        of_seeds = list(board.of_seeds(model, metric).values())
        axis.plot(
            of_seeds,
            [row] * len(of_seeds),
            "o",
            markersize=3.5,
            color="white",
            markeredgecolor="black",
            markeredgewidth=0.7,
        )
    for row, value, end in zip(rows, mean, np.fmax(mean, high)):
        axis.annotate(f"{value:.4f}", (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.margins(x=0.2, y=0.02)
    axis.set_xlim(left=0)
    axis.set_yticks(rows, labels=[short(model) for model in models])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set(xlabel=metric_title(metric))
    axis.grid(axis="x")

    shown = [verdict for verdict in _BARS if verdict in verdicts]
    figure.legend([Patch(**_BARS[verdict]) for verdict in shown], shown, loc="outside lower center", ncols=len(_BARS))
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
        style = line_style(board, model)
        by_seed = curves[curves["model"] == model].pivot(index="epoch", columns="seed", values="valid")
        for seed in by_seed:
            axis.plot(by_seed[seed].dropna(), **style, linewidth=0.6, alpha=0.4)
        mean = by_seed.dropna().mean(axis=1)  # a mean over fewer seeds would jump
        lines += axis.plot(mean, **style, linewidth=2, marker="o" if len(mean) == 1 else "", markersize=4)
    axis.set(xlabel="epoch", ylabel=f"{metric_title(board.metrics[0])} (validation)")
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
            style = line_style(board, model)
            (lines[model],) = axis.plot(places, means[model], **style, linewidth=1.4, marker="o", markersize=4)
        axis.set_xticks(places, labels=[f"{group}\n{number:,}" for group, number in targets.items()])
        axis.margins(x=0.08)
        axis.set(xlabel=kind)
        axis.grid(axis="y")
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].set_ylabel(metric_title(board.metrics[0]))
    figure.legend(list(lines.values()), [short(model) for model in lines], loc="outside right upper")
    return figure
