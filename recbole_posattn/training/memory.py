"""The memory of this process: its peak, and whether what is freed stays with it."""

from __future__ import annotations

import ctypes
import os
import sys

# Settings of glibc's malloc (mallopt(3)), by which freed memory is not given back to the system, and the environment
# variables of the same effect.
_MALLOPT = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_THRESHOLD": (-3, 2**30)}
_SET_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, on Linux with glibc.

    A training step allocates and frees the same large tensors again and again. By default, glibc gives their memory
    back each time, and the system fills it with zeros anew, page by page. The peak of the
    memory does not change. Nothing happens if the environment sets these options.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _SET_BY_USER):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        for option, value in _MALLOPT.values():
            mallopt(option, value)


def peak_memory() -> int:
    """The largest resident memory of this process since it started, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, the others kibibytes
