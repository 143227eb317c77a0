"""What a search found, as files: the settings, a table of all trials, and a page with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from recbole_posattn.errors import one_line
from recbole_posattn.experiments.tuning.figures import draw_search
from recbole_posattn.experiments.tuning.records import FINISHED, PRUNED, TrialRecord, n_failed
from recbole_posattn.experiments.tuning.space import Space
from recbole_posattn.reporting.drawing import Drawing
from recbole_posattn.reporting.page import Cell, number_cell, render_page

BEST_NAME = "best.yaml"


class SearchResult(NamedTuple):
    """A search that has ended.

    Attributes:
        model: Name of the model.
        dataset: Name of the data set.
        metric: The one that was watched, such as ``ndcg@10``.
        bigger: Whether more of it is better.
        space: What was searched.
        given: Settings that were given, and not searched.
        fixed: All settings that were not searched.
        records: The trials, by number.
        best: The best of the finished ones.
        valid_result: Its metrics on the validation set.
        test_result: Its metrics on the test set, the only ones that there are.
        command: What was typed.
        origin: Date, versions and the like.
    """

    model: str
    dataset: str
    metric: str
    bigger: bool
    space: Space
    given: Mapping[str, Any]
    fixed: Mapping[str, Any]
    records: Sequence[TrialRecord]
    best: TrialRecord
    valid_result: Mapping[str, float]
    test_result: Mapping[str, float]
    command: str
    origin: Sequence[tuple[str, str]]


def report_files(found: SearchResult) -> dict[str, str | bytes]:
    """All files of a report by their names: ``best.yaml``, ``trials.csv``, ``report.html`` and its figures as PNG."""
    drawings = draw_search(found.records, found.space, found.fixed, found.metric, found.bigger)
    return {
        BEST_NAME: best_yaml(found),
        "trials.csv": trials_csv(found),
        "report.html": html(found, list(drawings.values())),
        **{f"{name}.png": each.png for name, each in drawings.items() if each.png is not None},
    }


def best_yaml(found: SearchResult) -> str:
    """The settings of the best trial, those that were given included, as ``--config_files`` takes them."""
    head = [
        f"# The best of {len(found.records)} trials of {found.model} on {found.dataset}: "
        f"{found.metric} {found.best.best(found.bigger):.4f} on the validation set.",
        f"# {one_line(found.command)}",
    ]
    settings = {**found.given, **found.best.settings}
    return "\n".join(head) + "\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def trials_csv(found: SearchResult) -> str:
    """A row for each trial: number, state, best score and its epoch, epochs, seconds, error, then its settings."""
    rows = []
    for record in found.records:
        epochs = {score: epoch for epoch, score in reversed(record.curve)}
        best = record.best(found.bigger)
        rows.append(
            {
                "trial": record.number,
                "state": record.state,
                found.metric: best,
                "best_epoch": epochs.get(best),
                "epochs": record.curve[-1][0] if record.curve else 0,
                "seconds": record.seconds,
                "error": record.error,
                **record.settings,
            }
        )
    table = pd.DataFrame(rows)
    keys = [key for key in found.space.keys if key in table]
    table = table[[*(column for column in table if column not in keys), *keys]]
    return table.astype({"best_epoch": "Int64"}).to_csv(index=False)


def html(found: SearchResult, drawings: Sequence[Drawing]) -> str:
    """The search as one page that loads nothing."""
    states = [record.state for record in found.records]
    n_finished, n_pruned = states.count(FINISHED), states.count(PRUNED)
    return render_page(
        Path(__file__).with_name("tuning.html.j2"),
        title=f"Tuning of {found.model} on {found.dataset}",
        date=dict(found.origin).get("date", ""),
        found=found,
        score=f"{found.best.best(found.bigger):.4f}",
        counts=f"{n_finished} finished, {n_pruned} were stopped early, {n_failed(found.records)} failed",
        best_settings=[(key, str(value)) for key, value in found.best.settings.items()],
        results=_result_rows(found),
        header=_header(found),
        rows=_rows(found),
        failures=[f"trial {record.number}: {one_line(record.error)}" for record in found.records if record.error],
        drawings=drawings,
        command=found.command,
        origin=found.origin,
    )


def _result_rows(found: SearchResult) -> list[list[Cell]]:
    return [
        [
            Cell(metric, metric),
            *(number_cell(result.get(metric), "{:.4f}") for result in (found.valid_result, found.test_result)),
        ]
        for metric in found.valid_result
    ]


def _header(found: SearchResult) -> list[str]:
    return ["trial", "state", found.metric, "epochs", "seconds", *found.space.keys]


def _rows(found: SearchResult) -> list[list[Cell]]:
    """All trials, the best first and those without a score last."""

    def place(record: TrialRecord) -> tuple[bool, float]:
        best = record.best(found.bigger)
        return best is None, 0.0 if best is None else -best if found.bigger else best

    return [
        [
            Cell(str(record.number), record.number),
            Cell(record.state, record.state),
            number_cell(record.best(found.bigger), "{:.4f}")._replace(best=record.number == found.best.number),
            number_cell(record.curve[-1][0] if record.curve else 0, "{:,.0f}"),
            number_cell(record.seconds, "{:,.1f}"),
            *(_setting(record.settings[key]) if key in record.settings else Cell("", None) for key in found.space.keys),
        ]
        for record in sorted(found.records, key=place)
    ]


def _setting(value: Any) -> Cell:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_cell(value, "{:.4g}")
    return Cell(str(value), str(value))
