"""Locks that keep a second process out of a folder; they are released when their process ends."""

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

# A timeout of :func:`lock_file`: wait without limit.
NO_TIMEOUT = -1.0


def lock_file(file: Path, timeout: float = 0) -> FileLock | None:
    """Lock a file, which is created if necessary, until the lock is released or the process ends.

    Args:
        file: The file, in an existing folder.
        timeout: Seconds to wait for another process; :data:`NO_TIMEOUT` for no limit.

    Returns:
        The lock; ``None`` if the file system has no locks.

    Raises:
        InUseError: If another process has locked it.
    """
    lock = FileLock(file, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(f"{file} is locked by another process") from None
    except (OSError, NotImplementedError) as error:
        logging.getLogger().warning(f"{file.parent} cannot be locked ({error}): use it with one process at a time")
        return None
    return lock


@contextmanager
def locked(file: Path, timeout: float = 0) -> Iterator[None]:
    """Hold :func:`lock_file` while a block runs; the file is removed afterwards.

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
def exclusive_access(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes that call this function out of a folder while a block runs.

    Args:
        folder: An existing folder.
        what: What is being made there, for the message.

    Raises:
        InUseError: If another process is using it; the message says which.
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
                f"the {what} in {folder} is in use by {who}: wait until it ends, or give another --output"
            ) from None
        now = datetime.datetime.now().isoformat(" ", "seconds")
        with suppress(OSError):  # only for the message of other processes
            holder.write_text(f"process {os.getpid()} on {platform.node()} since {now}", encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
