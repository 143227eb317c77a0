"""Colours and lines of a leaderboard's figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recbole_posattn.reporting.drawing import COLORS

if TYPE_CHECKING:
    from recbole_posattn.experiments.leaderboard.board import Board

# Colours of test outcomes that colour-blind readers can distinguish (Okabe and Ito).
VERDICT_COLORS = {"better": "#0072b2", "worse": "#d55e00", "tie": "#a3abb5", "reference": "#262b33", "": "#a3abb5"}

# What was not tested, or is not shown to differ, beside coloured parts of a figure
PALE = "#eef0f3"

# How strongly a test of few seeds is coloured.
WEAK_ALPHA = 0.4

_LINE_STYLES = ["-", "--", ":"]


def line_style(board: Board, model: str) -> dict[str, Any]:
    """Colour and dashes of a model, the same in all figures of a board: the reference in black."""
    if model == board.reference:
        return {"color": VERDICT_COLORS["reference"], "linestyle": "-"}
    others = [name for name in board.models if name != board.reference]
    turn, color = divmod(others.index(model), len(COLORS))
    return {"color": COLORS[color], "linestyle": _LINE_STYLES[turn % len(_LINE_STYLES)]}
