"""Figures of interference and of kernel structures. Matplotlib is imported where it is used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from recbole_posattn.analysis.interference import Interference
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.structures import STRUCTURES, build_kernel
from recbole_posattn.reporting.page import write_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_interference(result: Interference) -> Figure:
    """Bars: the metric with parts switched off, and each part's effect by layer on logits, entropy and output."""
    from matplotlib.figure import Figure

    metric, size = result.valid_metric, 1 if result.layers.empty else 2
    figure = Figure(figsize=(5 * size, 3.25 * size), layout="constrained")
    axes = figure.subplots(size, size, squeeze=False)

    names = [f"{row.parts} {row.part}".strip() for row in result.metrics.itertuples()]
    values = result.metrics[metric].tolist()
    colors = {"all": "C0", "without": "C1", "alone": "C2", "none": "C7"}
    bars = axes[0, 0].barh(names, values, color=[colors[parts] for parts in result.metrics["parts"]])
    axes[0, 0].bar_label(bars, fmt="%.4f", fontsize=8, padding=2)
    axes[0, 0].margins(x=0.2)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set(title="parts switched off", xlabel=f"{metric} ({result.split})")

    if result.layers.empty:  # no attention
        return figure
    layers = result.layers.assign(entropy_change=result.layers["entropy"] - result.layers["entropy_without"])
    for axis, column, title, label in (
        (axes[0, 1], "logit_share", "effect on the logits", "RMS of the change / RMS of the logits"),
        (axes[1, 0], "entropy_change", "effect on the entropy of the weights", "nats with the part − without"),
        (axes[1, 1], "output_change", "effect on the output", "norm of the change / norm of the output"),
    ):
        table = layers.pivot(index="layer", columns="part", values=column)[layers["part"].unique()]
        table.plot.bar(ax=axis, rot=0, title=title, xlabel="layer", ylabel=label, legend=axis is axes[1, 1])
        axis.axhline(0.0, color="black", linewidth=0.8)
    return figure


def write_interference(result: Interference, folder: Path) -> list[Path]:
    """Write both tables as CSV and the figure as PNG; the names of the files of the test rows say so.

    Args:
        result: What :func:`interference` returned.
        folder: Created if missing.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    png = io.BytesIO()
    draw_interference(result).savefig(png, format="png", dpi=150)
    name = "interference" if result.split == "valid" else f"interference_{result.split}"
    contents: dict[str, str | bytes] = {
        f"{name}_metrics.csv": result.metrics.to_csv(index=False),
        f"{name}_layers.csv": result.layers.to_csv(index=False),
        f"{name}.png": png.getvalue(),
    }
    return write_files(folder, contents)


def draw_structures(max_length: int = 32, seed: int = 7) -> dict[str, Figure]:
    """A picture of each kernel structure by name, with weights similar to trained ones.

    Args:
        max_length: Number of positions.
        seed: Random seed of the weights.
    """
    return {name: _draw_structure(name, max_length, seed) for name in STRUCTURES}


def _draw_structure(name: str, max_length: int, seed: int) -> Figure:
    from matplotlib.figure import Figure

    torch.manual_seed(seed)
    options = KernelOptions("l", max_length, normalization="none", bandwidth=6, n_decays=3, rank=6)
    kernel = build_kernel(name, options)
    with torch.no_grad():
        for parameter_name, parameter in kernel.named_parameters():
            if parameter_name in (
                "free",
                "amplitude",
                "coefficient",
                "basis",
            ):  # near 0 off the diagonal before training
                parameter.add_(0.35 * torch.randn_like(parameter).abs())
            if parameter_name == "width_logit":
                parameter.sub_(0.8)
        matrix = kernel.dense()[0].clone()
    # Entries without a weight stay white.
    figure = Figure(figsize=(2.6, 2.9), layout="constrained")
    axis = figure.subplots()
    limit = float(matrix.abs().max())
    axis.imshow(matrix.masked_fill(matrix == 0, torch.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
    axis.set(title=name, xlabel="from position s", ylabel="to position t", xticks=[], yticks=[])
    return figure
