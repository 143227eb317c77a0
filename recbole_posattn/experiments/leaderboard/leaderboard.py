"""Run the trials of a leaderboard that are not finished, and write its report."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from recbole_posattn.errors import UserError
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.leaderboard.board import Board, gather
from recbole_posattn.experiments.leaderboard.live import LiveTable
from recbole_posattn.experiments.leaderboard.public import read_report
from recbole_posattn.experiments.leaderboard.report import write_report
from recbole_posattn.experiments.leaderboard.spec import Spec, title_of_board
from recbole_posattn.experiments.leaderboard.table import Provenance, lines_of_missing
from recbole_posattn.experiments.leaderboard.tuned import Tuning, rows_tuned_alike, tune_rows
from recbole_posattn.experiments.messages import each_message_once
from recbole_posattn.experiments.records import RUNS, Records, ignore_all_but_records, records_folders
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Outcome, Resources, checked_folders, run_trials
from recbole_posattn.locks import exclusive_access
from recbole_posattn.reporting.page import command_line

TUNING = "tuning"

# Folders below the working folder in which earlier searches are looked for.
_SEARCHES = ("results", "tuning", "leaderboards")


@each_message_once()
def make_leaderboard(
    spec: Spec,
    folder: Path,
    where: Resources,
    n_tuning_trials: int = 0,
    console: Console | None = None,
    runs: Sequence[Path] = (),
    minutes: float | None = None,
) -> Report:
    """Run all unfinished trials below ``folder/runs``, and write the report into ``folder``.

    A stopped leaderboard continues: finished runs are not run again, whether their records are in ``folder/runs``, in
    one of ``runs`` or in ``results/*/runs``. The records of the latter are copied.

    Args:
        spec: The leaderboard.
        folder: Folder of runs and report.
        where: Where to run the trials.
        n_tuning_trials: Trials that tune each row first, on each data set under each protocol; 0 for no tuning.
        console: Shows progress; standard error by default.
        runs: Folders with the records of earlier runs, and with searches.
        minutes: The budget. When it is spent, runs are stopped with their best epoch so far, and no other is started;
            ``None`` for no limit.

    Raises:
        SettingError: If a setting of any run is invalid; nothing is run then.
        DataError: If a data set cannot be read.
        InUseError: If another process runs a leaderboard in the folder.
        UserError: If the folder cannot be written, or if no run is finished.
    """
    console = console or Console(stderr=True)
    records = Records(records_folders(runs, folder / RUNS))
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    with exclusive_access(folder, "leaderboard"):
        budget = Budget(minutes)
        # the settings of rows to be tuned are not yet known, but errors in them are found now
        plan, tuning = _Plan(spec, folder, where, console, None if n_tuning_trials else records), Tuning()
        if n_tuning_trials:
            plan.tune(n_tuning_trials, [*runs, *map(Path, _SEARCHES)], tuning, budget, records)
        records.report(console)
        return _run(plan, tuning, budget)


def remake_leaderboard(source: Path, folder: Path) -> Report:
    """Write the report of a leaderboard again, from its records alone.

    Args:
        source: The folder of the leaderboard.
        folder: Receives the report.

    Raises:
        DataError: If ``leaderboard.json`` or a record is missing or cannot be read.
        UserError: If the folder cannot be written.
    """
    boards, provenance = read_report(source)
    return Report(write_report(boards, provenance, folder), boards, [], [])


class Report(NamedTuple):
    """A written report.

    Attributes:
        files: Its files.
        boards: Its boards, one for each data set and protocol with a finished run.
        unfinished: The runs that failed or were not started.
        not_tuned: A message for each row whose trials all failed.
    """

    files: list[Path]
    boards: list[Board]
    unfinished: list[Outcome]
    not_tuned: list[str]


class _Plan:
    """The trials of a leaderboard, for each data set and protocol.

    Attributes:
        trials: By data set and protocol, and then by the folder of the run.
        references: The row that the others are tested against, by data set and protocol.
    """

    def __init__(self, spec: Spec, folder: Path, where: Resources, console: Console, records: Records | None) -> None:
        self.spec, self.folder, self.where, self.console = spec, folder, where, console
        pairs = itertools.product(spec.datasets, spec.protocols)
        self.trials = {pair: checked_folders(spec.trials(*pair), folder / RUNS, records) for pair in pairs}
        self.references = dict.fromkeys(self.trials, spec.reference)

    def tune(self, n_trials: int, searches: Sequence[Path], tuning: Tuning, budget: Budget, records: Records) -> None:
        """Search the best settings of each row, see :func:`tune_rows`, and plan the trials with the winners."""
        own = self.folder / TUNING
        for pair in self.trials:
            winners = tune_rows(self.spec, *pair, n_trials, own, self.where, self.console, searches, tuning, budget)
            same = rows_tuned_alike(self.spec, *pair, winners)
            trials = [trial for trial in self.spec.trials(*pair, winners) if trial.name not in same]
            self.trials[pair] = checked_folders(trials, self.folder / RUNS, records)
            self.references[pair] = same.get(self.spec.reference, self.spec.reference)
            tuning.notes += [
                f"{title_of_board(*pair)}: {row} is left out: it was tuned to the settings of {other}."
                for row, other in same.items()
            ]


def _run(plan: _Plan, tuning: Tuning, budget: Budget) -> Report:
    """Run the trials of a plan and write the report."""
    boards, unfinished, notes = [], [], []
    for (dataset, protocol), trials in plan.trials.items():
        outcomes, title = [], title_of_board(dataset, protocol)
        with LiveTable(title, list(trials.values()), plan.console) as table:
            for outcome in run_trials(trials, plan.where, budget):
                if outcome.error is None and read_result(outcome.folder)["test_result"] is None:
                    outcome = dataclasses.replace(outcome, error="its test split has no targets")
                if outcome.error is None:
                    ignore_all_but_records(plan.folder / RUNS)
                outcomes.append(outcome)
                table.add(outcome)
        unfinished += [outcome for outcome in outcomes if outcome.error is not None]
        notes += [f"{title}: {change}." for change in plan.spec.protocol_changes(dataset, protocol)]
        board = gather(outcomes, dataset, Path(protocol).stem, plan.references[dataset, protocol])
        if board is not None:
            boards.append(board)
        else:
            missing = [(outcome.trial.name, outcome.trial.settings["seed"], str(outcome.error)) for outcome in outcomes]
            notes.append(f"{title}: no run finished. {'; '.join(lines_of_missing(missing))}")
    if not boards:
        what = "all runs failed" if any(outcome.started for outcome in unfinished) else "no run was started"
        raise UserError(f"{what}, the first one: {unfinished[0].trial.name}: {unfinished[0].error}")
    files = write_report(boards, _provenance(plan.spec, boards, tuning, notes), plan.folder)
    return Report(files, boards, unfinished, tuning.failures)


def _provenance(spec: Spec, boards: Sequence[Board], tuning: Tuning, notes: list[str]) -> Provenance:
    """Where a report comes from; revisions and versions are those of its runs, which may be older than the report."""
    runs = [run for board in boards for run in board.runs]
    versions: dict[str, dict[str, None]] = {}
    for run in runs:
        for package, version in run["versions"].items():
            versions.setdefault(package, {})[version] = None
    return Provenance(
        command=command_line(),
        versions={package: " and ".join(sorted(found)) for package, found in versions.items()},
        date=datetime.date.today().isoformat(),
        revision=", ".join(sorted({run["revision"] for run in runs if run["revision"]})) or None,
        seeds=sorted({*spec.seeds, *(run["seed"] for run in runs)}, key=lambda seed: (seed not in spec.seeds, seed)),
        published=spec.published,
        not_run=[f"{model}: {reason}" for model, reason in spec.not_run.items()],
        notes=[*spec.notes, *tuning.notes, *notes],
        tuning=tuning.rows,
    )
