"""Figures that others published: from a leaderboard's definition, or from files of results such as RecBoard's."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, shown

_TEXTS = ("model", "dataset", "protocol", "source")

_BY_METRIC = ("metrics", "deviations")

# How RecBoard names metrics, and RecBole.
_METRICS = {"hitrate": "hit"}


class Published(NamedTuple):
    """A result that others published, shown in its own table.

    Attributes:
        model: Name of the model in the source.
        dataset: The data set; figures of another version of it are not comparable.
        protocol: The evaluation protocol, in words or as the name of one of our protocols.
        source: Reference of the publication.
        metrics: Values by metric, such as ``ndcg@10``; means over seeds where there are several.
        deviations: Standard deviations over seeds by metric, where they are known.
        seeds: The number of seeds; ``None`` if unknown.
    """

    model: str
    dataset: str
    protocol: str
    source: str
    metrics: dict[str, float]
    deviations: dict[str, float] = {}  # noqa: RUF012 - never changed
    seeds: int | None = None


def read_published(entries: Any, where: str) -> list[Published]:
    """The key ``published`` of a leaderboard's definition.

    Args:
        entries: A list of mappings with the fields of :class:`Published`, and of names of files for
            :func:`recboard_file`; or one such name.
        where: How messages name the key.

    Raises:
        SettingError: If an entry is invalid or a file cannot be read.
    """
    entries = [entries] if isinstance(entries, str) else entries or []
    if not isinstance(entries, Sequence):
        raise SettingError(f"{where} must be a list of figures and names of files; got {shown(entries)}.")
    published: list[Published] = []
    for entry in entries:
        if isinstance(entry, str):
            published += recboard_file(Path(entry))
        else:
            published.append(_entry(entry, where))
    return published


def _entry(entry: Any, where: str) -> Published:
    if not isinstance(entry, Mapping):
        raise SettingError(f"{where}: each must be a mapping of keys to values or the name of a file; got {entry!r}.")
    required = {*_TEXTS, "metrics"}
    figures, deviations = entry.get("metrics"), entry.get("deviations", {})
    if (
        not required <= set(entry) <= set(Published._fields)
        or not all(isinstance(entry[key], str) for key in _TEXTS)
        or not (_are_figures(figures) and figures)
        or not (_are_figures(deviations) and set(map(_metric, deviations)) <= set(map(_metric, figures)))
        or not (entry.get("seeds") is None or (type(entry["seeds"]) is int and entry["seeds"] >= 1))
    ):
        raise SettingError(
            f"{where}: each must have the strings model, dataset, protocol and source, and metrics, a mapping of names "
            f"such as ndcg@10 to numbers, and may have deviations (a mapping like metrics) and seeds (their number); "
            f"got "
            f"{entry!r}."
        )
    _check_metrics(figures, where)
    by_metric = {field: {_metric(name): value for name, value in entry.get(field, {}).items()} for field in _BY_METRIC}
    return Published(**{**entry, **by_metric})


def _check_metrics(figures: Mapping[str, Any], where: str) -> None:
    if len({_metric(name) for name in figures}) < len(figures):
        raise SettingError(f"{where}: metrics has a metric twice: {', '.join(figures)}.")


def _are_figures(figures: Any) -> bool:
    return isinstance(figures, Mapping) and all(
        isinstance(name, str) and type(figure) in (int, float) and math.isfinite(figure)
        for name, figure in figures.items()
    )


def recboard_file(file: Path) -> list[Published]:
    """The results of a model in RecBoard's format, with the mean and the spread over the seeds of each entry.

    The file is a list of entries with ``dataset``, ``tags``, ``description``, ``config`` and ``runs``, each run with
    ``params`` and ``metrics``. Taken is ``test``, the result at the best validation epoch, and never ``best``, the best
    result on the test set over all epochs. The model is the name of the file. The source names metrics that only some
    runs of an entry have; they are left out.

    Raises:
        SettingError: If the file cannot be read or has another format.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"published file {file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingError(f"published file {file} is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise SettingError(f"published file {file} must be a list of entries with dataset and runs, as RecBoard's.")
    return [_recboard_entry(entry, file, number) for number, entry in enumerate(entries, start=1)]


def _recboard_entry(entry: Any, file: Path, number: int) -> Published:
    where = f"published file {file}, entry {number}"
    runs = entry.get("runs") if isinstance(entry, Mapping) else None
    if not isinstance(runs, list) or not runs or not isinstance(entry.get("dataset"), str):
        raise SettingError(f"{where} must have a dataset and a list of runs, as RecBoard's have.")
    tests, seeds = [], []
    for run in runs:
        metrics = run.get("metrics") if isinstance(run, Mapping) else None
        test = metrics.get("test") if isinstance(metrics, Mapping) else None
        if not _are_figures(test) or not test:
            raise SettingError(f"{where}: each run must have metrics with test, a mapping of names to numbers.")
        _check_metrics(test, where)
        tests.append({_metric(name): float(value) for name, value in test.items()})
        params = run.get("params")
        seeds.append(params.get("seed") if isinstance(params, Mapping) else None)
    shared = [name for name in tests[0] if all(name in test for test in tests)]
    if not shared:
        raise SettingError(f"{where}: its runs have no metric in common.")
    repeated = [seed for seed, count in Counter(map(str, seeds)).items() if count > 1 and seed != "None"]
    if repeated:
        raise SettingError(f"{where} has several runs with seed {repeated[0]}; keep one of them.")
    values = {name: [test[name] for test in tests] for name in shared}
    description, tags = entry.get("description"), entry.get("tags")
    notes = [str(tag) for tag in tags] if isinstance(tags, list) else []
    incomplete = sorted({name for test in tests for name in test}.difference(shared))
    if incomplete:
        notes.append(f"some runs lack {', '.join(incomplete)}")
    return Published(
        model=f"{file.stem} ({description})" if description else file.stem,
        dataset=entry["dataset"],
        protocol=_protocol(entry),
        source=", ".join(["RecBoard", *notes]),
        metrics={name: statistics.fmean(of_seeds) for name, of_seeds in values.items()},
        deviations={name: statistics.stdev(of_seeds) for name, of_seeds in values.items()} if len(tests) > 1 else {},
        seeds=len(tests),
    )


def _metric(name: str) -> str:
    kind, at, k = name.lower().partition("@")
    return f"{_METRICS.get(kind, kind)}{at}{k}"


def _protocol(entry: Mapping[str, Any]) -> str:
    """The protocol in words, as far as RecBoard's entry says it; its data sets end in the name of their split."""
    config = entry.get("config")
    retain = config.get("retain_seen") if isinstance(config, Mapping) else None
    split = entry["dataset"].rpartition("_")[2]
    parts = ["leave-one-out" if split == "LOU" else f"split {split}"]
    if isinstance(retain, bool):
        parts.append("history not masked" if retain else "history masked")
    return "; ".join(parts)
