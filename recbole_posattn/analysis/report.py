"""The inspection of one trained model, or of two to compare, as files: tables, figures and a page."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from recbole_posattn.analysis.heatmaps import draw_attention, draw_evolution, draw_kernels
from recbole_posattn.analysis.inspection import Inspection
from recbole_posattn.analysis.line_plots import draw_gaps, draw_lag_profiles, draw_positions
from recbole_posattn.reporting.drawing import Drawing, drawing
from recbole_posattn.reporting.page import Cell, command_line, number_cell, render_page
from recbole_posattn.training.result import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REACH_FORMATS = {"lag_0_share": "{:.3f}", "half_life": "{:.2f}", "mean_lag": "{:.2f}", "bandwidth_90": "{:.0f}"}


# The tables of an inspection, in words.
_TABLES = {
    "kernels": "every weight of the kernels",
    "lags": "weights by lag",
    "reach": "how far the kernels reach",
    "attention": "attention by layer, head and history length",
    "positions": "positional bias and attention by lag",
    "evolution": "weights by lag and epoch",
    "gap_weights": "weights by time gap",
    "gaps": "time gaps of the histories",
    "partition": "biases of the history partition",
}

# What a figure of weights by time gap shows besides, for models whose attention can be taken apart.
_MEASURED = "; positional bias and mean attention weight of pairs of items that far apart in the histories"


class _Plan(NamedTuple):
    draw: Callable[[], Figure | None]
    title: str
    note: str
    wide: bool = True


def labelled(inspections: Sequence[Inspection]) -> list[Inspection]:
    """The inspections with distinct labels: the names of the models, with A and B if they are equal."""
    if len({each.label for each in inspections}) == len(inspections):
        return list(inspections)
    return [each._replace(label=f"{each.model} {letter}") for each, letter in zip(inspections, "AB")]


def report_files(inspections: Sequence[Inspection]) -> dict[str, str | bytes]:
    """All files of a report by their names: ``inspect.html``, its tables as CSV, its figures as PNG and SVG.

    Args:
        inspections: One, or two to compare.
    """
    inspections = labelled(inspections)
    together = _drawings(_comparing_plans(inspections))
    apart = [_drawings(_own_plans(each), prefix=_prefix(each, inspections)) for each in inspections]
    linked = [_linked_tables(each, _prefix(each, inspections)) for each in inspections]
    figures = {name: each for group in (together, *apart) for name, each in group.items()}
    tables = {
        f"{_prefix(each, inspections)}{name}.csv": table.to_csv(index=False)
        for each in inspections
        for name, table in each.tables.items()
        if not table.empty
    }
    return {
        "inspect.html": html(inspections, list(together.values()), [list(group.values()) for group in apart], linked),
        **tables,
        **{f"{name}.png": each.png for name, each in figures.items() if each.png is not None},
        **{f"{name}.svg": each.svg for name, each in figures.items()},
    }


def _linked_tables(inspection: Inspection, prefix: str) -> list[tuple[str, str]]:
    """The names of the files of the tables, and what they hold."""
    return [
        (f"{prefix}{name}.csv", f"{_TABLES[name]}, {len(table):,} {'row' if len(table) == 1 else 'rows'}")
        for name, table in inspection.tables.items()
        if not table.empty
    ]


def _prefix(inspection: Inspection, inspections: Sequence[Inspection]) -> str:
    return "" if len(inspections) == 1 else f"{inspection.label.replace(' ', '-')}_"


def _comparing_plans(inspections: Sequence[Inspection]) -> dict[str, _Plan]:
    return {
        "positions": _Plan(
            partial(draw_positions, inspections),
            "Positional bias and attention",
            "Left: mean change of a key's logit by all positional parts, relative to the query's own position. Right: "
            "mean attention weight by lag.",
        ),
        "gaps": _Plan(
            partial(draw_gaps, inspections),
            "Weights by time gap",
            "Learned weights by the seconds between two items, means over groups or heads"
            + (_MEASURED if any(not each.gaps.empty for each in inspections) else "")
            + ".",
        ),
        "lag_profiles": _Plan(
            partial(draw_lag_profiles, inspections),
            "Weights by lag",
            "Mean over positions and groups. Lag 0 is left out; its share is in the table. C has "
            "lags of either sign: row minus column.",
        ),
    }


def _own_plans(inspection: Inspection) -> dict[str, _Plan]:
    maps = {
        f"attention_layer_{layer}": _Plan(
            partial(draw_attention, inspection, layer),
            f"Attention of layer {layer}",
            "Mean over histories and heads by length, newest position at the right and bottom. Without positions: "
            "the positional parts of this layer switched off. Attention · L: share of each position in the output. "
            "Square-root colour scale.",
            wide=inspection.attention["history"].nunique() > 2,
        )
        for layer in sorted(inspection.attention["layer"].unique())
    }
    return {
        "kernels": _Plan(
            partial(draw_kernels, inspection),
            "Kernels",
            "Position 0 is the oldest. The colour scale ends at the largest weight off the diagonal.",
        ),
        **maps,
        "evolution": _Plan(
            partial(draw_evolution, inspection),
            "Kernels over training",
            "Mean weight by lag after each saved epoch, without lag 0.",
        ),
    }


def _drawings(plans: dict[str, _Plan], prefix: str = "") -> dict[str, Drawing]:
    drawn = {
        f"{prefix}{name}": drawing(plan.draw, plan.title, plan.note, plan.wide, f"inspect {prefix}", with_png=True)
        for name, plan in plans.items()
    }
    return {name: each for name, each in drawn.items() if each is not None}


def html(
    inspections: Sequence[Inspection],
    together: Sequence[Drawing],
    apart: Sequence[Sequence[Drawing]],
    tables: Sequence[Sequence[tuple[str, str]]],
) -> str:
    """The report as one page without external resources; its tables, files beside it and what they hold, are linked."""
    alone = int(len(inspections) == 1)  # then no column names the model
    return render_page(
        Path(__file__).with_name("inspect.html.j2"),
        title=" and ".join(f"{each.label} on {dict(each.facts)['data set']}" for each in inspections),
        date=datetime.date.today().isoformat(),
        inspections=inspections,
        reach_header=["model", "kernel", "layer", "share of lag 0", "half-life", "mean lag", "lags with 90 %"][alone:],
        reach_rows=[row[alone:] for each in inspections for row in _reach_rows(each)],
        partition_header=["model", "items since", "bias", "odds"],
        partition_rows=[row for each in inspections for row in _partition_rows(each)],
        together=together,
        apart=apart,
        tables=tables,
        command=command_line(),
        origin=[("versions", ", ".join(f"{name} {version}" for name, version in versions().items()))],
    )


def _reach_rows(inspection: Inspection) -> list[list[Cell]]:
    return [
        [
            Cell(inspection.label, inspection.label),
            Cell(row["kernel"], row["kernel"]),
            number_cell(row["layer"], "{:.0f}"),
            *(number_cell(row[column], form) for column, form in _REACH_FORMATS.items()),
        ]
        for row in inspection.reach.to_dict("records")
    ]


def _partition_rows(inspection: Inspection) -> list[list[Cell]]:
    rows = []
    for first, last, bias in inspection.partition.itertuples(index=False):
        since = str(first) if first == last else f"{first}–{last}"
        label = Cell(inspection.label, inspection.label)
        rows.append([label, Cell(since, since), number_cell(bias, "{:z.2f}"), number_cell(math.exp(bias), "{:.3g}")])
    return rows


def partition_text(inspections: Sequence[Inspection]) -> str:
    """What the history partitions have learned as a table for a terminal; empty if there is none."""
    tables = [each.partition.assign(model=each.label) for each in labelled(inspections) if not each.partition.empty]
    if not tables:
        return ""
    return pd.concat(tables)[["model", "first_lag", "last_lag", "bias"]].to_string(
        index=False, float_format="{:.2f}".format
    )


def reach_text(inspections: Sequence[Inspection]) -> str:
    """The reach of all kernels as a table for a terminal; empty if there is none."""
    tables = [each.reach.assign(model=each.label) for each in labelled(inspections) if not each.reach.empty]
    if not tables:
        return ""
    table = pd.concat(tables)
    table = table[["model", *table.columns.drop("model")]]
    formatters = {column: form.format for column, form in _REACH_FORMATS.items()}
    return table.to_string(index=False, formatters=formatters, na_rep="–")
