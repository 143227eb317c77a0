"""Tuning the rows of a leaderboard, each with the same number of trials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_posattn.experiments.leaderboard.spec import Spec
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning.live import LiveSearch
from recbole_posattn.experiments.tuning.records import SEARCH_NAME, best_trial
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.space import space_of_model
from recbole_posattn.experiments.tuning.spec import Search, check_search


def tune_rows(
    spec: Spec, dataset: str, protocol: str, n_trials: int, folder: Path, where: Resources, console: Console
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Search the best settings of each row on the validation set, with the first seed of the leaderboard.

    The space of a row is that of its model (``properties/tuning``) without the keys that the row sets itself. Finished
    trials are not run again.

    Args:
        spec: The leaderboard.
        dataset: Name of the data set.
        protocol: Name or file of the protocol.
        n_trials: Number of trials per row.
        folder: Folder of the searches; each gets a folder in it.
        where: Where to run the trials.
        console: Shows progress.

    Returns:
        The winning settings by row, and notes for the report.

    Raises:
        SettingError: If a model has no search space, or the folder holds a different search.
    """
    searches = {name: _search(spec, name, dataset, protocol, n_trials) for name in spec.models}
    checked = {name: check_search(search) for name, search in searches.items()}
    winners: dict[str, dict[str, Any]] = {}
    board = f"{dataset}, {Path(protocol).stem}"
    notes = [
        f"{board}: each row was tuned by {n_trials} trials on the validation set with seed {spec.seeds[0]}, in the "
        "search space of its model."
    ]
    for name, search in searches.items():
        if not search.space.keys:
            notes.append(f"{board}: {name}: nothing to search.")
            continue
        config = checked[name]
        own = folder / _slug(board) / _slug(name)
        bigger = config["valid_metric_bigger"]
        title = f"{board}: tuning {name}"
        with LiveSearch(title, search.total(config), config["valid_metric"].lower(), bigger, console) as live:
            records = run_search(search, own, where, (own / SEARCH_NAME).is_file(), live.add)
        best = best_trial(records, bigger)
        if best is None:
            notes.append(f"{board}: {name}: no trial finished, so its settings are unchanged.")
            continue
        winners[name] = best.settings
        notes.append(f"{board}: {name}: {', '.join(f'{key} {value}' for key, value in best.settings.items())}.")
    return winners, notes


def _search(spec: Spec, name: str, dataset: str, protocol: str, n_trials: int) -> Search:
    settings = {**spec.row(name, dataset, protocol), "seed": spec.seeds[0]}
    space = space_of_model(settings["model"])
    return Search(settings, space.without(settings), n_trials)


def _slug(name: str) -> str:
    """A name as a folder name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
