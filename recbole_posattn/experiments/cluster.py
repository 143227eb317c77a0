"""Ray on this machine or a cluster: started or joined for a block, and then shut down or left as it was."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError
from recbole_posattn.training import interrupts
from recbole_posattn.training.cpu_watch import CpuWatch, available_cpus


class Resources(NamedTuple):
    """Where trials are run.

    Attributes:
        jobs: Parallel runs on this machine; ignored on a cluster, which runs as many as fit.
        address: Address of a Ray cluster (``auto``, ``ray://host:port``); ``None`` for this machine.
        cpus: CPUs, and thus threads, per run; by default the CPUs that this process may use, divided by ``jobs``.
        gpus: GPUs per run; may be fractional.
    """

    jobs: int = 1
    address: str | None = None
    cpus: int | None = None
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Threads of a run."""
        return self.cpus or max(1, int(available_cpus()) // self.jobs)


@contextmanager
def ray_cluster(where: Resources) -> Iterator[Any]:
    """The ``ray`` module, connected; Ray is shut down afterwards if it was started here.

    If the program is already connected to Ray, that connection is used and kept.

    Raises:
        SettingError: If Ray is not installed, does not start or does not answer at its address; or if the program
            is already connected to another Ray, or to one that is too small for a run.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        import ray
    except ImportError as error:
        raise SettingError(
            f"running trials needs Ray, which cannot be imported ({error}): pip install 'ray[tune]'"
        ) from error
    if ray.is_initialized():
        _check_connected(ray, where)
        yield ray
        return
    scratch = tempfile.mkdtemp(prefix="posattn-") if where.address is None else None
    try:
        _connect(ray, where, scratch)
        interrupts.handle_again()
        if where.address is None:  # a cluster may grow
            _check_resources(ray, where, "this machine has", "")
        yield ray
    finally:
        ray.shutdown()
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _connect(ray: Any, where: Resources, scratch: str | None) -> None:
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if where.address is None:
            n_cpus = where.jobs * where.threads
            busy = CpuWatch().warning_before_runs(where.jobs, where.threads) if where.gpus == 0 else None
            if busy is not None:
                logging.getLogger().warning(busy)
            ray.init("local", num_cpus=n_cpus, include_dashboard=False, _temp_dir=scratch, **quiet)
        else:
            ray.init(address=where.address, **quiet)
    except Exception as error:  # Ray has no error class for its processes that time out
        if where.address is not None and not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = "Ray does not start" if where.address is None else f"no Ray cluster answers at address {where.address!r}"
        hint = (
            "; the machine may be too busy: try again later" if "timed out" in reason and where.address is None else ""
        )
        raise SettingError(f"{what}: {reason}{hint}") from error


def runs_that_fit(ray: Any, where: Resources) -> int:
    """How many runs the connected machines can do at a time, at least 1."""
    has = ray.cluster_resources()
    fits = [has.get(name, 0) // needed for name, needed in (("CPU", where.threads), ("GPU", where.gpus)) if needed]
    return max(1, int(min(fits)))


def _check_connected(ray: Any, where: Resources) -> None:
    """Check that the Ray that the program is already connected to has the address and the resources."""
    if where.address not in (None, "auto"):
        raise SettingError(
            f"this program is already connected to Ray and cannot join the cluster at address {where.address!r}: leave "
            "address out to use the present connection, or call ray.shutdown() first."
        )
    _check_resources(ray, where, "the Ray that this program is connected to has", ", or call ray.shutdown() first")


def _check_resources(ray: Any, where: Resources, who_has: str, else_do: str) -> None:
    """Refuse runs that need more than there is, which Ray would let wait for ever.

    Raises:
        SettingError: Naming what is too little.
    """
    has = ray.cluster_resources()
    for name, needed in (("CPU", where.threads), ("GPU", where.gpus)):
        if needed > has.get(name, 0):
            raise SettingError(
                f"a run needs {needed:g} {name}s, and {who_has} {has.get(name, 0):g}: lower {name.lower()}s{else_do}."
            )
