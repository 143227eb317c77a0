"""The peak memory of this process."""

from __future__ import annotations

import sys


def peak_memory() -> int:
    """The largest resident memory of this process since it started, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, the others kibibytes
