"""Locks that keep a second process out of a folder in which one is working, and end with their process."""

from __future__ import annotations

import datetime
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from recbole_posattn.errors import InUseError

_LOCK_NAME, _HOLDER_NAME = ".lock", ".lock-holder"

# A wait without an end, of :func:`lock_file`.
FOR_EVER = -1.0


def lock_file(file: Path, timeout: float = 0) -> FileLock | None:
    """Lock a file, which is made if need be, until the lock is released or the process ends.

    Args:
        file: In a folder that exists.
        timeout: Seconds to wait for another process; :data:`FOR_EVER` for one that has to end.

    Returns:
        The lock; ``None`` where the file system has none.

    Raises:
        InUseError: If another process has locked it.
    """
    lock = FileLock(file, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(f"{file} is locked by another process") from None
    except (OSError, NotImplementedError) as error:
        logging.getLogger().warning(f"{file.parent} cannot be locked ({error}): let one process at a time work there")
        return None
    return lock


@contextmanager
def locked(file: Path, timeout: float = 0) -> Iterator[None]:
    """:func:`lock_file` while a block runs; the file is removed afterwards.

    Raises:
        InUseError: If another process has locked it.
    """
    lock = lock_file(file, timeout)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes it on release
            file.unlink()
        if lock is not None:
            lock.release()


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[None]:
    """Keep all other processes that call this out of a folder while a block runs.

    Args:
        folder: It exists.
        what: Is being made there, for the message.

    Raises:
        InUseError: If another process is in it; the message says which.
    """
    holder = folder / _HOLDER_NAME
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK_NAME))
        except InUseError:
            who = "another process"
            with suppress(OSError):
                who = holder.read_text(encoding="utf-8")
            raise InUseError(
                f"the {what} in {folder} is being made by {who}: wait for its end, or give another --output"
            ) from None
        now = datetime.datetime.now().isoformat(" ", "seconds")
        with suppress(OSError):  # it is only told to those who come later
            holder.write_text(f"process {os.getpid()} on {platform.node()} since {now}", encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
