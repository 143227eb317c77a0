"""Keeps the best checkpoint that the last checkpoint refers to, until the last one is written again.

The best checkpoint is written in the validation, the last one only after the epoch. A run that is killed between the
two has a best checkpoint of an epoch after the last one. Resumed with other settings, it may never reach that epoch's
score again, so it returns to the best checkpoint before.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.files import link_or_copy
from recbole_posattn.training.checkpoint import explain_checkpoint_errors, read_checkpoint
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME

PREVIOUS_BEST_NAME = "previous_best.pth"


def keep_previous_best(folder: Path) -> None:
    """Keep the best checkpoint, which is about to be replaced, if the last checkpoint refers to it."""
    best, previous = folder / BEST_NAME, folder / PREVIOUS_BEST_NAME
    if best.is_file() and (folder / LAST_NAME).is_file() and not previous.exists():
        link_or_copy(best, previous)


def forget_previous_best(folder: Path) -> None:
    """Delete what :func:`keep_previous_best` kept: the last checkpoint refers to the best one now."""
    (folder / PREVIOUS_BEST_NAME).unlink(missing_ok=True)


def check_best(folder: Path, content: Mapping[str, Any]) -> None:
    """Check that the best checkpoint of a run can be read.

    Args:
        folder: Of the run.
        content: Of the last checkpoint.

    Raises:
        CheckpointError: If it is missing or cannot be read.
    """
    if int(content["training"]["best_epoch"]) >= 0:
        _epoch_of(folder / BEST_NAME)


def return_to_best(folder: Path, content: dict[str, Any]) -> None:
    """Make the best checkpoint that of the best epoch that the last checkpoint names.

    Args:
        folder: Of the run.
        content: Of the last checkpoint. If the best checkpoint before is lost, it is changed to name no best epoch.

    Raises:
        CheckpointError: If a checkpoint is missing or cannot be read.
    """
    with explain_checkpoint_errors(folder / LAST_NAME):
        best_epoch, bigger = int(content["training"]["best_epoch"]), bool(content["config"]["valid_metric_bigger"])
    if best_epoch >= 0 and _epoch_of(folder / BEST_NAME) != best_epoch:
        if (folder / PREVIOUS_BEST_NAME).is_file() and _epoch_of(folder / PREVIOUS_BEST_NAME) == best_epoch:
            os.replace(folder / PREVIOUS_BEST_NAME, folder / BEST_NAME)
        else:
            logging.getLogger().warning(
                f"The best checkpoint in {folder} is of an epoch after the last checkpoint, and that of epoch "
                f"{best_epoch} is lost: the best epoch is searched among the following ones"
            )
            content["training"].update(best_epoch=-1, best_valid_result=None)
            content["best_valid_score"] = -math.inf if bigger else math.inf
    forget_previous_best(folder)


def _epoch_of(file: Path) -> int:
    best = read_checkpoint(file)
    with explain_checkpoint_errors(file):
        return max(int(best["epoch"]), 0)
