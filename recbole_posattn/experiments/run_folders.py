"""The folder of a run: filled by the process that executes the run, and named when the run is complete.

Until then its name has the suffix ``.incomplete``. A run that was killed, lacked memory or could not use a file
continues there after its last epoch; one that had ended is only tidied up.
"""

from __future__ import annotations

import errno
import shutil
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import torch

from recbole_posattn.errors import CheckpointError, DataError, InUseError, SettingError, UserError, one_line
from recbole_posattn.experiments.budget import limited
from recbole_posattn.experiments.identity import identify
from recbole_posattn.experiments.records import INCOMPLETE, is_enough, read_header, write_record
from recbole_posattn.files import write_json
from recbole_posattn.locks import NO_TIMEOUT, locked
from recbole_posattn.settings.plugins import import_plugins
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.explained_errors import OUT_OF_MEMORY, is_out_of_memory
from recbole_posattn.training.result import RESULT_NAME, USERS_NAME
from recbole_posattn.training.resume import AUTO
from recbole_posattn.training.run import run
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from recbole_posattn.training.trainer import KERNELS_NAME

FAILURE_NAME = "failure.json"

# The settings that a search drew for a run, as they were drawn.
DRAWN_NAME = "drawn.json"

# Where RecBole writes while a run is not complete.
_SAVED = "saved"

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

# In each message of CUDA, whose errors may be those of another process on the GPU.
_CUDA_ERROR = "CUDA error"


