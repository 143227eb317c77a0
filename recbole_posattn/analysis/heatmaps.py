"""Heatmaps of kernels, of attention, and of kernels over training. Matplotlib is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbole_posattn.analysis.inspection import Inspection
from recbole_posattn.analysis.kernel_tables import MATRICES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DIVERGING, _SEQUENTIAL = "RdBu_r", "Blues"


def draw_kernels(inspection: Inspection) -> Figure | None:
    """U, L, C and the branch of each layer and group; the colour scale ends at the largest weight off the diagonal."""
    from matplotlib.figure import Figure

    table = inspection.kernels
    if table.empty:
        return None
    names = [name for name in MATRICES if name in set(table["kernel"])]
    table = table.assign(nth=table.groupby(["layer", "kernel"])["group"].rank("dense").astype(int))
    lines = list(table[["layer", "nth"]].drop_duplicates().sort_values(["layer", "nth"]).itertuples(index=False))
    figure = Figure(figsize=(3.45 * len(names), 3.1 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), len(names), squeeze=False)
    for (layer, nth), line in zip(lines, axes):
        for name, axis in zip(names, line):
            entries = table[(table["layer"] == layer) & (table["nth"] == nth) & (table["kernel"] == name)]
            if entries.empty:  # another kernel has more groups
                axis.set_axis_off()
                continue
            image = _draw_matrix(axis, entries)
            figure.colorbar(image, ax=axis, shrink=0.8, extend="both").ax.tick_params(labelsize=7)
            group, several = entries["group"].iloc[0], table.loc[table["kernel"] == name, "group"].nunique() > 1
            of_group = ", mean of all groups" if group == 0 else f", group {group}" if several else ""
            axis.set(title=f"{name}, layer {layer}{of_group}", xlabel="column (position)", ylabel="row (position)")
            axis.title.set_size(9)
    return figure


def _draw_matrix(axis: Axes, entries: pd.DataFrame) -> Any:
    """One matrix; entries that are 0, outside the triangle, stay white."""
    matrix = entries.pivot(index="row", columns="column", values="weight").to_numpy()
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    limit = float(np.abs(off_diagonal).max(initial=0)) or float(np.abs(matrix).max())
    return axis.imshow(np.ma.masked_equal(matrix, 0), cmap=_DIVERGING, vmin=-limit, vmax=limit)


def draw_attention(inspection: Inspection, layer: int) -> Figure | None:
    """The attention maps of a layer, mean over heads, by kind (rows) and history length (columns)."""
    from matplotlib.figure import Figure

    table = inspection.attention[inspection.attention["layer"] == layer]
    if table.empty:
        return None
    kinds, histories = table["kind"].unique(), table["history"].unique()
    figure = Figure(figsize=(2.6 * len(histories) + 0.8, 2.7 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), len(histories), squeeze=False)
    for kind, line in zip(kinds, axes):
        maps = {
            history: rows.groupby(["query", "key"])["weight"].mean().unstack()
            for history, rows in table[table["kind"] == kind].groupby("history", sort=False)
        }
        for history, axis in zip(histories, line):
            count = table.loc[table["history"] == history, "histories"].iloc[0]
            image = _draw_map(axis, maps[history])
            axis.set(title=f"{kind}\n{history} items, {count:,} histories", xlabel="key, positions back")
            axis.set_ylabel("query, positions back")
            axis.title.set_size(8.5)
            figure.colorbar(image, ax=axis, shrink=0.75).ax.tick_params(labelsize=7)
    return figure


def _draw_map(axis: Axes, weights: pd.DataFrame) -> Any:
    """Oldest position at the left and top, as in a matrix; the square-root colour scale shows small weights."""
    from matplotlib.colors import PowerNorm

    newest_last = weights.to_numpy()[::-1, ::-1]
    edge = len(newest_last) - 0.5
    return axis.imshow(
        np.ma.masked_invalid(newest_last),
        cmap=_SEQUENTIAL,
        norm=PowerNorm(0.5, vmin=0, vmax=max(float(np.nanmax(newest_last)), 1e-12)),
        extent=(edge, -0.5, -0.5, edge),
    )


def draw_evolution(inspection: Inspection) -> Figure | None:
    """The weights by lag (y) and epoch (x) of each kernel and layer, mean over groups."""
    from matplotlib.figure import Figure

    table = inspection.evolution
    if table.empty or table["epochs"].nunique() < 2:
        return None
    table = table[table["lag"] != 0]  # too large for the colour scale of the others
    names = [name for name in MATRICES if name in set(table["kernel"])]
    layers = sorted(table["layer"].unique())
    figure = Figure(figsize=(3.45 * len(names), 2.7 * len(layers)), layout="constrained")
    axes = figure.subplots(len(layers), len(names), squeeze=False)
    for layer, line in zip(layers, axes):
        for name, axis in zip(names, line):
            rows = table[(table["layer"] == layer) & (table["kernel"] == name)]
            weights = rows.groupby(["lag", "epochs"])["weight"].mean().unstack()
            limit = float(np.abs(weights.to_numpy()).max()) or 1.0
            image = axis.pcolormesh(
                weights.columns, weights.index, weights, cmap=_DIVERGING, vmin=-limit, vmax=limit, rasterized=True
            )
            figure.colorbar(image, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
            axis.set(title=f"{name}, layer {layer}", xlabel="epochs", ylabel="lag")
            axis.title.set_size(9)
    return figure
