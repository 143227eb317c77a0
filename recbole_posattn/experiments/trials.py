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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import pandas as pd
from recbole.utils import ModelType

from recbole_posattn.errors import SettingError, UserError
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.cluster import Resources, ray_cluster, runs_that_fit
from recbole_posattn.experiments.identity import Identity, identify
from recbole_posattn.experiments.records import Records, has_ranks, read_header
from recbole_posattn.experiments.run_folders import is_finished, run_in_folder, write_failure
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.settings.checks import PRETRAINED
from recbole_posattn.settings.keys import NAMES_OF_SETTINGS, PATH_KEYS
from recbole_posattn.settings.plugins import check_known_in_workers
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training.explained_errors import OUT_OF_MEMORY
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME, read_users


class Trial(NamedTuple):
    """A run to be done.

    Attributes:
        name: What the user calls it.
        settings: Its settings: ``model``, ``dataset``, ``seed`` and whatever differs from the defaults.
        data: Digest of the data that it was planned with; ``None`` if it may use any.
    """

    name: str
    settings: Mapping[str, Any]
    data: str | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: The trial.
        folder: Its folder.
        error: Why it failed, also when it continued a stopped run, or was not started; ``None`` if it succeeded.
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

    @functools.cached_property
    def has_result(self) -> bool:
        """Whether there is a result: of a run that succeeded, or that was stopped and failed when it went on."""
        return self.error is None or (read_header(self.folder / RESULT_NAME) is not None and has_ranks(self.folder))

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
            _check_comparable(identity)
        except UserError as error:
            raise type(error)(f"{trial.name}: {error}") from error
        folder = root / identity.fingerprint
        if folder in folders:
            raise SettingError(f"{folders[folder].name} and {trial.name} have the same settings; leave one out.")
        folders[folder], identities[folder] = trial._replace(data=identity.data), identity
    if records is not None:
        try:
            for folder, trial in folders.items():
                if is_finished(folder, trial.settings):
                    damage = _damage(folder, identities[folder])
                    if damage is None:
                        continue
                    _set_aside(folder, damage)  # it runs again
                records.take(identities[folder], trial.settings.get("max_minutes"), folder)
        except OSError as error:
            raise UserError(f"no records can be copied to {root}: {error.strerror or error}") from error
    return folders


def _damage(folder: Path, identity: Identity) -> str | None:
    """Why the folder of a finished run cannot be used, in words; ``None`` if it can."""
    result = read_result(folder)
    if not identity.is_of(result):
        return f"{RESULT_NAME} is of another run"
    if result["test_result"] is not None and not has_ranks(folder):  # it may be a pointer of Git LFS
        return f"{USERS_NAME} cannot be read"
    return None


def _set_aside(folder: Path, damage: str) -> None:
    """Give the folder of a run that cannot be used a name that nothing looks for."""
    kept = folder.with_name(f".{folder.name}.damaged")
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)
    logging.getLogger().warning(f"{folder}: {damage}; the run is kept as {kept.name} and runs again")


def _check_comparable(identity: Identity) -> None:
    """Refuse runs whose results by user cannot be compared.

    Raises:
        SettingError: Naming the key.
    """
    split, mode = (identity.settings["eval_args"].get(key) for key in ("split", "mode"))
    on_test = mode.get("test") if isinstance(mode, Mapping) else mode
    if on_test != "full" or split == {"LS": "valid_only"}:
        raise SettingError(
            f"eval_args: a leaderboard ranks all items for the targets of a test split; got mode {mode}, split {split}."
        )
    if identity.settings["valid_metric_bigger"] is False:
        raise SettingError(
            f"valid_metric {identity.settings['valid_metric']!r} is better if it is smaller; a leaderboard needs one "
            "that is better if it is larger, such as NDCG@10."
        )
    model = identity.settings["model"]
    if identity.settings["mask_history"] is None and find_model(model).type != ModelType.SEQUENTIAL:
        raise SettingError(
            f"mask_history must be none, all or except_target with {model} in a leaderboard, which compares models by "
            "target; without it, RecBole ranks the targets of a user one by one for sequential models, but together "
            f"for {model}."
        )


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
        if is_finished(folder, trial.settings):
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
                again.append(outcome)
            else:
                yield outcome
        for outcome in again:
            if budget.is_spent:
                yield outcome
            else:
                yield from _run_in_parallel(ray, [(outcome.trial, outcome.folder)], where, budget)


def _run_in_parallel(
    ray: Any, waiting: Sequence[tuple[Trial, Path]], where: Resources, budget: Budget
) -> Iterator[Outcome]:
    remaining = list(waiting)
    running: dict[Any, tuple[Trial, Path]] = {}
    limit = where.jobs if where.address is None else len(remaining)
    if budget.deadline is not None:  # what waits in Ray would be started when no time is left
        limit = min(limit, runs_that_fit(ray, where))
    while remaining or running:
        while remaining and budget.is_spent:
            yield _without_time(*remaining.pop(0), budget)
        while remaining and len(running) < limit:
            trial, folder = remaining.pop(0)
            started = start_run(ray, trial.settings, folder, where, deadline=budget.deadline, data=trial.data)
            running[started] = (trial, folder)
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
        options: Keyword arguments of :func:`run_in_folder`.

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
        write_failure(folder, settings, error, str(lost))
        return error, not isinstance(lost, ray.exceptions.RayTaskError)
    return error, lacks_memory(error)


def lacks_memory(error: str | None) -> bool:
    """Whether a run failed for lack of memory, so that it may succeed when it runs alone."""
    return error is not None and error.startswith(OUT_OF_MEMORY)


def from_anywhere(settings: Mapping[str, Any], folder: str | Path = ".") -> dict[str, Any]:
    """The settings with absolute paths.

    Args:
        settings: Of a run.
        folder: The folder of relative paths.
    """
    paths = {"data_path": "dataset", **{key: settings[key] for key in PATH_KEYS & settings.keys()}}
    files = {key: Path(folder, str(settings.get(key))) for key in (PRETRAINED, *NAMES_OF_SETTINGS)}
    for key, file in files.items():  # a file without suffix may share the name of a protocol
        if file.is_file() and (key == PRETRAINED or file.suffix in (".yaml", ".yml")):
            paths[key] = settings[key]
    return {**settings, **{key: str(Path(folder, path).absolute()) for key, path in paths.items() if path is not None}}
