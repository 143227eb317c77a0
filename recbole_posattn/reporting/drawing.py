"""Figures as SVG for a page, all in one style. Matplotlib is imported where it is drawn with: it takes its time."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of things that stand beside each other.
COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"]

STYLE = {
    "svg.fonttype": "none",  # text stays text, which can be searched
    "text.parse_math": False,  # a name may hold dollar signs
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


class Drawing(NamedTuple):
    """A figure as it is put into a page.

    Attributes:
        title: What it shows.
        note: How to read it.
        wide: Whether it wants the whole width of the page.
        svg: The ``<svg>`` element.
        png: The same as pixels, the content of a file; ``None`` unless asked for.
    """

    title: str
    note: str
    wide: bool
    svg: str
    png: bytes | None = None


def drawing(
    draw: Callable[[], Figure | None], title: str, note: str, wide: bool, salt: str, with_png: bool = False
) -> Drawing | None:
    """A figure as an SVG; ``None`` if there is nothing to draw.

    Args:
        draw: Makes the figure, in our style.
        title: See :class:`Drawing`.
        note: See :class:`Drawing`.
        wide: See :class:`Drawing`.
        salt: Makes the names inside the SVG the same every time, and different from those of its neighbours.
        with_png: Whether it is wanted as pixels, too.
    """
    import matplotlib

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"{salt} {title}"}):
        figure = draw()
        return None if figure is None else Drawing(title, note, wide, _svg(figure), _png(figure) if with_png else None)


def short(name: str, length: int = 28) -> str:
    """A name as an axis or a legend has room for it."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Names of groups ("axes_1") would occur once a figure in a page; what is referred to has a salted one.
    referred = set(re.findall(r'#([^")]+)[")]', svg))
    return re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referred else "", svg)
