"""Notices a machine with more threads than CPUs, on which training collapses."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import torch

# Shorter periods say nothing about the load.
_SECONDS = 0.2
# CPUs by which the demand may exceed what there is, before it is worth a line.
_TOLERANCE = 0.5
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class CpuWatch:
    """What other processes take of the CPUs that this process may use."""

    def __init__(self) -> None:
        self._has_warned = False
        self.start_period()

    def start(self) -> None:
        """Begin to watch a run."""
        self._has_warned = False
        self.start_period()

    def start_period(self) -> None:
        """Begin a new period."""
        self._started, self._own, self._all = time.perf_counter(), time.process_time(), _busy_seconds()

    def warning(self, device: torch.device) -> str | None:
        """A line if the threads of this process and the other processes need more CPUs than there are; only once.

        On busy CPUs, the threads of an operation wait for the slowest, and an epoch takes many times as long.

        Args:
            device: Of the model; on a GPU, threads hardly matter.
        """
        seconds, threads = time.perf_counter() - self._started, torch.get_num_threads()
        if self._has_warned or device.type != "cpu" or threads == 1 or seconds < _SECONDS:
            return None
        problem, n_best = _oversubscription("this run has", threads, self._used_by_others(seconds))
        if problem is None:
            return None
        self._has_warned = True
        return f"{problem}; OMP_NUM_THREADS={n_best} is likely faster"

    def warning_before_runs(self, jobs: int, threads: int) -> str | None:
        """A line if runs that are about to start, and the other processes, need more CPUs than this machine has.

        Runs of one thread each only take longer: no thread waits for another. Otherwise, it takes 0.2 s to measure
        what other processes use.

        Args:
            jobs: Runs at a time.
            threads: Threads of each run.
        """
        if threads == 1:
            return None
        self.start_period()
        time.sleep(_SECONDS)
        others = self._used_by_others(time.perf_counter() - self._started)
        who = "each run has" if jobs == 1 else f"{jobs} runs at a time have"
        problem, n_best = _oversubscription(who, jobs * threads, others)
        return None if problem is None else f"{problem}; --jobs={n_best} --cpus=1 is likely faster"

    def _used_by_others(self, seconds: float) -> float:
        """CPUs that other processes used on average in this period, which has lasted so many seconds."""
        return max(0.0, (_busy_seconds() - self._all - (time.process_time() - self._own)) / seconds)


def _oversubscription(who: str, threads: int, others: float) -> tuple[str | None, int]:
    """Check whether there are more threads than free CPUs.

    Args:
        who: Subject and verb of the message, such as ``this run has``.
        threads: Number of threads of this run, or of all parallel runs.
        others: Number of CPUs that other processes use on average.

    Returns:
        A message, ``None`` if there are enough CPUs; and the recommended number of threads.
    """
    cpus = available_cpus()
    n_best = max(1, round(cpus - others))
    if threads > cpus + _TOLERANCE:
        problem = f"{who} {threads} threads for {cpus:g} CPU{'s' if cpus > 1 else ''}"
    elif threads + others > cpus + _TOLERANCE:
        problem = f"other processes use {others:.1f} of {cpus:g} CPUs, and {who} {threads} threads"
    else:
        return None, n_best
    waits = "which wait for each other, so that epochs may take many times as long"
    return f"The machine is oversubscribed: {problem}, {waits}", n_best


def available_cpus() -> float:
    """The CPUs that this process may use: those of the machine, of its affinity, or of its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return min(float(allowed), float(quota) / float(period))
    except (OSError, ValueError):  # no container, or "max": no quota
        return float(allowed)


def _busy_seconds() -> float:
    """Seconds that all processes have used of the CPUs that this process may use, since the machine started."""
    by_cpu = psutil.cpu_times(percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(by_cpu))
    idle = ("idle", "iowait", "guest", "guest_nice")  # guests count as users, too
    return sum(
        value
        for number, times in enumerate(by_cpu)
        if number in allowed
        for name, value in times._asdict().items()
        if name not in idle
    )
