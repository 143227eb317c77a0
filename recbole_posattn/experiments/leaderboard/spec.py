"""The definition of a leaderboard: models × data sets × protocols × seeds, from a YAML file or flags."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.experiments.trials import Trial
from recbole_posattn.settings.keys import RUN_NAMES, SAME_IN_ALL_ROWS
from recbole_posattn.settings.plugins import import_plugins, with_plugins
from recbole_posattn.settings.protocols import read_protocol
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
        plugins: Modules that register models, kernels, encodings and losses, for all runs.
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
    plugins: list[str]

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
        plugins = {"plugins": self.plugins} if self.plugins else {}
        named = {"dataset": dataset, "protocol": protocol}
        return {**self.settings, **self.models[name], **tuned, **plugins, **named}


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
    given = with_plugins(read_yaml(file) if file is not None else {}, flags)
    for key in given:
        if key not in Spec._fields:
            raise SettingError(f"{where}: key {key!r} is unknown.{did_you_mean(key, Spec._fields)}")
    if not given.get("models"):
        raise SettingError(f"{where}: no models; name some with --models=PosKernelSASRec,SASRec or in a file.")
    models = _rows(given["models"], where)
    reference = given.get("reference") or next(iter(models))
    if reference not in models:
        raise SettingError(f"{where}: reference must be one of {', '.join(models)}; got {reference!r}.")
    shared = _mapping(given.get("settings"), f"{where}: settings")
    for of_all in (shared, settings):
        _check_keys(of_all, RUN_NAMES, f"{where}: settings of all runs")
    tuned = _tuned(given.get("tuned"), models, where)
    all_rows = [*models.values(), *(row for rows in tuned.values() for row in rows.values())]
    plugins = with_plugins(given, shared, settings, *all_rows).get("plugins", [])
    import_plugins(plugins)
    spec = Spec(
        models={name: {**row, **settings} for name, row in models.items()},
        datasets=_list(given.get("datasets", ["ml-100k"]), str, f"{where}: datasets"),
        protocols=_list(given.get("protocols", ["leave_one_out"]), str, f"{where}: protocols"),
        seeds=_seeds(given.get("seeds", 3), where),
        reference=reference,
        settings=shared,
        tuned={dataset: {row: {**own, **settings} for row, own in rows.items()} for dataset, rows in tuned.items()},
        not_run=_mapping(given.get("not_run"), f"{where}: not_run"),
        published=_published(given.get("published"), f"{where}: published"),
        notes=_list(given["notes"], str, f"{where}: notes") if given.get("notes") else [],
        plugins=plugins,
    )
    for row in spec.models.values():
        find_model(row["model"])
    for protocol in spec.protocols:
        read_protocol(protocol)
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
            _check_keys(rows[full_name], SAME_IN_ALL_ROWS, f"{where}: models: {full_name}")
    return rows


def _check_keys(settings: Mapping[str, Any], same: set[str], what: str) -> None:
    """Refuse keys whose values a leaderboard sets itself for each run, or that must be the same in all rows."""
    for key in sorted(same & settings.keys()):
        instead = f"{key}s" if key in RUN_NAMES else "settings or a protocol"
        why = "is set by the leaderboard itself" if key in RUN_NAMES else "must be the same in all rows"
        raise SettingError(f"{what}: {key} {why}; give it under {instead}.")


def _tuned(given: Any, models: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings by data set and row."""
    tuned: dict[str, dict[str, dict[str, Any]]] = {}
    for dataset, rows in _mapping(given, f"{where}: tuned").items():
        tuned[dataset] = {}
        for row, of_row in _mapping(rows, f"{where}: tuned: {dataset}").items():
            if row not in models:
                raise SettingError(f"{where}: tuned: {dataset} has {row!r}, which is not one of the models.")
            tuned[dataset][row] = _tuned_row(of_row, models[row], f"{where}: tuned: {dataset}: {row}")
    return tuned


def _tuned_row(of_row: Any, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings as a mapping, or from a file such as the ``best.yaml`` of a search, without those of its evaluation."""
    if not isinstance(of_row, str):
        settings = _mapping(of_row, where)
        _check_keys(settings, SAME_IN_ALL_ROWS, where)
        return settings
    settings = read_yaml(of_row)
    if settings.get("model", row["model"]) != row["model"]:
        raise SettingError(f"{where}: {of_row} is of the model {settings['model']}, and the row of {row['model']}.")
    return {key: value for key, value in settings.items() if key not in SAME_IN_ALL_ROWS}


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