def is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run is complete, and was not stopped with less time than it has now."""
    result = read_header(folder / RESULT_NAME)
    return result is not None and is_enough(result, settings.get("max_minutes"))


def run_in_folder(
    settings: dict[str, Any],
    folder: str | Path,
    n_threads: int,
    working_folder: str | Path = ".",
    deadline: float | None = None,
    drawn: Mapping[str, Any] | None = None,
    data: str | None = None,
    **options: Any,
) -> str | None:
    """Execute a run in this process and rename its folder when it is complete; returns the error, or ``None``.

    Args:
        settings: Of the run.
        folder: Receives ``result.json``, the checkpoint and the results by user; or ``failure.json``.
        n_threads: Number of CPU threads.
        working_folder: Where plugins that are not installed are found.
        deadline: When the run must have stopped, see :attr:`recbole_posattn.experiments.budget.Budget.deadline`.
        drawn: Those of the settings that a search drew, kept in ``drawn.json`` for a resumed search.
        data: Digest of the data that the run was planned with; with others, it fails.
        options: Keyword arguments of :func:`recbole_posattn.run`.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and ends this process
    torch.set_num_threads(n_threads)
    final = Path(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    # a process left behind by a killed driver may hold the lock; it ends soon, with or without a result
    with locked(lock_of_run(final), NO_TIMEOUT):
        if is_finished(final, settings):
            return None
        return _run_alone_in_folder(settings, final, Path(working_folder).absolute(), deadline, drawn, data, **options)


def lock_of_run(folder: Path) -> Path:
    """The lock file of a run; the process that executes the run holds the lock."""
    return folder.with_name(f"{folder.name}.lock")


def _run_alone_in_folder(
    settings: dict[str, Any],
    final: Path,
    working_folder: Path,
    deadline: float | None,
    drawn: Mapping[str, Any] | None,
    data: str | None,
    **options: Any,
) -> str | None:
    incomplete = final.with_name(f"{final.name}{INCOMPLETE}")
    try:
        import_plugins(settings.get("plugins", ()), working_folder)
        _complete(incomplete, final, settings, data)
        if is_finished(final, settings):
            return None
        if data is not None:
            _check_data(identify(settings).data, data, settings)
        if not incomplete.exists() and (final / LAST_NAME).is_file():
            _continue_stopped(final, incomplete, settings)
        settings = limited(settings, _trained_minutes(incomplete), deadline)
        incomplete.mkdir(exist_ok=True)  # exists if the run was killed; it continues there
        if drawn is not None:
            write_json(incomplete / DRAWN_NAME, drawn)
        with chdir(incomplete):  # where RecBole leaves its logs
            run(config_dict=_in_saved(settings), command_line=[], resume=AUTO, **options)
        _complete(incomplete, final, settings, data)
    except Exception as error:
        reason = one_line(error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        if is_out_of_memory(error):
            reason = f"{OUT_OF_MEMORY}: {reason}"
        if not _may_continue(error):
            shutil.rmtree(incomplete, ignore_errors=True)
        with suppress(OSError):
            write_failure(final, settings, reason, traceback.format_exc())
        return reason
    return None


def _in_saved(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "checkpoint_dir": _SAVED, "show_progress": False}


def _may_continue(error: Exception) -> bool:
    """Whether a run that failed may continue after its last epoch: with more memory, space or another device, say."""
    causes = [error, *_causes(error)]
    if any(isinstance(cause, OSError) and cause.errno in _FULL_DISK for cause in causes):
        return True
    if isinstance(error, (SettingError, DataError, CheckpointError)):  # which it would meet again
        return False
    return isinstance(error, OSError) or any(is_out_of_memory(cause) or _CUDA_ERROR in str(cause) for cause in causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors that led to an error."""
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _check_data(used: str | None, planned: str, settings: Mapping[str, Any]) -> None:
    """Refuse data that were replaced after a run was planned, whose folder would then have the name of another run.

    Raises:
        DataError: If the digests differ.
    """
    if used != planned:
        raise DataError(
            f"the data set {settings['dataset']} has changed since this run was planned; repeat the command of a "
            "leaderboard, which plans all runs with the present data, or start a new search with another --output"
        )


def _complete(incomplete: Path, final: Path, settings: Mapping[str, Any], data: str | None) -> None:
    """Tidy the folder of a run that has ended, and give it its name; if the run has not ended, do nothing.

    ``result.json``, which a run writes last, is moved last, so that this can be done again after it was killed.

    Raises:
        DataError: If it was trained on other data than those that it was planned with.
    """
    ended = [incomplete / RESULT_NAME, *sorted(incomplete.glob(f"{_SAVED}/*/{RESULT_NAME}"))]
    results = ((file, read_header(file)) for file in ended)
    file, result = next(((file, result) for file, result in results if result is not None), (None, None))
    if file is None or result is None:
        return
    if data is not None:
        _check_data(result["data_digest"], data, settings)
    if file.parent != incomplete:
        weights = Path(result["checkpoint"]).name
        had = {"max_minutes": result["config"]["max_minutes"]}  # perhaps less than it would get now
        write_record(file, {**_in_saved(settings), **had}, weights)
        last = {LAST_NAME} if result["stopped_by"] else set()  # to continue from, if it gets more time
        for name in (*{weights, BEST_NAME, USERS_NAME, KERNELS_NAME}, *last, RESULT_NAME):
            if file.with_name(name).exists():
                shutil.move(file.with_name(name), incomplete / name)
    shutil.rmtree(incomplete / _SAVED, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)  # from a failed attempt
    incomplete.rename(final)


def _trained_minutes(incomplete: Path) -> float:
    """The minutes of training behind the checkpoint from which a run continues; 0 if it starts."""
    files = sorted(incomplete.glob(f"{_SAVED}/*/{LAST_NAME}"), key=lambda file: file.stat().st_mtime)
    try:
        return float(read_checkpoint(files[-1])["training"]["seconds"]) / 60 if files else 0.0
    except CheckpointError:  # which the run reports
        return 0.0


def _continue_stopped(final: Path, incomplete: Path, settings: Mapping[str, Any]) -> None:
    """Lay out a run that ``max_minutes`` stopped as if it had been killed; its record stays until it is finished."""
    prepared = incomplete.with_name(f".{incomplete.name}")
    shutil.rmtree(prepared, ignore_errors=True)
    folder = prepared / _SAVED / f"{settings['model']}-{settings['dataset']}-stopped"
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


def write_failure(folder: Path, settings: Mapping[str, Any], reason: str, details: str) -> None:
    """Write why a run failed."""
    folder.mkdir(parents=True, exist_ok=True)
    report = {"error": reason, "settings": dict(settings), "details": details}
    write_json(folder / FAILURE_NAME, report, default=str)
