"""Many runs, one process each, on this machine's cores or a Ray cluster: for leaderboards and for tuning.

A run lives in a folder named by a fingerprint of its resolved settings. It is written beside, under another name, and
takes its name when it is complete: what has its name is finished and is not run again. One that was killed goes on
after its last epoch. A run that fails leaves the reason and does not stop the others.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
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

from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.digest import data_digest
from recbole_posattn.errors import InUseError, SettingError, UserError
from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.files import json_text, whole_file
from recbole_posattn.locks import FOR_EVER, locked
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.extensions import check_known_in_workers
from recbole_posattn.training.checkpoint import BEST_NAME
from recbole_posattn.training.explained_errors import OUT_OF_MEMORY
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME
from recbole_posattn.training.resume import AUTO
from recbole_posattn.training.run import run
from recbole_posattn.training.trainer import KERNELS_NAME
from recbole_posattn.version import RESULTS_VERSION

FAILURE_NAME = "failure.json"

# Of the name of a folder with a run that is not complete.
INCOMPLETE = ".incomplete"

# Settings that change where a run is done or what it prints, but not its result. The data is identified by its
# contents, not its path.
_NO_MATTER = {
    "checkpoint_dir",
    "data_path",
    "device",
    "gpu_id",
    "local_rank",
    "log_wandb",
    "process_timeout",
    "save_kernel_every",
    "save_last_every",
    "show_progress",
    "state",
    "world_size",
}


class Trial(NamedTuple):
    """A run to be done.

    Attributes:
        name: What the user calls it.
        settings: All that is given for it: ``model``, ``dataset``, ``seed`` and whatever differs from the defaults.
    """

    name: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        trial: The trial.
        folder: Its folder.
        error: Why it failed; ``None`` if it did not.
        lacked_memory: Whether it may have failed for its memory.
        reused: Whether it had been finished before.
    """

    trial: Trial
    folder: Path
    error: str | None = None
    lacked_memory: bool = False
    reused: bool = False

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        return read_result(self.folder)

    @property
    def users(self) -> pd.DataFrame:
        """The table of :func:`recbole_posattn.evaluation.target_ranks.user_results`."""
        return pd.read_parquet(self.folder / USERS_NAME)


def read_result(folder: Path, name: str = RESULT_NAME) -> dict[str, Any]:
    """The content of a JSON file that a run left in its folder; scores that are no numbers, ``null`` there, are NaN."""
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    for scores in (content, *content.get("curve", ())):
        for key in scores.keys() & {"best_valid_score", "loss"}:
            scores[key] = math.nan if scores[key] is None else scores[key]
        for key in scores.keys() & {"best_valid_result", "test_result", "valid"}:
            scores[key] = with_nan(scores[key])
    return content


