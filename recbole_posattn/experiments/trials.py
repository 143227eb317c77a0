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
import math
import os
import shutil
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.data.digest import data_digest
from recbole_posattn.errors import ProcessError, SettingError, UserError
from recbole_posattn.files import json_text, whole_file
from recbole_posattn.settings.config import Config
from recbole_posattn.training import interrupts
from recbole_posattn.training.checkpoint import BEST_NAME
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME
from recbole_posattn.training.resume import AUTO
from recbole_posattn.training.run import run
from recbole_posattn.training.trainer import KERNELS_NAME
from recbole_posattn.version import RESULTS_VERSION

FAILURE_NAME = "failure.json"

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
        reused: Whether it had been finished before.
    """

    trial: Trial
    folder: Path
    error: str | None = None
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


class Where(NamedTuple):
    """Where trials are run.

    Attributes:
        jobs: Runs at a time on this machine; without meaning on a cluster, which runs as many as it has room for.
        address: Of a Ray cluster (``auto``, ``ray://host:port``); ``None`` for this machine.
        cpus: CPUs, and so threads, of a run; by default this machine's share of a job.
        gpus: GPUs of a run, parts allowed.
    """

    jobs: int = 1
    address: str | None = None
    cpus: int | None = None
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Threads of a run."""
        return self.cpus or max(1, (os.cpu_count() or 1) // self.jobs)


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
            folder = root / fingerprint(trial.settings)
        except UserError as error:
            raise type(error)(f"{trial.name}: {error}") from error
        if folder in folders:
            raise SettingError(f"{folders[folder].name} and {trial.name} have the same settings; leave one out.")
        folders[folder] = trial
    return folders


def run_trials(trials: Mapping[Path, Trial], where: Where) -> Iterator[Outcome]:
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


def _run_on_ray(waiting: Sequence[tuple[Trial, Path]], where: Where) -> Iterator[Outcome]:
    with ray_cluster(where) as ray:
        # A process of its own for each run: nothing is left of the one before, and its memory is its own.
        task = ray.remote(num_cpus=where.threads, num_gpus=where.gpus, max_calls=1, max_retries=0)(run_in_folder)
        running = {
            task.remote(from_anywhere(trial.settings), str(folder.absolute()), where.threads): (trial, folder)
            for trial, folder in waiting
        }
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            trial, folder = running.pop(done)
            try:
                error = ray.get(done)
            except ray.exceptions.RayError as lost:  # the process died: killed for its memory, say
                error = f"the process of the run died: {str(lost).splitlines()[0]}"
                _write_failure(folder, dict(trial.settings), error, str(lost))
            yield Outcome(trial, folder, error)


@contextmanager
def ray_cluster(where: Where) -> Iterator[Any]:
    """The ``ray`` module, connected; what was started for it is gone afterwards.

    Raises:
        SettingError: If Ray is not installed or does not answer at its address.
        ProcessError: If it does not start on this machine.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        import ray
    except ImportError as error:
        raise SettingError(
            f"running trials needs Ray, which cannot be imported ({error}): pip install 'ray[tune]'"
        ) from error
    scratch = tempfile.mkdtemp(prefix="posattn-") if where.address is None else None
    try:
        _connect(ray, where, scratch)
        interrupts.handle_again()
        yield ray
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _connect(ray: Any, where: Where, scratch: str | None) -> None:
    """Start Ray on this machine, with its files in a folder, or connect it to a cluster if there is no folder."""
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if scratch is None:
            ray.init(address=where.address, **quiet)
        else:
            n_cpus = where.jobs * where.threads
            ray.init("local", num_cpus=n_cpus, include_dashboard=False, _temp_dir=scratch, **quiet)
    except Exception as error:  # Ray has no class for processes of its own that do not answer in time
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if scratch is not None:
            raise ProcessError(f"Ray did not start on this machine, which may be too busy: {reason}") from error
        if not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
            raise
        raise SettingError(f"no Ray cluster answers at address {where.address!r}: {reason}") from error


def run_in_folder(settings: dict[str, Any], folder: str | Path, n_threads: int, **options: Any) -> str | None:
    """Do one run in this process and give its folder its name; the reason if it fails.

    Args:
        settings: Of the run.
        folder: Where ``result.json``, the checkpoint and the results by user are afterwards, or ``failure.json``.
        n_threads: To compute with.
        options: Of :func:`recbole_posattn.run`.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's, which ends this process
    torch.set_num_threads(n_threads)
    final = Path(folder)
    incomplete = final.with_name(f"{final.name}.incomplete")
    incomplete.mkdir(parents=True, exist_ok=True)  # it is there where a run was killed, which goes on
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
