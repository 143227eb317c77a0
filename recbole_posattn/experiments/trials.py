"""Many runs, one process each, on this machine's cores or a Ray cluster: for leaderboards and for tuning.

The folder of a run is named by a fingerprint of its resolved settings, with the suffix ``.incomplete`` until the run is
complete. A run whose folder has its final name is not run again, unless ``max_minutes`` stopped it and it has more time
now. A killed run continues after its last epoch. A failed run leaves the reason and does not stop the others.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import shutil
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from recbole_posattn.errors import InUseError, SettingError, UserError, one_line
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.experiments.identity import Identity, identify
from recbole_posattn.experiments.records import INCOMPLETE, Records, is_enough, read_header, write_record
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.files import write_json
from recbole_posattn.locks import FOR_EVER, locked
from recbole_posattn.settings.checks import PRETRAINED
from recbole_posattn.settings.keys import NAMES_OF_SETTINGS, PATH_KEYS
from recbole_posattn.settings.plugins import check_known_in_workers, import_plugins
from recbole_posattn.training.explained_errors import OUT_OF_MEMORY
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, read_users
from recbole_posattn.training.resume import AUTO
from recbole_posattn.training.run import run
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from recbole_posattn.training.trainer import KERNELS_NAME

FAILURE_NAME = "failure.json"


class Trial(NamedTuple):
    """A run to be done.

    Attributes:
        name: What the user calls it.
        settings: Its settings: ``model``, ``dataset``, ``seed`` and whatever differs from the defaults.
    """

    name: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: The trial.
        folder: Its folder.
        error: Why it failed, or was not started; ``None`` if it succeeded.
        lacked_memory: Whether it may have failed for lack of memory.
        reused: Whether an earlier call had finished it.
        started: Whether it was started, or had been.
    """

    trial: Trial
    folder: Path
    error: str | None = None
    lacked_memory: bool = False
    reused: bool = False
    started: bool = True

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        return read_result(self.folder)

    @property
    def users(self) -> pd.DataFrame:
        """The table of :func:`recbole_posattn.evaluation.target_ranks.user_results`."""
        return read_users(self.folder)


def checked_folders(trials: Sequence[Trial], root: Path, records: Records | None = None) -> dict[Path, Trial]:
    """Trials by their folders below ``root``, into which the records of finished runs are copied.

    Args:
        trials: The trials.
        root: The folder of all runs.
        records: Records of other folders.

    Raises:
        SettingError: If the settings of a trial are invalid, or two trials are the same run; nothing is copied then.
        DataError: If the data set of a trial cannot be read.
        UserError: If a record cannot be copied.
    """
    folders: dict[Path, Trial] = {}
    identities: dict[Path, Identity] = {}
    for trial in trials:
        try:
            check_known_in_workers(trial.settings)
            identity = identify(trial.settings)
        except UserError as error:
            raise type(error)(f"{trial.name}: {error}") from error
        folder = root / identity.fingerprint
        if folder in folders:
            raise SettingError(f"{folders[folder].name} and {trial.name} have the same settings; leave one out.")
        folders[folder], identities[folder] = trial, identity
    if records is not None:
        try:
            for folder, trial in folders.items():
                if not _is_finished(folder, trial.settings):
                    records.take(identities[folder], trial.settings.get("max_minutes"), folder)
        except OSError as error:
            raise UserError(f"no records can be copied to {root}: {error.strerror or error}") from error
    return folders


