"""The definition of a leaderboard: models × data sets × protocols × seeds, from a YAML file or flags."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError, did_you_mean, shown, typed
from recbole_posattn.experiments.leaderboard.published import Published, read_published
from recbole_posattn.experiments.trials import Trial
from recbole_posattn.reporting.names import setting_text
from recbole_posattn.settings.keys import RUN_NAMES, SAME_IN_ALL_ROWS
from recbole_posattn.settings.plugins import import_plugins, with_plugins
from recbole_posattn.settings.properties import named_file
from recbole_posattn.settings.protocols import read_protocol
from recbole_posattn.settings.registry import find_model
from recbole_posattn.settings.yaml import read_yaml

FIRST_SEED = 2020  # RecBole's default
MOST_SEEDS = 1_000


class Spec(NamedTuple):
    """The definition of a leaderboard.

    Attributes:
        models: Settings of each row by its name, including ``model``.
        datasets: Names of data sets.
        protocols: Names of ``properties/protocol/``, or YAML files.
        seeds: Each seed is one run.
        seeds_of_rows: Those of the rows that have their own.
        reference: The row that all others are tested against.
        settings: Settings of all runs; those of a row override them.
        tuned: Settings by data set and row, which override the row's; in a file also the path of a ``best.yaml``.
        priority: Rows and seeds whose runs are started first, in this order.
        not_run: Models that were left out and the reasons, for the report.
        published: Results that others published.
        notes: Further notes for the report.
        plugins: Modules that register models, kernels, encodings and losses, for all runs.
    """

    models: dict[str, dict[str, Any]]
    datasets: list[str]
    protocols: list[str]
    seeds: list[int]
    seeds_of_rows: dict[str, list[int]]
    reference: str
    settings: dict[str, Any]
    tuned: dict[str, dict[str, dict[str, Any]]]
    priority: list[str | int]
    not_run: dict[str, str]
    published: list[Published]
    notes: list[str]
    plugins: list[str]

    def trials(
        self, dataset: str, protocol: str, winners: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[Trial]:
        """The runs of one data set under one protocol, in the order in which they are started.

        Those of :attr:`priority` come first, then the first seed of every row, then the second ones.

        Args:
            dataset: Name of the data set.
            protocol: The protocol.
            winners: Settings by row that override all others.
        """
        places = {entry: place for place, entry in enumerate(self.priority)}
        last = len(places)
        own = {name: self.seeds_of_rows.get(name, self.seeds) for name in self.models}
        most = max(map(len, own.values()))
        runs = [(own[name][nth], name) for nth in range(most) for name in self.models if nth < len(own[name])]
        runs.sort(key=lambda run: min(places.get(run[0], last), places.get(run[1], last)))
        return [
            Trial(name, {**self.row(name, dataset, protocol), **(winners or {}).get(name, {}), "seed": seed})
            for seed, name in runs
        ]

    def row(self, name: str, dataset: str, protocol: str) -> dict[str, Any]:
        """The settings of a row on one data set under one protocol, without the seed."""
        tuned = self.tuned.get(dataset, {}).get(name, {})
        plugins = {"plugins": self.plugins} if self.plugins else {}
        named = {"dataset": dataset, "protocol": protocol}
        return {**self.settings, **self.models[name], **tuned, **plugins, **named}

    def protocol_changes(self, dataset: str, protocol: str) -> list[str]:
        """The keys of the protocol that settings of all runs override, each in words for the report."""
        given, changes = self.row(next(iter(self.models)), dataset, protocol), []
        for key, value in read_protocol(protocol).items():
            got = given.get(key, value)
            if key == "eval_args" and isinstance(got, dict):  # a run merges the parts that are given
                value = {part: value.get(part) for part in got if value.get(part) != got[part]}
                got = {part: got[part] for part in value}
            if got != value:
                changes.append(f"{key} {setting_text(got)} instead of the protocol's {setting_text(value)}")
        return changes


def title_of_board(dataset: str, protocol: str) -> str:
    """How reports name a board: its data set, and its protocol without the folder and suffix of a file."""
    return f"{dataset}, {Path(protocol).stem}"


def read_spec(file: str | Path | None, flags: Mapping[str, Any], settings: Mapping[str, Any]) -> Spec:
    """Read the definition of a leaderboard from a file and the command line, which overrides the file.

    Published figures of the command line are added to those of the file.

    Args:
        file: YAML with the keys of :class:`Spec`, or ``None`` for flags alone.
        flags: The same keys from the command line; ``models`` as a list of rows of the file, which keep their settings,
            and of model names.
        settings: ``--key=value`` of the command line, for all runs; they override all other settings.

    Raises:
        SettingError: If a key or value is invalid.
    """
    where = f"leaderboard {file}" if file is not None else "leaderboard"
    in_file = read_yaml(file) if file is not None else {}
    given = with_plugins(in_file, flags)
    _check_known(given, where)
    if not given.get("models"):
        raise SettingError(f"{where}: no models; name some with --models=PosKernelSASRec,SASRec or in a file.")
    models, all_rows = _models(given["models"], in_file.get("models"), where)
    seeds = _seeds(given.get("seeds", 3), f"{where}: seeds")
    of_rows = _seeds_of_rows(models, seeds, where)
    # A flag may leave out rows, seeds and data sets that other entries of the file name.
    all_seeds = {*seeds, *_seeds(in_file.get("seeds", 3), f"{where}: seeds"), *itertools.chain(*of_rows.values())}
    of_rows = {} if "seeds" in flags else of_rows
    named = next(iter(models)) if given.get("reference") is None else given["reference"]
    if str(named) not in (models if "reference" in flags else all_rows):
        raise SettingError(f"{where}: reference must be one of {', '.join(models)}; got {named!r}.")
    reference = str(named) if str(named) in models else next(iter(models))
    datasets = _list(given.get("datasets", ["ml-100k"]), str, f"{where}: datasets")
    shared = _mapping(given.get("settings"), f"{where}: settings")
    for of_all in (shared, settings):
        _check_keys(of_all, RUN_NAMES, f"{where}: settings of all runs")
    all_datasets = {*datasets, *_list(in_file.get("datasets") or datasets, str, f"{where}: datasets")}
    tuned = _tuned(given.get("tuned"), all_rows, all_datasets, where)
    settings_of_rows = [*models.values(), *(row for rows in tuned.values() for row in rows.values())]
    plugins = with_plugins(given, shared, settings, *settings_of_rows).get("plugins", [])
    import_plugins(plugins)
    spec = Spec(
        models={name: {**row, **settings} for name, row in models.items()},
        datasets=datasets,
        protocols=_list(given.get("protocols", ["leave_one_out"]), str, f"{where}: protocols"),
        seeds=seeds,
        seeds_of_rows=of_rows,
        reference=reference,
        settings=shared,
        tuned={dataset: {row: {**own, **settings} for row, own in rows.items()} for dataset, rows in tuned.items()},
        priority=_priority(given.get("priority"), all_rows, all_seeds, where),
        not_run=_mapping(given.get("not_run"), f"{where}: not_run"),
        published=[
            *read_published(in_file.get("published"), f"{where}: published"),
            *read_published(flags.get("published"), "published"),
        ],
        notes=_list(given["notes"], str, f"{where}: notes") if given.get("notes") else [],
        plugins=plugins,
    )
    _check_names(spec, where)
    _check_protocols(spec, where)
    return spec


def _check_names(spec: Spec, where: str) -> None:
    """Refuse unknown models, and boards of one name."""
    for row in spec.models.values():
        find_model(row["model"])
    for kind, names in (("protocols", [Path(each).stem for each in spec.protocols]), ("datasets", spec.datasets)):
        if twice := [name for name in names if names.count(name) > 1]:
            raise SettingError(f"{where}: two {kind} have the name {twice[0]!r}; leave one out, or rename it.")


def _check_protocols(spec: Spec, where: str) -> None:
    """Refuse unknown protocols, and presets of rows that change the evaluation of a protocol."""
    # The preset's keys that every protocol sets have no effect.
    in_all = set.intersection(*({*read_protocol(protocol)} for protocol in spec.protocols))
    of_tuned = ((name, row) for rows in spec.tuned.values() for name, row in rows.items())
    for name, row in (*spec.models.items(), *of_tuned):
        if row.get("preset") is not None:
            preset = read_yaml(named_file("preset", str(row["preset"])))
            stronger = {*in_all, *spec.settings, *row}
            _check_keys(preset, SAME_IN_ALL_ROWS - stronger, f"{where}: models: {name}: preset {row['preset']}")
        shared = spec.settings.get("preset")
        if shared is not None and row.get("preset", shared) != shared:
            preset = read_yaml(named_file("preset", str(shared)))
            what = f"{where}: models: {name}: preset {typed(row['preset'])} instead of {shared}"
            _check_keys(preset, SAME_IN_ALL_ROWS - {*in_all, *spec.settings}, what)


def _check_known(given: Mapping[str, Any], where: str) -> None:
    """Refuse keys that a leaderboard does not have."""
    keys = [field for field in Spec._fields if field != "seeds_of_rows"]
    for key in given:
        if key not in keys:
            raise SettingError(f"{where}: key {key!r} is unknown.{did_you_mean(key, keys)}")


def _models(given: Any, in_file: Any, where: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The chosen rows, and these with all rows of the file; chosen rows of the file keep their settings from there."""
    of_file = _rows(in_file or {}, where)
    if isinstance(in_file, Mapping) and isinstance(given, (list, tuple)):  # a name may stand for the rows of a grid
        grids = {str(name): list(_rows({name: row}, where)) for name, row in in_file.items()}
        given = [row for name in given for row in grids.get(str(name), [name])]
    models = {name: dict(of_file.get(name, row)) for name, row in _rows(given, where).items()}
    return models, {**of_file, **models}


