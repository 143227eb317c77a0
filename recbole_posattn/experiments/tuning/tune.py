"""Tune a model: search on validation data, evaluate the winner once on the test set, write the report."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from recbole_posattn.errors import UserError
from recbole_posattn.experiments.messages import each_message_once
from recbole_posattn.experiments.records import RUNS
from recbole_posattn.experiments.run_results import forget_checkpoint, read_result, with_nan
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning.live import LiveSearch
from recbole_posattn.experiments.tuning.records import TrialRecord, best_trial, trial_folder
from recbole_posattn.experiments.tuning.report import SearchResult, report_files
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.files import json_text
from recbole_posattn.locks import exclusive_access
from recbole_posattn.reporting.page import command_line, write_files
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import PLACES
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training.load import evaluate_checkpoint
from recbole_posattn.training.result import versions
from recbole_posattn.training.run_folder import BEST_NAME

WINNER_NAME = "best.json"

# What does not belong in best.yaml, whose settings can be used on other data and elsewhere.
_NOT_WRITTEN = PLACES | {"dataset"}


@each_message_once()
def tune(
    search: Search, folder: Path, where: Resources, resume: bool = False, console: Console | None = None
) -> tuple[SearchResult, list[Path]]:
    """Search, evaluate the best trial on the test set, and write the report into ``folder``.

    Args:
        search: The search.
        folder: Where runs, records and report go.
        where: Where to run the trials.
        resume: Whether to continue the search in ``folder``.
        console: Shows progress; standard error by default.

    Returns:
        The result, and the files of the report.

    Raises:
        SettingError: If a setting is invalid, or ``folder`` and ``resume`` do not fit together.
        DataError: If the data set cannot be read.
        InUseError: If another process runs a search in the folder.
        UserError: If the folder cannot be written, or if no trial has a score.
    """
    console = console or Console(stderr=True)
    config = check_search(search)
    with _own_folder(folder, resume):
        return _tune(search, config, folder, where, resume, console)


def _own_folder(folder: Path, resume: bool) -> AbstractContextManager[None]:
    if resume and not folder.is_dir():
        return nullcontext()  # no search to resume; open_search reports it
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return exclusive_access(folder, "search")


def _tune(
    search: Search, config: Config, folder: Path, where: Resources, resume: bool, console: Console
) -> tuple[SearchResult, list[Path]]:
    """:func:`tune` in a locked folder; ``config`` has the settings of all keys without a search."""
    metric, bigger = config["valid_metric"].lower(), config["valid_metric_bigger"]
    title = f"{config['model']} on {config['dataset']}"
    with LiveSearch(title, search.total(config), metric, bigger, console) as live:
        records = run_search(search, folder, where, resume, live.add)
    best = best_trial(records, bigger)
    if best is None:
        reasons = [record.error for record in records if record.error]
        first = f"; the first that failed: {reasons[0]}" if reasons else ""
        raise UserError(f"no trial has a finite {metric} on the validation set{first}")
    winner = _evaluated(best, folder, search.settings.get("data_path"))
    _forget_others(folder, records, best)
    result = SearchResult(
        model=config["model"],
        dataset=config["dataset"],
        metric=metric,
        bigger=bigger,
        space=search.space,
        given=plain_data({key: value for key, value in search.settings.items() if key not in _NOT_WRITTEN}),
        fixed=search.fixed(config),
        records=records,
        best=best,
        valid_result=winner["valid_result"],
        test_result=winner["test_result"],
        tested=winner["tested"],
        command=command_line(),
        origin=_origin(config, search),
    )
    return result, write_files(folder, report_files(result))


def _forget_others(folder: Path, records: Sequence[TrialRecord], best: TrialRecord) -> None:
    """Delete the weights of all trials but the best, and the runs without a record, which a killed search left."""
    numbers = {record.number for record in records}
    for run in (folder / RUNS).iterdir():
        if run.is_dir() and run.name.isdigit() and int(run.name) != best.number:
            if int(run.name) in numbers:
                forget_checkpoint(run)
            else:
                shutil.rmtree(run)


def _evaluated(best: TrialRecord, folder: Path, data_path: str | None) -> dict[str, Any]:
    """The results of the best trial, evaluated once on the test set, however often the search is resumed.

    If a resumed search has another best trial, this one is evaluated as well, and ``tested`` has both.
    ``data_path`` is given if the data may have moved since the trial.
    """
    file, tested = folder / WINNER_NAME, []
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        tested = before.get("tested", [before["trial"]])
        if before["trial"] == best.number:
            scores = {key: with_nan(before[key]) for key in ("valid_result", "test_result")}
            return {**before, **scores, "tested": tested}
    own = trial_folder(folder, best.number)
    test_result, _ = evaluate_checkpoint(own / BEST_NAME, data_path)
    winner = {
        "trial": best.number,
        "settings": best.settings,
        "valid_result": read_result(own)["best_valid_result"],
        "test_result": test_result or {},
        "tested": [*tested, best.number],
    }
    write_files(folder, {WINNER_NAME: json_text(winner, indent=2) + "\n"})
    return winner


def _origin(config: Config, search: Search) -> list[tuple[str, str]]:
    def drawn_or(key: str) -> str:
        return "as drawn" if key in search.space.keys else str(config[key])

    return [
        ("date", datetime.date.today().isoformat()),
        ("search", search.algorithm),
        ("scheduler", f"{search.scheduler}, grace period of {search.grace_period} epochs"),
        ("epochs", f"at most {drawn_or('epochs')}; early stopping: stopping_step {drawn_or('stopping_step')}"),
        ("seed", str(config["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions().items())),
    ]