def _is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run is complete, and was not stopped with less time than it has now."""
    result = read_header(folder / RESULT_NAME)
    return result is not None and is_enough(result, settings.get("max_minutes"))


def run_trials(trials: Mapping[Path, Trial], where: Resources, budget: Budget | None = None) -> Iterator[Outcome]:
    """Run the trials that are not finished, and yield each outcome when it is available; reused ones first.

    Args:
        trials: By their folders, as :func:`checked_folders` returns them, in the order in which they are started.
        where: Where to run them.
        budget: The time for all of them. When it is spent, runs are stopped with their best epoch so far, and no
            other is started.

    Raises:
        SettingError: If Ray is not installed or does not answer at its address.
    """
    budget = budget or Budget()
    waiting = []
    for folder, trial in trials.items():
        if _is_finished(folder, trial.settings):
            yield Outcome(trial, folder, reused=True)
        elif budget.is_spent:
            yield _without_time(trial, folder, budget)
        else:
            waiting.append((trial, folder))
    if waiting:
        yield from _run_on_ray(waiting, where, budget)


def _without_time(trial: Trial, folder: Path, budget: Budget) -> Outcome:
    """The outcome of a trial for which no time is left: what an earlier call left, or that it was not started."""
    if (folder / RESULT_NAME).is_file():
        return Outcome(trial, folder, reused=True)
    return Outcome(trial, folder, f"the budget of {budget.minutes:g} minutes was spent", started=False)


def _run_on_ray(waiting: Sequence[tuple[Trial, Path]], where: Resources, budget: Budget) -> Iterator[Outcome]:
    """Run trials in parallel, then rerun those that lacked memory one at a time."""
    in_parallel = len(waiting) > 1 and (where.jobs > 1 or where.address is not None)
    with ray_cluster(where) as ray:
        again = []
        for outcome in _run_in_parallel(ray, waiting, where, budget):
            if outcome.lacked_memory and in_parallel:
                name, seed = outcome.trial.name, outcome.trial.settings.get("seed", "of the defaults")
                logging.getLogger().warning(
                    f"{name}, seed {seed}: {outcome.error}; it runs once more, alone, after the others"
                )
                again.append((outcome.trial, outcome.folder))
            else:
                yield outcome
        for one in again:
            yield from _run_in_parallel(ray, [one], where, budget)


def _run_in_parallel(
    ray: Any, waiting: Sequence[tuple[Trial, Path]], where: Resources, budget: Budget
) -> Iterator[Outcome]:
    remaining = list(waiting)
    running: dict[Any, tuple[Trial, Path]] = {}
    limit = where.jobs if where.address is None else len(remaining)
    if where.address is not None and budget.minutes is not None:  # the time of a run counts from its start
        limit = max(1, int(ray.cluster_resources().get("CPU", 1) // where.threads))
    while remaining or running:
        while remaining and budget.is_spent:
            yield _without_time(*remaining.pop(0), budget)
        while remaining and len(running) < limit:
            trial, folder = remaining.pop(0)
            running[start_run(ray, budget.within(trial.settings, folder), folder, where)] = (trial, folder)
        if not running:
            return
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        trial, folder = running.pop(done)
        yield Outcome(trial, folder, *end_of_run(ray, done, trial.settings, folder))


def start_run(ray: Any, settings: Mapping[str, Any], folder: Path, where: Resources, **options: Any) -> Any:
    """Start a run with Ray in a new process, so that no state or memory of an earlier run remains.

    Args:
        ray: See :func:`recbole_posattn.experiments.cluster.ray_cluster`.
        settings: Of the run.
        folder: Of the run.
        where: The CPUs and GPUs of a run.
        options: Of :func:`recbole_posattn.run`.

    Returns:
        A reference that :func:`end_of_run` takes.
    """
    task = ray.remote(num_cpus=where.threads, num_gpus=where.gpus, max_calls=1, max_retries=0)(run_in_folder)
    return task.remote(from_anywhere(settings), str(folder.absolute()), where.threads, str(Path.cwd()), **options)


def end_of_run(ray: Any, started: Any, settings: Mapping[str, Any], folder: Path) -> tuple[str | None, bool]:
    """Wait for a run; return why it failed, ``None`` if it succeeded, and whether it may have lacked memory."""
    try:
        error = ray.get(started)
    except ray.exceptions.RayError as lost:  # the process died, or was killed for its memory
        first, *_ = str(lost).replace(". Memory on the node", "\n").splitlines()  # without addresses and numbers
        error = f"the process of the run died: {first}"
        _write_failure(folder, dict(settings), error, str(lost))
        return error, not isinstance(lost, ray.exceptions.RayTaskError)
    return error, lacks_memory(error)


def lacks_memory(error: str | None) -> bool:
    """Whether a run failed for lack of memory, so that it may succeed when it runs alone."""
    return error is not None and error.startswith((OUT_OF_MEMORY, MemoryError.__name__))


def run_in_folder(
    settings: dict[str, Any], folder: str | Path, n_threads: int, working_folder: str | Path = ".", **options: Any
) -> str | None:
    """Do one run in this process and give its folder its name; the reason if it fails.

    Args:
        settings: Of the run.
        folder: Receives ``result.json``, the checkpoint and the results by user; or ``failure.json``.
        n_threads: Number of CPU threads.
        working_folder: Where plugins that are not installed are found.
        options: Of :func:`recbole_posattn.run`.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and ends this process
    torch.set_num_threads(n_threads)
    final = Path(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    # a process left behind by a killed driver may hold the lock; it ends soon, with or without a result
    with locked(lock_of_run(final), FOR_EVER):
        if _is_finished(final, settings):
            return None
        return _run_alone_in_folder(settings, final, Path(working_folder).absolute(), **options)


def lock_of_run(folder: Path) -> Path:
    """The lock file of a run; the process that executes the run holds the lock."""
    return folder.with_name(f"{folder.name}.lock")


def _run_alone_in_folder(settings: dict[str, Any], final: Path, working_folder: Path, **options: Any) -> str | None:
    incomplete = final.with_name(f"{final.name}{INCOMPLETE}")
    if not incomplete.exists() and (final / LAST_NAME).is_file():
        _continue_stopped(final, incomplete, settings)
    incomplete.mkdir(exist_ok=True)  # exists if the run was killed; it continues there
    try:
        import_plugins(settings.get("plugins", ()), working_folder)
        with chdir(incomplete):  # where RecBole leaves its logs
            settings = {**settings, "checkpoint_dir": "saved", "show_progress": False}
            result = run(config_dict=settings, command_line=[], resume=AUTO, **options)
            assert result is not None and result["checkpoint"] is not None  # a saved run in one process
            weights = Path(result["checkpoint"])
            write_record(weights.with_name(RESULT_NAME), settings, weights.name)
            last = {LAST_NAME} if result["stopped_by"] else set()  # to continue from, if it gets more time
            for name in {weights.name, BEST_NAME, RESULT_NAME, USERS_NAME, KERNELS_NAME} | last:
                file = weights.with_name(name)
                if file.exists():
                    shutil.move(file, name)
            shutil.rmtree("saved")
        shutil.rmtree(final, ignore_errors=True)  # from a failed attempt
        incomplete.rename(final)
    except Exception as error:
        reason = one_line(error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        shutil.rmtree(incomplete)
        _write_failure(final, settings, reason, traceback.format_exc())
        return reason
    return None


def _continue_stopped(final: Path, incomplete: Path, settings: Mapping[str, Any]) -> None:
    """Lay out a run that ``max_minutes`` stopped as if it had been killed; its record stays until it is finished."""
    prepared = incomplete.with_name(f".{incomplete.name}")
    shutil.rmtree(prepared, ignore_errors=True)
    folder = prepared / "saved" / f"{settings['model']}-{settings['dataset']}-stopped"
    shutil.copytree(final, folder, ignore=shutil.ignore_patterns(RESULT_NAME, USERS_NAME, "log*"))
    prepared.rename(incomplete)


def remove_left_over(root: Path, wait: float = 0) -> None:
    """Delete the incomplete folders of stopped runs, except those that another process uses.

    Args:
        root: The folder that contains the folders of runs.
        wait: Seconds to wait for the lock of a run that is being stopped.
    """
    for incomplete in root.glob(f"*{INCOMPLETE}"):
        with suppress(InUseError), locked(lock_of_run(incomplete.with_suffix("")), wait):
            shutil.rmtree(incomplete, ignore_errors=True)


def from_anywhere(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with absolute paths."""
    paths = {"data_path": "dataset", **{key: settings[key] for key in PATH_KEYS & settings.keys()}}
    paths |= {key: settings[key] for key in (PRETRAINED, *NAMES_OF_SETTINGS) if Path(str(settings.get(key))).is_file()}
    return {**settings, **{key: str(Path(path).absolute()) for key, path in paths.items() if path is not None}}


def _write_failure(folder: Path, settings: dict[str, Any], reason: str, details: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = {"error": reason, "settings": settings, "details": details}
    write_json(folder / FAILURE_NAME, report, default=str)
