"""Tuning the rows of a leaderboard, each with the same number of trials."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_posattn.errors import counted
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.identity import fingerprint
from recbole_posattn.experiments.leaderboard.spec import Spec, title_of_board
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning.live import LiveSearch
from recbole_posattn.experiments.tuning.records import (
    FINISHED,
    PRUNED,
    SEARCH_NAME,
    TrialRecord,
    best_trial,
    n_failed,
)
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.shared import earlier_trials
from recbole_posattn.experiments.tuning.space_files import space_of_model
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.reporting.names import setting_text


@dataclass
class Tuning:
    """What a report says about the tuning of its rows.

    Attributes:
        rows: The trials of each row, see ``tuning`` in ``leaderboard.schema.json``.
        notes: The same in words.
        failures: A message for each row whose trials all failed.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, dataset: str, protocol: str, row: str, records: Sequence[TrialRecord], bigger: bool) -> None:
        """Add the trials of a row."""
        best = best_trial(records, bigger)
        states = [record.state for record in records]
        facts: dict[str, Any] = {
            "dataset": dataset,
            "protocol": protocol,
            "row": row,
            "trials": len(records),
            "finished": states.count(FINISHED),
            "pruned": states.count(PRUNED),
            "failed": n_failed(records),
            "reused": sum(record.source is not None for record in records),
            "seconds": round(sum(record.seconds for record in records), 1),
            "settings": None if best is None else best.settings,
        }
        self.rows.append(facts)
        found = "no trial finished, so its settings are unchanged"
        if best is None:
            why = next((record.error for record in records if record.error), "no trial has a score")
            self.failures.append(f"{dataset}, {protocol}: {row} is not tuned, as no trial finished: {why}")
        else:
            found = ", ".join(f"{key} {setting_text(value)}" for key, value in best.settings.items())
        self.notes.append(
            f"{dataset}, {protocol}: {row}: {counted(facts['trials'], 'trial')} ({facts['pruned']} pruned, "
            f"{facts['failed']} failed, {facts['reused']} taken from earlier searches), {facts['seconds']:,.0f} s: "
            f"{found}."
        )


def tune_rows(
    spec: Spec,
    dataset: str,
    protocol: str,
    n_trials: int,
    folder: Path,
    where: Resources,
    console: Console,
    searches: Sequence[Path],
    tuning: Tuning,
    budget: Budget,
) -> dict[str, dict[str, Any]]:
    """Search the best settings of each row on the validation set, with the first seed of the leaderboard.

    The space of a row is that of its model (``properties/tuning``) without the keys that the row sets itself. Finished
    trials are not run again, neither those in ``folder`` nor those of an earlier search of the same definition.

    Args:
        spec: The leaderboard.
        dataset: Name of the data set.
        protocol: Name or file of the protocol.
        n_trials: Number of trials per row.
        folder: Folder of the searches; each gets a folder in it.
        where: Where to run the trials.
        console: Shows progress.
        searches: Folders in which earlier searches are looked for.
        tuning: Receives what the report says.
        budget: When it is spent, no further search is started.

    Returns:
        The winning settings by row.

    Raises:
        SettingError: If a model has no search space, or the folder holds a different search.
    """
    definitions = {name: _search(spec, name, dataset, protocol, n_trials) for name in spec.models}
    checked = {name: check_search(search) for name, search in definitions.items() if search.space.keys}
    winners: dict[str, dict[str, Any]] = {}
    short = Path(protocol).stem
    board = title_of_board(dataset, protocol)
    tuning.notes.append(
        f"{board}: each row was tuned by {counted(n_trials, 'trial')} on the validation set with seed {spec.seeds[0]}, "
        "in the search space of its model."
    )
    slugs = _slugs(list(spec.models))
    boards = _slugs([title_of_board(each, its) for each in spec.datasets for its in spec.protocols])
    for name, search in definitions.items():
        if not search.space.keys:
            tuning.notes.append(f"{board}: {name}: nothing to search.")
            continue
        if budget.is_spent:
            tuning.notes.append(f"{board}: {name}: not tuned, as the budget of {budget.minutes:g} minutes was spent.")
            continue
        config = checked[name]
        own = folder / boards[board] / slugs[name]
        bigger = config["valid_metric_bigger"]
        title = f"{board}: tuning {name}"
        with LiveSearch(title, search.total(config), config["valid_metric"].lower(), bigger, console) as live:
            earlier = earlier_trials(search, searches, own, console)
            records = run_search(search, own, where, (own / SEARCH_NAME).is_file(), live.add, earlier)
            records = records[: search.total(config)]  # a longer search may have run here before
        tuning.add(dataset, short, name, records, bigger)
        best = best_trial(records, bigger)
        if best is not None:
            winners[name] = best.settings
    return winners


def rows_tuned_alike(
    spec: Spec, dataset: str, protocol: str, winners: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """The rows whose tuned settings equal another row's, with the name of that row, which has as many seeds or more.

    Args:
        spec: The leaderboard.
        dataset: Name of the data set.
        protocol: Name or file of the protocol.
        winners: The winning settings by row, see :func:`tune_rows`.
    """
    kept: dict[str, str] = {}
    alike = {}
    for name in sorted(spec.models, key=lambda row: -len(spec.seeds_of_rows.get(row, spec.seeds))):
        settings = {**spec.row(name, dataset, protocol), **winners.get(name, {}), "seed": spec.seeds[0]}
        other = kept.setdefault(fingerprint(settings), name)
        if other != name:
            alike[name] = other
    return alike


def _search(spec: Spec, name: str, dataset: str, protocol: str, n_trials: int) -> Search:
    settings = {**spec.row(name, dataset, protocol), "seed": spec.seeds[0]}
    space = space_of_model(settings["model"], settings.get("preset"))
    return Search(settings, space.without(settings), n_trials)


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """Names as folder names; those that would be empty or equal end in a hash of the name."""
    slugs = [_slug(name) for name in names]
    return {
        name: slug if slug and slugs.count(slug) == 1 else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, slug in zip(names, slugs)
    }


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
