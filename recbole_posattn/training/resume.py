"""Find the run to continue, and its settings."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import without_checkpoint_folder
from recbole_posattn.compat.tensorboard import tensorboard_in

import torch
from filelock import FileLock

from recbole_posattn import distributed
from recbole_posattn.errors import CheckpointError, InUseError, SettingError, UserError, counted
from recbole_posattn.files import has_incomplete, remove_incomplete
from recbole_posattn.locks import lock_file
from recbole_posattn.settings.combinations import resolved_negatives
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.encodings import resolve_encodings
from recbole_posattn.settings.keys import (
    CHANGEABLE,
    LAUNCHER_ARGUMENTS,
    NAMES_OF_SETTINGS,
    PLACES,
    RESUMABLE,
    value_before,
)
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.settings.plugins import check_plugins_of_checkpoint
from recbole_posattn.settings.properties import is_shipped
from recbole_posattn.training.best_file import check_best, return_to_best
from recbole_posattn.training.checkpoint import explain_checkpoint_errors, read_checkpoint
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.same_run import check_data, lowered_limits, setting_differences, shown_differences

AUTO = "auto"
LOCK_NAME = "run.lock"

# What is recorded of a setting that was changed on resume.
_CHANGE = ("epoch", "key", "before", "now")


class Resumed(NamedTuple):
    """A run to continue.

    Attributes:
        config: Its settings, with the current values of those that may be changed.
        folder: Its folder.
        content: Content of its last checkpoint.
        changes: Each change of a setting of :data:`recbole_posattn.settings.keys.CHANGEABLE`, or to a lower
            ``stopping_step``: the first ``epoch`` with the new value (counted from 0), the ``key``, and the old
            (``before``) and new value (``now``).
        lock: Lock of the folder; ``None`` if it cannot be locked, and in all processes except the first.
    """

    config: Config
    folder: Path
    content: dict[str, Any]
    changes: list[dict[str, Any]]
    lock: FileLock | None

    def differences(self) -> Iterator[str]:
        """What differs from the run before, in words."""
        training = self.content["training"]
        here = {"PyTorch": ("torch", str(torch.__version__)), "threads": ("threads", torch.get_num_threads())}
        for name, (key, now) in here.items():
            if (before := training[key]) != now:
                yield f"The run continues with {name} {now} instead of {before}: results may differ in the last digits"
        for change in self.changes:
            yield "From epoch {epoch} on, {key} is {now} instead of {before}".format(**change)

    def release(self) -> None:
        """Release the folder to other processes."""
        if self.lock is not None:
            self.lock.release()


def lock_run(folder: Path) -> FileLock | None:
    """Lock a run's folder for this process, until the lock is released or the process ends.

    Returns:
        The lock; ``None`` if the file system has no locks.

    Raises:
        CheckpointError: If another process holds it.
    """
    try:
        return lock_file(folder / LOCK_NAME)
    except InUseError:
        raise CheckpointError(
            f"the run in {folder} is being trained by another process: wait until it ends, or start a new run "
            "without --resume"
        ) from None


def resumed_run(resume: str | Path, given: Config) -> Resumed | None:
    """Find the run to continue, and lock it.

    With several processes, rank 0 finds it and shares it with the others.

    Args:
        resume: A run's folder or a checkpoint in it; or ``auto`` for the run below ``checkpoint_dir`` that has the
            current settings and the most progress.
        given: The current settings.

    Returns:
        The run; ``None`` if there is none for ``auto``.

    Raises:
        CheckpointError: If there is no run in the folder, its checkpoints cannot be read, or another process holds it.
        SettingError: If a given setting differs from the run's and may not be changed.
    """
    opened = None
    if distributed.is_main():
        folder = _farthest_run(given) if str(resume) == AUTO else _run_folder(resume)
        opened = None if folder is None else _open_run(folder)
    lock = None if opened is None else opened[2]
    shared = distributed.broadcast_from_main(None if opened is None else opened[:2])
    if shared is None:
        return None
    folder, content = shared
    try:
        with explain_checkpoint_errors(folder / LAST_NAME):
            config = _resumed_settings(folder, content, given, str(resume) == AUTO)
            before = [{key: change[key] for key in _CHANGE} for change in content["training"]["changes"]]
            changes = [*before, *_changes(content, config, given.defaults(of_keys=True))]
    except UserError:
        if lock is not None:
            lock.release()
        raise
    return Resumed(config, folder, content, changes, lock)


def config_to_resume(resume: str | Path, build: Callable[[Mapping[str, Any]], Config]) -> Config:
    """Build the current settings for a run to continue: those given now and those that were given for the run.

    So a setting given now is checked together with the others of the run.

    Args:
        resume: The run's folder or a checkpoint in it.
        build: Takes the names of the run's model and data set, by the keys ``model`` and ``dataset``, and the settings
            that were given for it, but for those of its place.

    Raises:
        CheckpointError: If there is no run to continue.
        SettingError: If the settings cannot be used; names the plugin that the run needs if that is the reason.
    """
    last = _run_folder(resume) / LAST_NAME
    content = read_checkpoint(last)
    settings = content["config"]
    with explain_checkpoint_errors(last):
        given = set(content.get("training", {}).get("given", ())) & settings.keys() - PLACES - LAUNCHER_ARGUMENTS
        named = {key: settings[key] for key in NAMES_OF_SETTINGS & given if settings[key] is not None}
        if not all(is_shipped(key, name) for key, name in named.items()):
            given = set()  # the user's file may have changed, or be gone
        of_run = {key: settings[key] for key in {"model", "dataset"} | given}
        if "lr_scheduler" in of_run and settings.get("lr_decay_epochs") is not None:
            of_run["lr_decay_epochs"] = settings["lr_decay_epochs"]  # a run keeps its schedule
        if (resolved := of_run.get("train_neg_sample_args")) and resolved["distribution"] == "none":  # as RecBole does
            of_run["train_neg_sample_args"] = settings.get("loss_negatives")  # what our models resolve the key to
    try:
        return build(of_run)
    except SettingError:
        check_plugins_of_checkpoint(settings)
        raise


@contextmanager
def continued(config: Config, resumed: Resumed) -> Iterator[None]:
    """Within it, a trainer is built for a run in its own folder, and continues its TensorBoard log."""
    with explain_checkpoint_errors(resumed.folder / LAST_NAME):
        log = tensorboard_in(resumed.content["training"].get("tensorboard"), int(resumed.content["epoch"]) + 1)
    # A pretraining also writes to checkpoint_dir.
    with log, without_checkpoint_folder(config) if config["train_stage"] is None else nullcontext():
        yield


def _run_folder(resume: str | Path) -> Path:
    """The folder of a run, given by itself or by a checkpoint in it.

    Raises:
        CheckpointError: If there is no run to continue.
    """
    path = Path(resume)
    folder = path.parent if path.is_file() else path
    if not (folder / LAST_NAME).is_file():
        raise CheckpointError(
            f"there is no run to continue in {folder}: no {LAST_NAME}, which is written after each epoch; name the "
            "folder of a run below saved/, or auto"
        )
    return folder


def _farthest_run(given: Config) -> Path | None:
    """The run with these settings and data that has the most progress; such runs are alike, whenever they started."""
    candidates: list[tuple[int, int, Path]] = []
    name = glob.escape(f"{given['model']}-{given['dataset']}-")
    for folder in sorted(Path(given["checkpoint_dir"]).glob(f"{name}*")):
        file = folder / LAST_NAME
        if not file.is_file():
            _tidy(folder)
            continue
        try:
            content = read_checkpoint(file)
            with explain_checkpoint_errors(file):
                differing = {**setting_differences(content, given), **lowered_limits(content, given)}
                changed = sorted({change["key"] for change in content["training"]["changes"]} & CHANGEABLE)
                left = content["training"]["left"] or {"steps": 0}
                progress = (int(content["epoch"]), int(left["steps"]), folder)
            if differing:
                logging.getLogger().info(f"The run in {folder} differs: it has {shown_differences(differing)}")
                continue
            if changed:
                logging.getLogger().info(f"The run in {folder} was begun with other settings: {', '.join(changed)}")
                continue
            check_data(folder, content, given)
            check_best(folder, content)
        except CheckpointError as error:
            logging.getLogger().warning(f"{error}; it is skipped")
            continue
        candidates.append(progress)
    return max(candidates)[-1] if candidates else None


def _tidy(folder: Path) -> None:
    """Remove the incomplete files of a process that died while writing the first file of its run."""
    if not has_incomplete(folder):
        return
    try:
        lock = lock_run(folder)
    except CheckpointError:
        return  # the process is alive
    if lock is not None:
        remove_incomplete(folder)
        lock.release()


def _open_run(folder: Path) -> tuple[Path, dict[str, Any], FileLock | None]:
    """Lock a run, remove incomplete files of a process that died, and read its last checkpoint."""
    lock = lock_run(folder)
    try:
        remove_incomplete(folder)
        content = read_checkpoint(folder / LAST_NAME)
        if "training" not in content:
            raise CheckpointError(
                f"checkpoint {folder / LAST_NAME} holds a model, but no training state to continue from"
            )
        return_to_best(folder, content)  # the run could not end without it
    except CheckpointError:
        if lock is not None:
            lock.release()
        raise
    return folder, content, lock


def _resumed_settings(folder: Path, content: Mapping[str, Any], given: Config, takes_defaults: bool) -> Config:
    settings, now, named = content["config"], given.plain(), given.given_keys()
    for limit, (trained, planned) in lowered_limits(content, given).items():
        if limit in named and limit != "stopping_step":
            raise SettingError(
                f"the run in {folder} has trained {counted(trained, 'epoch')}, more than {limit} {planned}: leave "
                f"{limit} out or raise it to continue the run, or leave --resume out to start a new one"
            )
    differing = setting_differences(content, given, _with_named(settings, given))
    if "train_neg_sample_args" in named and "loss_negatives" in settings:  # our models resolve it to loss_negatives
        negatives = given.external_config_dict["train_neg_sample_args"]
        drawn = resolved_negatives({**settings, "train_neg_sample_args": negatives})
        if plain_data(drawn) != settings["loss_negatives"]:
            differing["train_neg_sample_args"] = (settings["loss_negatives"], plain_data(negatives))
    for key, (before, value) in differing.items():
        if key in named and key not in CHANGEABLE:
            raise SettingError(
                f"the run in {folder} has {key} {before!r}, not {value!r}: leave {key} out to continue it, "
                "or --resume to start a new run"
            )
    changed = RESUMABLE & now.keys() if takes_defaults else (RESUMABLE | CHANGEABLE) & named & now.keys()
    n_processes = len(content["training"]["random"])
    if n_processes != distributed.world_size():
        raise SettingError(
            f"the run in {folder} has {counted(n_processes, 'process', 'processes')}, not {distributed.world_size()}: "
            f"continue it with --nproc={n_processes}"
        )
    given_keys = set(content["training"].get("given", ())) | (named & changed)
    return Config.from_plain({**settings, **{key: now[key] for key in changed}}, given_keys=given_keys)


def _with_named(settings: Mapping[str, Any], given: Config) -> dict[str, Any]:
    """The settings of a run with those given now; ``auto`` is resolved with the run's other settings."""
    now, external = given.plain(), given.external_config_dict
    named = {key: now[key] for key in given.given_keys() & now.keys()}
    if external.get("position_encoding") == AUTO:
        named["position_encoding"] = AUTO  # ``given`` has resolved it with its own settings
    merged = {**settings, **named}
    resolve_encodings(merged)
    return merged


def _changes(content: Mapping[str, Any], config: Config, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    now = config.plain()
    before = {key: content["config"].get(key, value_before(key, defaults)) for key in CHANGEABLE & now.keys()}
    before |= {key: old for key, (old, _) in lowered_limits(content, config).items()}
    return [
        {"epoch": content["epoch"] + 1, "key": key, "before": before[key], "now": now[key]}
        for key in sorted(before)
        if before[key] != now[key]
    ]
