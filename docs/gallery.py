"""Draw the pictures of docs/gallery.md: ``python docs/gallery.py leaderboards/encodings results/…/leaderboard.html``.

The first argument is a leaderboard's folder, whose runs/ have their checkpoints; the second the page of a leaderboard,
which Chromium shows.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from recbole_posattn.analysis.heatmaps import draw_kernels
from recbole_posattn.analysis.inspection import Inspection, inspect_checkpoint
from recbole_posattn.reporting.drawing import COLORS, png_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = Path(__file__).parent / "images"
SIZE = (10.35, 6.2)  # inches, that of the kernels of two layers
PIXELS = (1242, 744)
KERNEL = "PosKernelSASRec"


def draw_lag_curves(positions: pd.DataFrame) -> Figure:
    """The positional bias of each model by lag, a panel for each layer; the mean over the runs, and their range.

    Args:
        positions: Columns ``model``, ``run``, ``layer``, ``lag`` and ``bias``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    layers = sorted(positions["layer"].unique())
    for layer, axis in zip(layers, figure.subplots(1, len(layers), squeeze=False)[0]):
        rows = positions[positions["layer"] == layer]
        for (model, by_lag), color in zip(rows.groupby("model", sort=False), COLORS):
            bias = by_lag.groupby("lag")["bias"].agg(["mean", "min", "max"])
            width = 2.4 if model == KERNEL else 1.4
            axis.plot(bias.index, bias["mean"], color=color, linewidth=width, label=model.removesuffix("SASRec"))
            axis.fill_between(bias.index, bias["min"], bias["max"], color=color, alpha=0.12, linewidth=0)
        axis.axhline(0.0, color="#7b8794", linewidth=0.8)
        axis.set(title=f"layer {layer}", xlabel="lag (positions back)")
        axis.grid()
    figure.axes[0].set_ylabel("positional bias (logits, relative to lag 0)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def inspected(runs: Path) -> list[Inspection]:
    """The trained models in a folder of runs that have attention and at most one encoding or kernel."""
    inspections = [inspect_checkpoint(file) for file in sorted(runs.glob("*/best.pth"))]
    hybrid = {"U", "L"}
    return [each for each in inspections if each.parts and (len(each.parts) == 1 or set(each.parts) == hybrid)]


def lag_curves(inspections: list[Inspection]) -> pd.DataFrame:
    """The positional biases of trained models, mean over heads, the kernel's first."""
    tables = []
    for each in sorted(inspections, key=lambda each: (each.model != KERNEL, each.model)):
        means = each.positions.groupby(["layer", "lag"], as_index=False)["bias"].mean()
        tables.append(means.assign(model=each.model, run=each.checkpoint.parent.name))
    return pd.concat(tables, ignore_index=True)


def screenshot(page: Path) -> bytes:
    """The top of a page as Chromium shows it, as PNG."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options)
    try:
        width, height = PIXELS
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.resolve().as_uri())
        return driver.get_screenshot_as_png()
    finally:
        driver.quit()


if __name__ == "__main__":
    leaderboard, page = map(Path, sys.argv[1:])
    models = inspected(leaderboard / "runs")
    kernel = next(each for each in models if each.model == KERNEL)
    pictures = {
        "gallery_leaderboard.png": screenshot(page),
        "gallery_kernels.png": png_picture(partial(draw_kernels, kernel)),
        "gallery_lags.png": png_picture(partial(draw_lag_curves, lag_curves(models))),
    }
    for name, content in pictures.items():
        (IMAGES / name).write_bytes(content)
        print(IMAGES / name)
