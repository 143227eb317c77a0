"""The definition of a leaderboard: models × data sets × protocols × seeds, from a YAML file or flags."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.experiments.trials import Trial
from recbole_posattn.settings.properties import named_file
from recbole_posattn.settings.registry import find_model
from recbole_posattn.settings.yaml import read_yaml

FIRST_SEED = 2020  # RecBole's default
MOST_SEEDS = 10_000


class Published(NamedTuple):
    """A result that others published, shown in its own table.

    Attributes:
        model: Name of the model in the source.
        dataset: The data set; figures of another version of it are not comparable.
        protocol: The evaluation protocol, in words or as the name of one of our protocols.
        source: Reference of the publication.
        metrics: Values by metric, such as ``ndcg@10``.
    """

    model: str
    dataset: str
    protocol: str
    source: str
    metrics: dict[str, float]


class Spec(NamedTuple):
    """The definition of a leaderboard.

    Attributes:
        models: Settings of each row by its name, including ``model``.
        datasets: Names of data sets.
        protocols: Names of ``properties/protocol/``, or YAML files.
        seeds: Each seed is one run.
        reference: The row that all others are tested against.
        settings: Settings of all runs; those of a row override them.
        tuned: Settings by data set and row, which override the row's; in a file also the path of a ``best.yaml``.
        not_run: Models that were left out and the reasons, for the report.
        published: Results that others published.
        notes: Further notes for the report.
    """

    models: dict[str, dict[str, Any]]
    datasets: list[str]
    protocols: list[str]
    seeds: list[int]
    reference: str
    settings: dict[str, Any]
    tuned: dict[str, dict[str, dict[str, Any]]]
    not_run: dict[str, str]
    published: list[Published]
    notes: list[str]

    def trials(
        self, dataset: str, protocol: str, winners: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Trial]:
        """The runs of one data set under one protocol; ``winners`` are settings by row that override all others."""
        return [
            Trial(name, {**self.row(name, dataset, protocol), **(winners or {}).get(name, {}), "seed": seed})
            for name in self.models
            for seed in self.seeds
        ]

    def row(self, name: str, dataset: str, protocol: str) -> dict[str, Any]:
        """The settings of a row on one data set under one protocol, without the seed."""
        tuned = self.tuned.get(dataset, {}).get(name, {})
        return {**self.settings, **self.models[name], **tuned, "dataset": dataset, "protocol": protocol}


def read_spec(file: str | Path | None, flags: Mapping[str, Any], settings: Mapping[str, Any]) -> Spec:
    """Read the definition of a leaderboard from a file and the command line, which overrides the file.

    Args:
        file: YAML with the keys of :class:`Spec`, or ``None`` for flags alone.
        flags: The same keys from the command line; ``models`` as a list of model names.
        settings: ``--key=value`` of the command line, for all runs; they override all other settings.

    Raises:
        SettingError: If a key or value is invalid.
    """
    where = f"leaderboard {file}" if file is not None else "leaderboard"
    given = {**(read_yaml(file) if file is not None else {}), **flags}
    for key in given:
        if key not in Spec._fields:
            raise SettingError(f"{where}: key {key!r} is unknown.{did_you_mean(key, Spec._fields)}")
    if not given.get("models"):
        raise SettingError(f"{where}: no models; name some with --models=PosKernelSASRec,SASRec or in a file.")
    models = _rows(given["models"], where)
    reference = given.get("reference") or next(iter(models))
    if reference not in models:
        raise SettingError(f"{where}: reference must be one of {', '.join(models)}; got {reference!r}.")
    tuned = {
        dataset: {row: {**_tuned_row(of_row, f"{where}: tuned"), **settings} for row, of_row in rows.items()}
        for dataset, rows in _mapping(given.get("tuned"), f"{where}: tuned").items()
    }
    for dataset, rows in tuned.items():
        for row in rows:
            if row not in models:
                raise SettingError(f"{where}: tuned: {dataset} has {row!r}, which is not one of the models.")
    spec = Spec(
        models={name: {**row, **settings} for name, row in models.items()},
        datasets=_list(given.get("datasets", ["ml-100k"]), str, f"{where}: datasets"),
        protocols=_list(given.get("protocols", ["leave_one_out"]), str, f"{where}: protocols"),
        seeds=_seeds(given.get("seeds", 3), where),
        reference=reference,
        settings=_mapping(given.get("settings"), f"{where}: settings"),
        tuned=tuned,
        not_run=_mapping(given.get("not_run"), f"{where}: not_run"),
        published=_published(given.get("published"), f"{where}: published"),
        notes=_list(given["notes"], str, f"{where}: notes") if given.get("notes") else [],
    )
    for row in spec.models.values():
        find_model(row["model"])
    for protocol in spec.protocols:
        named_file("protocol", protocol)
    return spec


def _rows(models: Any, where: str) -> dict[str, dict[str, Any]]:
    """Settings by row; ``models`` is a list of model names, or a mapping of rows to model names or settings."""
    if isinstance(models, (list, tuple)):
        models = {name: name for name in models}
    rows: dict[str, dict[str, Any]] = {}
    for name, row in _mapping(models, f"{where}: models").items():
        row = {"model": row} if isinstance(row, str) else _mapping(row, f"{where}: models: {name}")
        if not isinstance(row.get("model", name), str):
            raise SettingError(f"{where}: models: {name}: model must be a name; got {row['model']!r}.")
        grid = _mapping(row.pop("grid", None), f"{where}: models: {name}: grid")
        for values in itertools.product(*(_list(choices, object, f"{where}: grid") for choices in grid.values())):
            chosen = dict(zip(grid, values))
            full_name = ", ".join([str(name), *map(str, values)])
            rows[full_name] = {"model": str(name), **row, **chosen}
    return rows


def _tuned_row(of_row: Any, where: str) -> dict[str, Any]:
    """Settings as a mapping, or from a file such as the ``best.yaml`` of a search."""
    return read_yaml(of_row) if isinstance(of_row, str) else _mapping(of_row, where)


def _published(entries: Any, where: str) -> list[Published]:
    published = []
    for entry in _list(entries, object, where) if entries else []:
        entry = _mapping(entry, where)
        texts = set(Published._fields) - {"metrics"}
        figures = _mapping(entry.get("metrics"), f"{where}: metrics")
        if (
            set(entry) != set(Published._fields)
            or not all(isinstance(entry[key], str) for key in texts)
            or not figures
            or not all(type(figure) in (int, float) for figure in figures.values())
        ):
            raise SettingError(
                f"{where}: each must have the texts model, dataset, protocol and source, and metrics, a mapping of "
                f"names such as ndcg@10 to numbers; got {entry!r}."
            )
        published.append(Published(**entry))
    return published


def _seeds(seeds: Any, where: str) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        if seeds > MOST_SEEDS:
            raise SettingError(f"{where}: seeds must be at most {MOST_SEEDS:,}; got {shown(seeds)}.")
        return [FIRST_SEED + nth for nth in range(seeds)]
    listed = _list(seeds, int, f"{where}: seeds") if isinstance(seeds, (list, tuple)) else []
    if not listed or len(set(listed)) < len(listed):
        raise SettingError(f"{where}: seeds must be their number or a list of different integers; got {shown(seeds)}.")
    return listed


def _list(values: Any, kind: type, where: str) -> list[Any]:
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, Sequence) or not values or not all(isinstance(value, kind) for value in values):
        raise SettingError(f"{where} must be a list; got {values!r}.")
    return list(values)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SettingError(f"{where} must be a mapping of keys to values; got {value!r}.")
    return dict(value)
