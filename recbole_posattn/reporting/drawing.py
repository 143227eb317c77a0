"""Figures as SVG for a page, all in one style. Matplotlib is imported where it is used, as it is slow to import."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of lines and bars in one figure.
COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"]

STYLE: dict[Any, Any] = {  # matplotlib types the keys as literals
    "svg.fonttype": "none",  # text remains searchable
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
    """A figure of a page.

    Attributes:
        title: What it shows.
        note: How to read it.
        wide: Whether it needs the whole width of the page.
        svg: The ``<svg>`` element.
        png: The content of a PNG file; ``None`` unless requested.
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
        draw: Draws the figure; called with our style.
        title: See :class:`Drawing`.
        note: See :class:`Drawing`.
        wide: See :class:`Drawing`.
        salt: Makes the ids inside the SVG reproducible, and different from those of other figures on the page.
        with_png: Whether to render a PNG, too.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": f"{salt} {title}"}):
        figure = draw()
        if figure is None:
            return None
        svg = _svg(figure)
        figure.set_layout_engine("none")  # the PNG keeps the layout of the SVG, which takes long to compute
        return Drawing(title, note, wide, svg, _png(figure) if with_png else None)


def png_picture(draw: Callable[[], Figure]) -> bytes:
    """A figure as a PNG file alone; ``draw`` is called in our style."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return _png(draw())


def short(name: str, length: int = 28) -> str:
    """A name, shortened for an axis or a legend."""
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
    # Ids of groups ("axes_1") would repeat in each figure of a page; ids that are referred to are salted.
    referred = set(re.findall(r'#([^")]+)[")]', svg))
    return re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referred else "", svg)
