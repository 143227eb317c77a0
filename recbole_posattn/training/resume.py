"""Which run to go on with, and with which settings."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from recbole_posattn import distributed
from recbole_posattn.errors import CheckpointError, InUseError, SettingError, UserError
from recbole_posattn.files import has_incomplete, remove_incomplete
from recbole_posattn.locks import lock_file
from recbole_posattn.settings.combinations import resolved_negatives
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.keys import CHANGEABLE, RESUMABLE
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training.checkpoint import BEST_NAME, LAST_NAME, read_checkpoint, use_explained
from recbole_posattn.training.same_run import check_data, setting_differences, shown_differences

AUTO = "auto"
LOCK_NAME = "run.lock"

# What is recorded of a setting that has changed on the way.
_CHANGE = ("epoch", "key", "before", "now")


class Resumed(NamedTuple):
    """A run to go on with.

    Attributes:
        config: Its settings, with those of now that may differ.
        folder: Its folder.
        content: Of its last checkpoint.
        changes: Every setting of :data:`recbole_posattn.settings.keys.CHANGEABLE` that has changed on the way: the
            ``epoch`` from which on (counted from 0), the ``key``, and what it was (``before``) and is (``now``).
        lock: Of the folder; ``None`` where there is none, as in all processes but the first.
    """

    config: Config
    folder: Path
    content: dict[str, Any]
    changes: list[dict[str, Any]]
    lock: FileLock | None

    def release(self) -> None:
        """Let other processes have the folder."""
        if self.lock is not None:
            self.lock.release()


def lock_run(folder: Path) -> FileLock | None:
    """Take a run's folder for this process, until the lock is released or the process ends.

    Returns:
        The lock; ``None`` where the file system knows none.

    Raises:
        CheckpointError: If another process has it.
    """
    try:
        return lock_file(folder / LOCK_NAME)
    except InUseError:
        raise CheckpointError(
            f"the run in {folder} is being trained by another process: wait for its end, or start a run of its own "
            "without --resume"
        ) from None


def resumed_run(resume: str | Path, given: Config) -> Resumed | None:
    """The run that is meant, locked.

    Of many processes, the first looks for it and tells the others.

    Args:
        resume: A run's folder or a checkpoint in it; or ``auto`` for the run below ``checkpoint_dir`` with the settings
            of now that has come farthest.
        given: The settings of now.

    Returns:
        The run; ``None`` if there is none for ``auto``.

    Raises:
        CheckpointError: If there is no run in the folder, its checkpoints cannot be read, or another process has it.
        SettingError: If a setting was given that would make it another run.
    """
    found = None
    if distributed.is_main():
        folder = _farthest_run(given) if str(resume) == AUTO else _run_folder(resume)
        found = None if folder is None else _open_run(folder)
    lock = None if found is None else found[2]
    shared = distributed.share_from_main(None if found is None else found[:2])
    if shared is None:
        return None
    folder, content = shared
    try:
        with use_explained(folder / LAST_NAME):
            config = _settings_of_now(folder, content, given, str(resume) == AUTO)
            before = [{key: change[key] for key in _CHANGE} for change in content["training"]["changes"]]
            changes = [*before, *_changes(content, config, given.defaults())]
    except UserError:
        if lock is not None:
            lock.release()
        raise
    return Resumed(config, folder, content, changes, lock)


def names_of_run(resume: str | Path) -> dict[str, str]:
    """The names of the model and the data set of a run, by the keys ``model`` and ``dataset``.

    Raises:
        CheckpointError: If there is no run that could go on.
    """
    last = _run_folder(resume) / LAST_NAME
    settings = read_checkpoint(last)["config"]
    with use_explained(last):
        return {key: settings[key] for key in ("model", "dataset")}


def _run_folder(resume: str | Path) -> Path:
    """The folder of the run that a path means: the folder itself or a checkpoint in it.

    Raises:
        CheckpointError: If there is no run that could go on.
    """
    folder = Path(resume) if Path(resume).is_dir() else Path(resume).parent
    if not (folder / LAST_NAME).is_file():
        raise CheckpointError(
            f"there is no run to go on with in {folder}: no {LAST_NAME}, which is written after each epoch; name the "
            "folder of a run below saved/, or auto"
        )
    return folder


def _farthest_run(given: Config) -> Path | None:
    """Of all runs with these settings and data; they are alike as far as they have come, so that no clock is asked."""
    found: list[tuple[int, int, Path]] = []
    name = glob.escape(f"{given['model']}-{given['dataset']}-")
    for folder in sorted(Path(given["checkpoint_dir"]).glob(f"{name}*")):
        file = folder / LAST_NAME
        if not file.is_file():
            _tidy(folder)
            continue
        try:
            content = read_checkpoint(file)
            with use_explained(file):
                differing = setting_differences(content, given)
                left = content["training"]["left"] or {"steps": 0}
                progress = (int(content["epoch"]), int(left["steps"]), folder)
            if differing:
                logging.getLogger().info(f"The run in {folder} is not this one: it has {shown_differences(differing)}")
                continue
            check_data(folder, content, given)
        except CheckpointError as error:
            logging.getLogger().warning(f"{error}; it is passed over")
            continue
        found.append(progress)
    return max(found)[-1] if found else None


def _tidy(folder: Path) -> None:
    """Remove what a process has left that died while it wrote the first file of its run."""
    if not has_incomplete(folder):
        return
    try:
        lock = lock_run(folder)
    except CheckpointError:
        return  # it has not died
    if lock is not None:
        remove_incomplete(folder)
        lock.release()


def _open_run(folder: Path) -> tuple[Path, dict[str, Any], FileLock | None]:
    """Lock a run, remove what a process that died while it was writing has left, and read its last checkpoint."""
    lock = lock_run(folder)
    try:
        remove_incomplete(folder)
        content = read_checkpoint(folder / LAST_NAME)
        if "training" not in content:
            raise CheckpointError(f"checkpoint {folder / LAST_NAME} holds a model, but no training that could go on")
        with use_explained(folder / LAST_NAME):
            has_best = content["training"]["best_epoch"] >= 0
        if has_best:
            read_checkpoint(folder / BEST_NAME)  # without which the run could not end
    except CheckpointError:
        if lock is not None:
            lock.release()
        raise
    return folder, content, lock


def _settings_of_now(folder: Path, content: Mapping[str, Any], given: Config, takes_defaults: bool) -> Config:
    settings, now, named = content["config"], given.plain(), given.given_keys()
    differing = setting_differences(content, given)
    if "train_neg_sample_args" in named and "loss_negatives" in settings:  # what our models make of it
        negatives = given.external_config_dict["train_neg_sample_args"]
        drawn = resolved_negatives({**settings, "train_neg_sample_args": negatives})
        if plain_data(drawn) != settings["loss_negatives"]:
            differing["train_neg_sample_args"] = (settings["loss_negatives"], plain_data(negatives))
    for key, (before, value) in differing.items():
        if key in named and key not in CHANGEABLE:
            raise SettingError(
                f"the run in {folder} has {key} {before!r}, not {value!r}: leave {key} out to go on with it, "
                "or --resume to start another run"
            )
    changed = RESUMABLE & now.keys() if takes_defaults else (RESUMABLE | CHANGEABLE) & named & now.keys()
    n_processes = len(content["training"]["random"])
    if n_processes != distributed.world_size():
        raise SettingError(
            f"the run in {folder} is one of {n_processes} processes, not {distributed.world_size()}: go on with "
            f"--nproc={n_processes}"
        )
    given_keys = set(content["training"].get("given", ())) | (named & changed)
    return Config.from_plain({**settings, **{key: now[key] for key in changed}}, given_keys=given_keys)


def _changes(content: Mapping[str, Any], config: Config, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    now = config.plain()
    before = {key: content["config"].get(key, defaults.get(key)) for key in CHANGEABLE & now.keys()}
    return [
        {"epoch": content["epoch"] + 1, "key": key, "before": before[key], "now": now[key]}
        for key in sorted(before)
        if before[key] != now[key]
    ]
