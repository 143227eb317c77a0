"""Ray on this machine or a cluster: started or joined for a block, and left as it was found."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from recbole_posattn.errors import SettingError
from recbole_posattn.training import interrupts


class Resources(NamedTuple):
    """Where trials are run.

    Attributes:
        jobs: Runs at a time on this machine; without meaning on a cluster, which runs as many as it has room for.
        address: Of a Ray cluster (``auto``, ``ray://host:port``); ``None`` for this machine.
        cpus: CPUs, and so threads, of a run; by default this machine's share of a job.
        gpus: GPUs of a run, parts allowed.
    """

    jobs: int = 1
    address: str | None = None
    cpus: int | None = None
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Threads of a run."""
        return self.cpus or max(1, (os.cpu_count() or 1) // self.jobs)


@contextmanager
def ray_cluster(where: Resources) -> Iterator[Any]:
    """The ``ray`` module, connected; what was started for it is gone afterwards.

    A program that is connected to Ray already stays so, and its Ray is used.

    Raises:
        SettingError: If Ray is not installed, does not start or does not answer at its address; or if the Ray that is
            connected already is too small for a run, or another one is asked for.
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
            ray.init("local", num_cpus=n_cpus, include_dashboard=False, _temp_dir=scratch, **quiet)
        else:
            ray.init(address=where.address, **quiet)
    except Exception as error:  # Ray has no class for processes of its own that do not answer in time
        if where.address is not None and not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        what = "Ray does not start" if where.address is None else f"no Ray cluster answers at address {where.address!r}"
        raise SettingError(f"{what}: {reason}") from error


def _check_connected(ray: Any, where: Resources) -> None:
    """See that the Ray of the program that calls us can do what is asked for."""
    if where.address not in (None, "auto"):
        raise SettingError(
            f"this program is connected to a Ray already and cannot join the one at address {where.address!r}: leave "
            "address out to use the former, or call ray.shutdown() first."
        )
    has = ray.cluster_resources()
    for name, needed in (("CPU", where.threads), ("GPU", where.gpus)):
        if needed > has.get(name, 0):
            raise SettingError(
                f"a run needs {needed:g} {name}s, and the Ray that this program is connected to has "
                f"{has.get(name, 0):g}: lower {name.lower()}s, or call ray.shutdown() first."
            )