def _rows(models: Any, where: str) -> dict[str, dict[str, Any]]:
    """Settings by row; ``models`` is a list of model names, or a mapping of rows to model names or settings."""
    if isinstance(models, (list, tuple)):
        models = _list(models, str, f"{where}: models")
        if twice := [name for name in models if models.count(name) > 1]:
            raise SettingError(f"{where}: models has {twice[0]!r} twice; leave one out, or name the rows.")
        models = {name: name for name in models}
    rows: dict[str, dict[str, Any]] = {}
    for name, row in _mapping(models, f"{where}: models").items():
        row = {"model": row} if isinstance(row, str) else _mapping(row, f"{where}: models: {name}")
        if not isinstance(row.get("model", ""), str):
            raise SettingError(f"{where}: models: {name}: model must be a name; got {row['model']!r}.")
        grid = _mapping(row.pop("grid", None), f"{where}: models: {name}: grid")
        for values in itertools.product(*(_list(choices, object, f"{where}: grid") for choices in grid.values())):
            chosen = dict(zip(grid, values))
            full_name = ", ".join([str(name), *map(str, values)])
            if full_name in rows:
                raise SettingError(f"{where}: models: two rows have the name {full_name!r}; rename one.")
            rows[full_name] = {"model": str(name), **row, **chosen}
            _check_keys(rows[full_name], SAME_IN_ALL_ROWS, f"{where}: models: {full_name}")
    return rows


