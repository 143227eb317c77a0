"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_INCOMPLETE = ".incomplete"


@contextmanager
def whole_file(file: str | Path) -> Iterator[Path]:
    """A path to write to, which becomes ``file`` when the block ends well; a file of that name is untouched until then.

    Args:
        file: In a folder that is there.
    """
    incomplete = Path(f"{file}{_INCOMPLETE}")
    try:
        yield incomplete
        os.replace(incomplete, file)
    finally:
        with suppress(OSError):
            incomplete.unlink(missing_ok=True)


def remove_incomplete(folder: Path) -> None:
    """Remove what a process that died while it was writing has left."""
    for file in folder.glob(f"*{_INCOMPLETE}"):
        file.unlink(missing_ok=True)
