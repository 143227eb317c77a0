"""The figure of leaderboards side by side. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_posattn.experiments.leaderboard.board import FEW_SEEDS
from recbole_posattn.experiments.leaderboard.overview import Gains
from recbole_posattn.experiments.leaderboard.styles import VERDICT_COLORS
from recbole_posattn.reporting.drawing import short
from recbole_posattn.reporting.names import metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PER_LINE = 4

# In per cent: a gain or loss beyond _LARGE makes the axis logarithmic; it then stays linear within ± _LINEAR.
_LINEAR, _LARGE = 10, 40


def model_order(boards: Sequence[Gains]) -> list[str]:
    """All models, the one with the highest mean gain first; a model may be on some boards only."""
    shares: dict[str, list[float]] = {}
    for board in boards:
        for row in board.table.to_dict("records"):
            shares.setdefault(row["model"], []).append(row["share"])
    return sorted(shares, key=lambda model: (-np.nanmean(shares[model]), model))


def draw_gains(boards: Sequence[Gains], baseline: str) -> Figure:
    """A panel for each board: the gain of each model over the common one in per cent, with 95 % intervals."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    models = model_order(boards)
    n_lines = -(-len(boards) // _PER_LINE)
    per_line = -(-len(boards) // n_lines)
    figure = Figure(figsize=(10.4, n_lines * (1.3 + 0.24 * len(models))), layout="constrained")
    axes = figure.subplots(n_lines, per_line, sharey=True, squeeze=False)
    for axis, board in zip(axes.flat, boards):
        _draw_board(axis, board, models)
        place = f"\n{board.place}" if board.place else ""
        axis.set_title(f"{board.dataset}\n{board.protocol}, {board.n_users:,} users{place}", fontsize=8.5)
        axis.set_xlabel(f"% of {metric_title(board.metric)} of {baseline}", fontsize=8)
    for axis in list(axes.flat)[len(boards) :]:
        axis.set_visible(False)
    axes[0, 0].set_yticks(range(len(models)), labels=[short(model) for model in models])
    axes[0, 0].set_ylim(len(models) - 0.5, -0.5)
    kinds = [("better", "better"), ("tie", "no difference shown"), ("worse", "worse")]
    legend = [
        Line2D([], [], color=VERDICT_COLORS[verdict], marker="o", markersize=5, label=label) for verdict, label in kinds
    ]
    hollow: dict[str, Any] = {"color": "#1c2128", "linestyle": "", "markerfacecolor": "white", "markersize": 5}
    legend += [
        Line2D([], [], marker="o", label=f"fewer than {FEW_SEEDS} seeds", **hollow),
        Line2D([], [], marker="s", label="one seed, not tested", **hollow),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=5)
    return figure


def _draw_board(axis: Axes, board: Gains, models: Sequence[str]) -> None:
    for _, row in board.table.iterrows():
        place, verdict = models.index(row["model"]), board.verdict(row)
        color = VERDICT_COLORS[verdict]
        share, low, high = (100 * row[column] for column in ("share", "share_low", "share_high"))
        axis.hlines(place, low, high, color=color, linewidth=1.4)
        face = "white" if board.has_few_seeds(row) else color
        axis.plot(share, place, "o" if verdict else "s", color=color, markerfacecolor=face, markersize=5)
    axis.axvline(0, color="#262b33", linewidth=0.8, zorder=0)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x")
    ends = 100 * board.table[["share", "share_low", "share_high"]].to_numpy()
    if np.nanmax(np.abs(ends)) > _LARGE:
        axis.set_xscale("symlog", linthresh=_LINEAR, linscale=1.0)
        ticks = [-100, -30, -10, 0, 10, 30, 100, 300]
        axis.set_xticks([tick for tick in ticks if np.nanmin(ends) * 1.6 <= tick <= max(10, np.nanmax(ends) * 1.6)])
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter("{x:g}")