def _check_keys(settings: Mapping[str, Any], same: set[str], what: str) -> None:
    """Refuse keys whose values a leaderboard sets itself for each run, or that must be the same in all rows."""
    for key in sorted(same & settings.keys()):
        instead = f"{key}s" if key in RUN_NAMES else "settings or a protocol"
        why = "is set by the leaderboard itself" if key in RUN_NAMES else "must be the same in all rows"
        raise SettingError(f"{what}: {key} {why}; give it under {instead}.")


def _tuned(
    given: Any, models: Mapping[str, Mapping[str, Any]], datasets: Collection[str], where: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings by data set and row."""
    tuned: dict[str, dict[str, dict[str, Any]]] = {}
    for name, rows in _mapping(given, f"{where}: tuned").items():
        dataset = str(name)  # YAML reads a name such as 2024 as a number
        if dataset not in datasets:
            raise SettingError(
                f"{where}: tuned has {dataset!r}, which is not one of the data sets ({', '.join(sorted(datasets))})."
            )
        tuned[dataset] = {}
        for row, of_row in _mapping(rows, f"{where}: tuned: {dataset}").items():
            row = str(row)  # YAML reads a name such as 1 as a number
            if row not in models:
                raise SettingError(f"{where}: tuned: {dataset} has {row!r}, which is not one of the models.")
            tuned[dataset][row] = _tuned_row(of_row, models[row], f"{where}: tuned: {dataset}: {row}")
    return tuned


def _tuned_row(of_row: Any, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings as a mapping, or from a file such as the ``best.yaml`` of a search, without those of its evaluation."""
    settings = read_yaml(of_row) if isinstance(of_row, str) else _mapping(of_row, where)
    if settings.get("model", row["model"]) != row["model"]:
        file = f"{of_row} is of" if isinstance(of_row, str) else "it has"
        raise SettingError(f"{where}: {file} the model {settings['model']}, and the row has {row['model']}.")
    if strange := sorted({"grid", "seeds"} & settings.keys()):
        raise SettingError(f"{where}: {strange[0]} is for rows; give it under models.")
    if not isinstance(of_row, str):
        _check_keys(settings, SAME_IN_ALL_ROWS, where)
        return settings
    return {key: value for key, value in settings.items() if key not in SAME_IN_ALL_ROWS}


def _priority(entries: Any, rows: Iterable[str], seeds: Iterable[int], where: str) -> list[str | int]:
    entries = _list(entries, object, f"{where}: priority") if entries else []
    allowed = [*rows, *sorted(seeds)]
    entries = [entry if entry in allowed else str(entry) for entry in entries]  # YAML reads a row named 1 as a number
    for entry in entries:
        if entry not in allowed:
            raise SettingError(
                f"{where}: priority must be a list of rows and seeds ({', '.join(map(str, allowed))}); got {entry!r}."
            )
    return entries


def _seeds_of_rows(rows: Mapping[str, dict[str, Any]], seeds: Sequence[int], where: str) -> dict[str, list[int]]:
    """The seeds of the rows that have their own, which are removed from the settings of the rows."""
    return {
        name: _seeds(row.pop("seeds"), f"{where}: models: {name}: seeds", seeds)
        for name, row in rows.items()
        if "seeds" in row
    }


def _seeds(seeds: Any, where: str, first: Sequence[int] = ()) -> list[int]:
    """Seeds given as a list, or as their number: the first ones of ``first``, and then consecutive ones."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        if seeds > MOST_SEEDS:
            raise SettingError(
                f"{where} must be their number, at most {MOST_SEEDS:,}, or a list; got {shown(seeds)}. For the seed "
                f"{shown(seeds)} alone, give [{shown(seeds)}]."
            )
        others = (seed for seed in itertools.count(FIRST_SEED) if seed not in first)
        return list(itertools.islice(itertools.chain(first, others), seeds))
    listed = _list(seeds, int, where) if isinstance(seeds, (list, tuple)) else []
    if not listed or len(set(listed)) < len(listed):
        raise SettingError(f"{where} must be their number or a list of different integers; got {shown(seeds)}.")
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
