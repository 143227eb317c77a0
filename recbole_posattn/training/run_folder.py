"""The checkpoints in the folder of a run."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_posattn.errors import CheckpointError

BEST_NAME, LAST_NAME = "best.pth", "last.pth"

# How many files or runs a message names.
_NAMED = 3


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that a path stands for: the file itself, or the best checkpoint of a run, given by its folder.

    Raises:
        CheckpointError: If the path is a folder without a best checkpoint; names what there is instead.
    """
    path = Path(path)
    if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return path
    if (path / BEST_NAME).is_file():
        return path / BEST_NAME
    raise CheckpointError(
        f"{path} is not the folder of a run with a trained model: it has no {BEST_NAME}{_there(path)}"
    )


def _there(folder: Path) -> str:
    """What a folder without a best checkpoint holds instead."""
    runs = sorted(folder.glob(f"*/{BEST_NAME}"), key=lambda file: file.stat().st_mtime, reverse=True)
    if runs:
        more = ", …" if len(runs) > _NAMED else ""
        return f"; name one of its runs, the newest first: {', '.join(str(run.parent) for run in runs[:_NAMED])}{more}"
    files = sorted(folder.glob("*.pth"))
    if files:
        return f"; name one of its files: {', '.join(map(str, files[:_NAMED]))}{', …' if len(files) > _NAMED else ''}"
    return "; name the folder of a run below saved/, or a checkpoint"