def with_nan(scores: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Scores that were read from JSON: those that are ``null`` are NaN again."""
    if scores is None:
        return None
    return {key: math.nan if score is None else score for key, score in scores.items()}


def forget_checkpoint(folder: Path) -> None:
    """Remove the weights of a run; its ``result.json`` then names none."""
    (folder / BEST_NAME).unlink(missing_ok=True)
    if (folder / RESULT_NAME).is_file():
        _rewrite_checkpoint(folder / RESULT_NAME, None)


def _rewrite_checkpoint(file: Path, checkpoint: Path | None) -> None:
    """Have a ``result.json`` name the place where the weights are now; its time stays that of the run's end."""
    result, times = json.loads(file.read_text(encoding="utf-8")), file.stat()
    result["checkpoint"] = None if checkpoint is None else str(checkpoint)
    with whole_file(file) as incomplete:
        incomplete.write_text(json_text(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.utime(incomplete, ns=(times.st_atime_ns, times.st_mtime_ns))


def validated_epochs(result: Mapping[str, Any]) -> list[tuple[int, float, float]]:
    """``(epoch, loss, score)`` of each epoch that was validated, counted from 1, by the metric that was watched.

    Args:
        result: The content of ``result.json``.
    """
    watched = result["config"]["valid_metric"].lower()
    return [
        (point["epoch"] + 1, point["loss"], point["valid"][watched]) for point in result["curve"] if "valid" in point
    ]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that tell runs with different results apart.

    They are made of the settings that change a result, the contents of the data and :data:`RESULTS_VERSION`.

    A data set that is missing is downloaded.

    Args:
        settings: What a trial is given.

    Raises:
        SettingError: If the settings cannot be used.
        DataError: If the data set cannot.
    """
    config = Config(config_dict=settings, command_line=[])
    ensure_atomic_files(config)
    matter = {key: value for key, value in config.plain().items() if key not in _NO_MATTER}
    text = json.dumps([RESULTS_VERSION, matter, data_digest(config)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checked_folders(trials: Sequence[Trial], root: Path) -> dict[Path, Trial]:
    """Trials by their folders below ``root``.

    Raises:
        SettingError: Naming the trial whose settings cannot be used, or two that are the same run.
        DataError: Naming the trial whose data set cannot.
    """
    folders: dict[Path, Trial] = {}
    for trial in trials:
        try:
            check_known_in_workers(trial.settings)
            folder = root / fingerprint(trial.settings)
        except UserError as error:
            raise type(error)(f"{trial.name}: {error}") from error
        if folder in folders:
            raise SettingError(f"{folders[folder].name} and {trial.name} have the same settings; leave one out.")
        folders[folder] = trial
    return folders


def run_trials(trials: Mapping[Path, Trial], where: Resources) -> Iterator[Outcome]:
    """Run what is not finished yet, and yield each outcome when it is there; reused ones come first.

    Args:
        trials: By their folders, as :func:`checked_folders` returns them.
        where: Where they are run.

    Raises:
        SettingError: If Ray is not installed or does not answer at its address.
    """
    waiting = []
    for folder, trial in trials.items():
        if (folder / RESULT_NAME).is_file():
            yield Outcome(trial, folder, reused=True)
        else:
            waiting.append((trial, folder))
    if waiting:
        yield from _run_on_ray(waiting, where)


def _run_on_ray(waiting: Sequence[tuple[Trial, Path]], where: Resources) -> Iterator[Outcome]:
    """The outcomes of runs side by side, then of those that lacked memory, which run once more, each of them alone."""
    has_company = len(waiting) > 1 and (where.jobs > 1 or where.address is not None)
    with ray_cluster(where) as ray:
        again = []
        for outcome in _side_by_side(ray, waiting, where):
            if outcome.lacked_memory and has_company:
                name, seed = outcome.trial.name, outcome.trial.settings.get("seed", "of the defaults")
                logging.getLogger().warning(
                    f"{name}, seed {seed}: {outcome.error}; it runs once more, alone, when the others have ended"
                )
                again.append((outcome.trial, outcome.folder))
            else:
                yield outcome
        for one in again:
            yield from _side_by_side(ray, [one], where)


def _side_by_side(ray: Any, waiting: Sequence[tuple[Trial, Path]], where: Resources) -> Iterator[Outcome]:
    left, running = list(waiting), {}
    most = where.jobs if where.address is None else len(left)
    while left or running:
        while left and len(running) < most:
            trial, folder = left.pop(0)
            running[start_run(ray, trial.settings, folder, where)] = (trial, folder)
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        trial, folder = running.pop(done)
        yield Outcome(trial, folder, *end_of_run(ray, done, trial.settings, folder))


def start_run(ray: Any, settings: Mapping[str, Any], folder: Path, where: Resources, **options: Any) -> Any:
    """Let Ray do a run in a process of its own: nothing is left of the one before, and its memory is its own.

    Args:
        ray: See :func:`recbole_posattn.experiments.cluster.ray_cluster`.
        settings: Of the run.
        folder: Of the run.
        where: How many CPUs and GPUs it takes.
        options: Of :func:`recbole_posattn.run`.

    Returns:
        What :func:`end_of_run` waits for.
    """
    task = ray.remote(num_cpus=where.threads, num_gpus=where.gpus, max_calls=1, max_retries=0)(run_in_folder)
    return task.remote(from_anywhere(settings), str(folder.absolute()), where.threads, **options)


def end_of_run(ray: Any, started: Any, settings: Mapping[str, Any], folder: Path) -> tuple[str | None, bool]:
    """Why a run failed, ``None`` if it did not, and whether it may have lacked memory."""
    try:
        error = ray.get(started)
    except ray.exceptions.RayError as lost:  # the process died, or was killed for its memory
        first, *_ = str(lost).replace(". Memory on the node", "\n").splitlines()  # and its addresses and numbers
        error = f"the process of the run died: {first}"
        _write_failure(folder, dict(settings), error, str(lost))
        return error, not isinstance(lost, ray.exceptions.RayTaskError)
    return error, lacks_memory(error)


def lacks_memory(error: str | None) -> bool:
    """Whether a run failed for its memory, so that it may come to its end with nothing beside it."""
    return error is not None and error.startswith((OUT_OF_MEMORY, MemoryError.__name__))


def run_in_folder(settings: dict[str, Any], folder: str | Path, n_threads: int, **options: Any) -> str | None:
    """Do one run in this process and give its folder its name; the reason if it fails.

    Args:
        settings: Of the run.
        folder: Resources ``result.json``, the checkpoint and the results by user are afterwards, or ``failure.json``.
        n_threads: To compute with.
        options: Of :func:`recbole_posattn.run`.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which ends this process
    torch.set_num_threads(n_threads)
    final = Path(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    # held by a process that a killed driver has left behind: it ends soon, with or without a result
    with locked(lock_of_run(final), FOR_EVER):
        if (final / RESULT_NAME).is_file():
            return None
        return _run_alone_in_folder(settings, final, **options)


def lock_of_run(folder: Path) -> Path:
    """The file that the process locks whose run it is."""
    return folder.with_name(f"{folder.name}.lock")


def _run_alone_in_folder(settings: dict[str, Any], final: Path, **options: Any) -> str | None:
    incomplete = final.with_name(f"{final.name}{INCOMPLETE}")
    incomplete.mkdir(exist_ok=True)  # it is there where a run was killed, which goes on
    try:
        with chdir(incomplete):  # where RecBole leaves its logs
            settings = {**settings, "checkpoint_dir": "saved", "show_progress": False}
            result = run(config_dict=settings, command_line=[], resume=AUTO, **options)
            weights = Path(result["checkpoint"])
            for name in {weights.name, BEST_NAME, RESULT_NAME, USERS_NAME, KERNELS_NAME}:
                file = weights.with_name(name)
                if file.exists():
                    shutil.move(file, name)
            _rewrite_checkpoint(Path(RESULT_NAME), final / weights.name)
            shutil.rmtree("saved")
        shutil.rmtree(final, ignore_errors=True)  # of an attempt that failed
        incomplete.rename(final)
    except Exception as error:
        reason = " ".join((str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}").split())
        shutil.rmtree(incomplete)
        _write_failure(final, settings, reason, traceback.format_exc())
        return reason
    return None


def remove_left_over(root: Path, wait: float = 0) -> None:
    """Remove what stopped runs have left below a folder, but nothing that another process holds.

    Args:
        root: The folder of the runs' folders.
        wait: Seconds to wait for a process that holds a run, of one that is being stopped.
    """
    for left in root.glob(f"*{INCOMPLETE}"):
        with suppress(InUseError), locked(lock_of_run(left.with_suffix("")), wait):
            shutil.rmtree(left, ignore_errors=True)


def from_anywhere(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with paths that do not depend on the working folder."""
    paths = {"data_path": settings.get("data_path", "dataset")}
    if Path(str(settings.get("protocol"))).is_file():
        paths["protocol"] = settings["protocol"]
    return {**settings, **{key: str(Path(path).absolute()) for key, path in paths.items()}}


def _write_failure(folder: Path, settings: dict[str, Any], reason: str, details: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report = {"error": reason, "settings": settings, "details": details}
    with whole_file(folder / FAILURE_NAME) as incomplete:
        incomplete.write_text(json_text(report, indent=2, default=str) + "\n", encoding="utf-8")
