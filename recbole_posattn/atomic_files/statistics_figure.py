"""A figure of a data set: lengths of histories, popularity of items, and interactions over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbole_posattn.atomic_files.statistics import DataStatistics
from recbole_posattn.reporting.drawing import COLORS, png_picture
from recbole_posattn.reporting.page import write_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Number of bars of a histogram.
_BARS = 40


def draw_statistics(statistics: DataStatistics) -> Figure:
    """Histogram of the users' interactions, popularity curve of the items, and interactions over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    lengths, popularity, over_time = figure.subplots(1, 3)
    _draw_lengths(lengths, statistics.user_counts)
    _draw_popularity(popularity, statistics.item_counts)
    if statistics.times is not None:
        _draw_times(over_time, statistics.times, statistics.unix)
    else:
        over_time.set_axis_off()
    return figure


def write_statistics(statistics: DataStatistics, folder: Path) -> Path:
    """Write the picture to ``<folder>/<name>-stats.png``, and return the file.

    Raises:
        UserError: If the folder cannot be written.
    """
    return write_files(folder, {f"{statistics.name}-stats.png": png_picture(lambda: draw_statistics(statistics))})[0]


def _draw_lengths(axis: Axes, counts: np.ndarray) -> None:
    axis.hist(counts, bins=_length_bins(int(counts.min()), int(counts.max())), color=COLORS[0])
    median = float(np.median(counts))
    axis.axvline(median, color="black", linewidth=0.8, linestyle="--", label=f"median {median:g}")
    axis.set(title="interactions per user", xlabel="interactions", ylabel="users")
    _log_scale(axis, "x")
    axis.tick_params(axis="x", rotation=30)
    axis.legend()


def _length_bins(shortest: int, longest: int) -> list[float]:
    """Bounds of bars of equal logarithmic width, each with at least one whole number."""
    return [float(bound) - 0.5 for bound in np.unique(np.geomspace(shortest, longest + 1, _BARS + 1).round())]


def _log_scale(axis: Axes, *names: str) -> None:
    """Make axes logarithmic, with numbers written out.

    By default matplotlib writes powers as mathematical markup, which is off here: names may contain dollar signs.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for name in names:
        axis.set(**{f"{name}scale": "log"})
        ticks = getattr(axis, f"{name}axis")
        low, high = ticks.get_view_interval()
        if high < 100 * low:
            ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ticks.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ticks.set_minor_formatter(NullFormatter())


def _draw_popularity(axis: Axes, counts: np.ndarray) -> None:
    rank = np.arange(1, len(counts) + 1)
    axis.plot(rank, counts, color=COLORS[0])
    axis.set(title="popularity of the items", xlabel="rank", ylabel="interactions")
    _log_scale(axis, "x", "y")
    share = axis.twinx()
    share.plot(rank, 100 * np.cumsum(counts) / counts.sum(), color=COLORS[1])
    share.set(ylim=(0, 101))
    share.set_ylabel("% of the interactions up to this rank", color=COLORS[1])


def _draw_times(axis: Axes, times: np.ndarray, unix: bool) -> None:
    from matplotlib.dates import date2num

    times = times[np.isfinite(times)]
    if unix:
        times = date2num((1e6 * times).astype("datetime64[us]"))
        axis.xaxis_date()
    axis.hist(times, bins=_BARS, range=_time_range(float(times.min()), float(times.max())), color=COLORS[0])
    axis.set(title="interactions over time", xlabel="" if unix else "time", ylabel="interactions")
    axis.tick_params(axis="x", rotation=30)


def _time_range(first: float, last: float) -> tuple[float, float]:
    """The range of the bars: wider than the times if these are too close for the bars or the axis to show it."""
    least = 1e-12 * max(abs(first), abs(last))  # matplotlib draws no axis that is shorter
    margin = max(0.5, least) if last - first < least else 0.0
    return first - margin, last + margin
