"""How RecBole's trainers log to TensorBoard: in a fixed folder, as the continuation of a log, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import recbole_posattn.compat  # noqa: F401

import recbole.utils.utils
from recbole.trainer import trainer as recbole_trainer
from torch.utils.tensorboard import SummaryWriter

# Where RecBole's trainers put their logs, in the working folder.
_TENSORBOARD = "log_tensorboard"


class _SilentWriter:
    """The methods of TensorBoard's writer that RecBole's trainers call."""

    def add_scalar(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def add_hparams(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def add_histogram(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class _Writer(SummaryWriter):
    """Keeps writing below the initial working folder.

    A failed write raises an error in the next call, and the thread that writes prints no traceback.
    """

    def __init__(self, log_dir: str, **options: Any) -> None:
        super().__init__(os.path.abspath(log_dir), **options)
        events = self._get_file_writer().event_writer
        thread = getattr(getattr(events, "_async_writer", None), "_worker", None)
        if thread is not None:  # it keeps the error for the next call, and prints a traceback
            thread._invoke_excepthook = lambda _: None


def replace_tensorboard_writer() -> None:
    """Let TensorBoard logs stay in their folder when the working folder changes, and fail without a traceback.

    RecBole names the folder relative to the working folder, and the thread of TensorBoard's writer opens its file anew
    for every record, so its next write fails after a change of the working folder.
    """
    recbole.utils.utils.SummaryWriter = _Writer


@contextmanager
def tensorboard_in(name: Any, first_epoch: int) -> Iterator[None]:
    """Build a trainer that continues a TensorBoard log; RecBole's trainers always start a new one.

    Args:
        name: The folder of the log below ``log_tensorboard``, from a checkpoint; anything else gives a new log.
        first_epoch: The first epoch that is trained; what the log has of it and of later ones is hidden.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or name != os.path.basename(name) or "\0" in name:
        yield
        return
    original = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda logger: _Writer(os.path.join(_TENSORBOARD, name), purge_step=first_epoch)
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = original


def tensorboard_folder(writer: Any) -> str | None:
    """The folder of a trainer's TensorBoard log, for :func:`tensorboard_in`; ``None`` if it writes none."""
    folder = getattr(writer, "log_dir", None)
    return None if folder is None else os.path.basename(folder)


@contextmanager
def without_tensorboard() -> Iterator[None]:
    """Build a trainer that writes no TensorBoard log; RecBole's trainers always start one in the working folder."""
    original = recbole_trainer.get_tensorboard
    recbole_trainer.get_tensorboard = lambda logger: _SilentWriter()
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = original
