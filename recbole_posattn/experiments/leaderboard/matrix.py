"""The tests of every pair of a board's models as a matrix. Matplotlib is imported where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from recbole_posattn.experiments.leaderboard.board import SIGNIFICANCE, Board
from recbole_posattn.experiments.leaderboard.styles import PALE, VERDICT_COLORS, WEAK_ALPHA
from recbole_posattn.reporting.drawing import short
from recbole_posattn.reporting.page import MISSING, Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OPPOSITE = {"better": "worse", "worse": "better", "tie": "tie", "": ""}


def pair_cells(board: Board) -> dict[str, dict[str, Cell]]:
    """What the test of every pair finds, by row and column: is the row better or worse than the column?

    Each cell has the difference as its value, and no text but a dash where there is no test. The diagonal is empty.
    """
    cells: dict[str, dict[str, Cell]] = {model: {model: Cell("", None)} for model in board.models}
    for pair in board.pairs.to_dict("records"):
        verdict = (
            "" if pd.isna(pair["p"]) else "tie" if pair["p"] >= SIGNIFICANCE else "better"
        )  # the first has the higher mean
        weak = bool(verdict) and board.has_few_seeds(pair["model"], pair["other"])
        cell = Cell("" if verdict else MISSING, pair["difference"], verdict=verdict, p=pair["p"], weak=weak)
        cells[pair["model"]][pair["other"]] = cell
        cells[pair["other"]][pair["model"]] = cell._replace(value=-pair["difference"], verdict=_OPPOSITE[verdict])
    return cells


def draw_pairs(board: Board) -> Figure | None:
    """A matrix of all pairs: the differences, coloured by the outcome of the tests; ``None`` without three models."""
    from matplotlib.figure import Figure

    models, cells = board.models, pair_cells(board)
    n = len(models)
    if n < 3 or board.pairs.empty:
        return None
    figure = Figure(figsize=(10.4, 1.7 + 0.3 * n), layout="constrained")
    axis = figure.subplots()
    for row, model in enumerate(models):
        for column, other in enumerate(models):
            cell = cells[model][other]
            if cell.value is None:
                continue
            tested = cell.verdict in ("better", "worse")
            color = VERDICT_COLORS[cell.verdict] if tested else PALE
            alpha = (WEAK_ALPHA if cell.weak else 0.85) if tested else 1.0
            axis.fill_between(
                [column - 0.47, column + 0.47], row - 0.45, row + 0.45, color=color, alpha=alpha, linewidth=0
            )
            ink = "white" if tested and not cell.weak else "#1c2128"
            text = f"{cell.value:+z.4f}".replace("-", "−")
            axis.annotate(text, (column, row), ha="center", va="center", fontsize=7.5 if n <= 16 else 5.5, color=ink)
    axis.set_xlim(-0.5, n - 0.5)
    axis.set_ylim(n - 0.5, -0.5)
    axis.xaxis.tick_top()
    axis.set_xticks(range(n), labels=[short(model, 20) for model in models], rotation=35, ha="left", fontsize=8)
    axis.set_yticks(range(n), labels=[short(model) for model in models], fontsize=8.5)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    return figure
