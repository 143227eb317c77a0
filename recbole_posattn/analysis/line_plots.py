"""Weights, biases and attention by lag as lines, of one model or of two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from recbole_posattn.analysis.inspection import Inspection
from recbole_posattn.analysis.kernel_tables import MATRICES
from recbole_posattn.reporting.drawing import COLORS, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--")

# Ticks of times, in seconds.
_TIMES = {"0": 0, "1 min": 60, "1 h": 3600, "1 d": 86400, "1 mo": 2629800, "1 y": 31557600}

# What is measured on pairs of items of the histories, by column of the table, and the properties of its axes
_MEASURED_BY_GAP: dict[str, dict[str, str]] = {
    "bias": {"title": "positional bias", "ylabel": "logits, relative to lag 0"},
    "attention": {"title": "attention", "ylabel": "mean weight", "yscale": "log"},
}


def draw_lag_profiles(inspections: Sequence[Inspection]) -> Figure | None:
    """The mean weight of each kernel by lag, without lag 0; a line for each layer, mean over groups."""
    from matplotlib.figure import Figure

    names = [name for name in MATRICES if any(name in set(each.lags["kernel"]) for each in inspections)]
    if not names:
        return None
    figure = Figure(figsize=(10.4, 3.5), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for inspection, style in zip(inspections, _STYLES):
            profile = inspection.lags[inspection.lags["kernel"] == name]
            if profile.empty:  # its model has no such kernel
                continue
            means = profile.groupby(["layer", "lag"])["weight"].mean()
            means.loc[:, 0] = float("nan")
            _draw_by_layer(axis, means, inspection.label, style)
        axis.axhline(0.0, color="#7b8794", linewidth=0.8)
        axis.set(title=name, xlabel="lag (positions back)", ylabel="mean weight")
        axis.grid()
    _legend(figure)
    return figure


def draw_positions(inspections: Sequence[Inspection]) -> Figure | None:
    """The positional bias and the attention weights by lag, means over heads; ``None`` without any attention."""
    from matplotlib.figure import Figure

    if all(inspection.positions.empty for inspection in inspections):
        return None
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    bias_axis, attention_axis = figure.subplots(1, 2)
    for inspection, style in zip(inspections, _STYLES):
        if inspection.positions.empty:  # its model has no attention
            continue
        means = inspection.positions.groupby(["layer", "lag"]).mean()
        _draw_by_layer(bias_axis, means["bias"], inspection.label, style)
        _draw_by_layer(attention_axis, means["attention"], inspection.label, style)
        if len(inspections) == 1 and inspection.parts:
            _draw_by_layer(attention_axis, means["attention_without"], "without positions", ":")
    bias_axis.axhline(0.0, color="#7b8794", linewidth=0.8)
    bias_axis.set(title="positional bias", xlabel="lag (positions back)", ylabel="logits, relative to lag 0")
    attention_axis.set(title="attention", xlabel="lag (positions back)", ylabel="mean weight", yscale="log")
    attention_axis.yaxis.set_major_formatter("{x:g}")
    for axis in (bias_axis, attention_axis):
        axis.grid()
    _legend(figure)
    return figure


def draw_gaps(inspections: Sequence[Inspection]) -> Figure | None:
    """Learned weights and attention by time gap, means over groups and heads; ``None`` if no model reads time."""
    from matplotlib.figure import Figure

    if all(inspection.gap_weights.empty and inspection.gaps.empty for inspection in inspections):
        return None
    parts = list(dict.fromkeys(part for each in inspections for part in each.gap_weights["part"]))
    measured = {} if all(each.gaps.empty for each in inspections) else _MEASURED_BY_GAP
    n_rows = -(-(len(parts) + len(measured)) // 3)
    figure = Figure(figsize=(10.4, 0.6 + 3.3 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 3).flatten()
    for axis in axes[len(parts) + len(measured) :]:
        figure.delaxes(axis)
    for inspection, style in zip(inspections, _STYLES):
        for axis, part in zip(axes, parts):
            weights = inspection.gap_weights[inspection.gap_weights["part"] == part]
            if not weights.empty:
                _draw_by_layer(axis, weights.groupby(["layer", "gap"])["weight"].mean(), inspection.label, style, "gap")
                axis.set(title=part, ylabel="learned weight")
        if not inspection.gaps.empty:
            means = inspection.gaps.groupby(["layer", "gap"])[["bias", "attention"]].mean()
            for axis, column in zip(axes[len(parts) :], measured):
                _draw_by_layer(axis, means[column], inspection.label, style, "gap")
    for axis, properties in zip(axes[len(parts) :], measured.values()):
        axis.set(**properties)
    for axis in figure.axes:
        axis.set_xscale("symlog", linthresh=1.0)
        axis.set_xticks(list(_TIMES.values()), list(_TIMES), minor=False)
        axis.set_xlabel("time before")
        axis.grid()
    _legend(figure)
    return figure


def _draw_by_layer(axis: Axes, values: pd.Series, label: str, style: str, by: str = "lag") -> None:
    """A line for each layer; ``by`` is the level of the index on the x axis."""
    for layer, by_lag in values.groupby(level="layer"):
        number = int(str(layer))
        color = COLORS[(number - 1) % len(COLORS)]
        x, y = by_lag.index.get_level_values(by), by_lag.to_numpy()
        axis.plot(x, y, style, color=color, linewidth=1.4, label=f"{short(label)}, layer {number}")


def _legend(figure: Figure) -> None:
    """One legend for all axes."""
    labelled = {
        label: handle for axis in figure.axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(labelled.values()), list(labelled), loc="outside lower center", ncols=4)
