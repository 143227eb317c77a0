"""Run a leaderboard's models, or what is left of them, and write its report."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path

from rich.console import Console

from recbole_posattn.errors import UserError
from recbole_posattn.experiments.leaderboard.board import gather
from recbole_posattn.experiments.leaderboard.live import LiveTable
from recbole_posattn.experiments.leaderboard.report import write_report
from recbole_posattn.experiments.leaderboard.spec import Spec
from recbole_posattn.experiments.leaderboard.table import Provenance
from recbole_posattn.experiments.leaderboard.tuned import tune_rows
from recbole_posattn.experiments.trials import Outcome, Resources, checked_folders, run_trials
from recbole_posattn.locks import alone_in
from recbole_posattn.reporting.page import command_line
from recbole_posattn.training.result import versions

RUNS, TUNING = "runs", "tuning"


def make_leaderboard(
    spec: Spec, folder: Path, where: Resources, n_tuning_trials: int = 0, console: Console | None = None
) -> tuple[list[Path], list[Outcome]]:
    """Run all that is not finished, and write the report into ``folder``; its runs are in ``folder/runs``.

    A leaderboard that was stopped goes on where it was: what is finished is not run again.

    Args:
        spec: What is compared.
        folder: Where runs and report go.
        where: Where the runs are done.
        n_tuning_trials: Trials that each row is tuned with before, on each data set under each protocol.
        console: Where progress is shown; the error output by default.

    Returns:
        The files of the report, which has a board for each data set and protocol with a finished run, and the runs
        that failed.

    Raises:
        SettingError: If a setting of one of the runs cannot be used; nothing is run then.
        DataError: If a data set cannot be read.
        InUseError: If another process makes a leaderboard there.
        UserError: If the folder cannot be written, or if all runs have failed.
    """
    console = console or Console(stderr=True)
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    with alone_in(folder, "leaderboard"):
        return _make(spec, folder, where, n_tuning_trials, console)


def _make(
    spec: Spec, folder: Path, where: Resources, n_tuning_trials: int, console: Console
) -> tuple[list[Path], list[Outcome]]:
    """:func:`make_leaderboard` in a folder of its own."""
    root = folder / RUNS
    pairs = itertools.product(spec.datasets, spec.protocols)
    plan = {pair: checked_folders(spec.trials(*pair), root) for pair in pairs}
    notes: list[str] = []
    if n_tuning_trials:
        for pair in plan:
            winners, told = tune_rows(spec, *pair, n_tuning_trials, folder / TUNING, where, console)
            plan[pair] = checked_folders(spec.trials(*pair, winners), root)
            notes += told
    boards, failures, revisions = [], [], set()
    for (dataset, protocol), trials in plan.items():
        outcomes = []
        with LiveTable(f"{dataset}, {Path(protocol).stem}", list(trials.values()), console) as table:
            for outcome in run_trials(trials, where):
                outcomes.append(outcome)
                table.add(outcome)
        failures += [outcome for outcome in outcomes if outcome.error is not None]
        revisions |= {outcome.result["git_revision"] for outcome in outcomes if outcome.error is None}
        board = gather(outcomes, dataset, Path(protocol).stem, spec.reference)
        if board is not None:
            boards.append(board)
        else:
            notes.append(f"{dataset}, {Path(protocol).stem}: no run finished; the first one: {outcomes[0].error}")
    if not boards:
        raise UserError(f"all runs failed, the first one: {failures[0].trial.name}: {failures[0].error}")
    return write_report(boards, _provenance(spec, revisions, notes), folder), failures


def _provenance(spec: Spec, revisions: set[str | None], notes: list[str]) -> Provenance:
    """Where a report comes from; the revisions are those of its runs, which may be older than the report."""
    return Provenance(
        command=command_line(),
        versions=versions(),
        date=datetime.date.today().isoformat(),
        revision=", ".join(sorted(filter(None, revisions))) or None,
        seeds=spec.seeds,
        published=spec.published,
        not_run=[f"{model}: {reason}" for model, reason in spec.not_run.items()],
        notes=[*spec.notes, *notes],
    )
