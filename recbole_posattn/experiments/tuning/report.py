"""The result of a search as files: the settings, a table of all trials, and a page with figures."""

from __future__ import annotations

import math
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
from recbole_posattn.reporting.names import metric_title, setting_text, without_duplicate_metrics
from recbole_posattn.reporting.page import Cell, number_cell, render_page

BEST_NAME = "best.yaml"


class SearchResult(NamedTuple):
    """The result of a search.

    Attributes:
        model: Name of the model.
        dataset: Name of the data set.
        metric: ``valid_metric``, such as ``ndcg@10``.
        bigger: Whether higher is better.
        space: The search space.
        given: Settings that the user gave.
        fixed: All settings that were not searched.
        records: The trials, by number.
        best: The best finished trial.
        valid_result: The metrics of the best trial on the validation set.
        test_result: Its metrics on the test set.
        tested: The trials that were evaluated on the test set: the best one, after the best ones before the search was
            continued.
        command: The command line.
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
    tested: Sequence[int]
    command: str
    origin: Sequence[tuple[str, str]]

    @property
    def best_score(self) -> float:
        """The best validation score; NaN if there is none."""
        score = self.best.best(self.bigger)
        return math.nan if score is None else score


def report_files(result: SearchResult) -> dict[str, str | bytes]:
    """All files of a report by their names: ``best.yaml``, ``trials.csv``, ``report.html`` and its figures as PNG."""
    drawings = draw_search(result.records, result.space, result.fixed, result.metric, result.bigger)
    return {
        BEST_NAME: best_yaml(result),
        "trials.csv": trials_csv(result),
        "report.html": html(result, list(drawings.values())),
        **{f"{name}.png": each.png for name, each in drawings.items() if each.png is not None},
    }


def best_yaml(result: SearchResult) -> str:
    """The settings of the best trial, including the given ones, as a file for ``--config_files``."""
    head = [
        f"# The best of {len(result.records)} trials of {result.model} on {result.dataset}: "
        f"{result.metric} {result.best_score:.4f} on the validation set.",
        f"# {one_line(result.command)}",
    ]
    settings = {**result.given, **result.best.settings}
    return "\n".join(head) + "\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def trials_csv(result: SearchResult) -> str:
    """A row for each trial: number, state, best score and its epoch, last epoch, seconds, error, settings.

    Epochs are those with a validation.
    """
    rows = []
    for record in result.records:
        epochs = {score: epoch for epoch, score in reversed(record.curve)}
        best = record.best(result.bigger)
        rows.append(
            {
                "trial": record.number,
                "state": record.state,
                result.metric: best,
                "best_epoch": None if best is None else epochs.get(best),
                "last_epoch": record.curve[-1][0] if record.curve else 0,
                "seconds": record.seconds,
                "error": record.error,
                **record.settings,
            }
        )
    table = pd.DataFrame(rows)
    keys = [key for key in result.space.keys if key in table]
    table = table[[*(column for column in table if column not in keys), *keys]]
    return table.astype({"best_epoch": "Int64"}).to_csv(index=False)


def html(result: SearchResult, drawings: Sequence[Drawing]) -> str:
    """The search as one page without external resources."""
    states = [record.state for record in result.records]
    n_finished, n_pruned = states.count(FINISHED), states.count(PRUNED)
    return render_page(
        Path(__file__).with_name("tuning.html.j2"),
        title=f"Tuning of {result.model} on {result.dataset}",
        date=dict(result.origin).get("date", ""),
        result=result,
        score=f"{result.best_score:.4f}",
        counts=f"{n_finished} finished, {n_pruned} pruned, {n_failed(result.records)} failed",
        metric=metric_title(result.metric),
        best_settings=[(key, setting_text(value)) for key, value in result.best.settings.items()],
        results=_result_rows(result),
        header=_header(result),
        rows=_rows(result),
        failures=[f"trial {record.number}: {one_line(record.error)}" for record in result.records if record.error],
        drawings=drawings,
        command=result.command,
        origin=result.origin,
    )


def _result_rows(result: SearchResult) -> list[list[Cell]]:
    return [
        [
            Cell(metric_title(metric), metric),
            *(number_cell(split.get(metric), "{:.4f}") for split in (result.valid_result, result.test_result)),
        ]
        for metric in without_duplicate_metrics(
            list(result.valid_result),
            lambda one, other: all(
                split.get(one) == split.get(other) for split in (result.valid_result, result.test_result)
            ),
        )
    ]


def _header(result: SearchResult) -> list[str]:
    return ["trial", "state", metric_title(result.metric), "last validated epoch", "seconds", *result.space.keys]


def _rows(result: SearchResult) -> list[list[Cell]]:
    """All trials, the best first and those without a score last."""

    def place(record: TrialRecord) -> tuple[bool, float]:
        best = record.best(result.bigger)
        return best is None, 0.0 if best is None else -best if result.bigger else best

    return [
        [
            Cell(str(record.number), record.number),
            Cell(record.state, record.state),
            number_cell(record.best(result.bigger), "{:.4f}")._replace(best=record.number == result.best.number),
            number_cell(record.curve[-1][0] if record.curve else 0, "{:,.0f}"),
            number_cell(record.seconds, "{:,.1f}"),
            *(
                _setting(record.settings[key]) if key in record.settings else Cell("", None)
                for key in result.space.keys
            ),
        ]
        for record in sorted(result.records, key=place)
    ]


def _setting(value: Any) -> Cell:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number_cell(value, "{:.4g}")
    return Cell(setting_text(value), setting_text(value))
