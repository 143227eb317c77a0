"""Several processes: their ranks, communication between them, and starting them. Needs PyTorch only.

A process reads its rank from the variables that ``torchrun`` sets (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``,
``MASTER_ADDR``, ``MASTER_PORT``); :func:`launch` sets the same ones. Without them there is only one process, and the
functions here have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from recbole_posattn.distributed.attendance import Attendance, connection_error
from recbole_posattn.distributed.launching import Layout, checked_layout, end_process, launch, launched_outside

__all__ = [
    "Layout",
    "all_reduce_sum_async",
    "broadcast_from_main",
    "checked_layout",
    "end_process",
    "explain_timeouts",
    "gather_on_main",
    "gather_rows",
    "is_main",
    "join",
    "launch",
    "launched_outside",
    "leave",
    "local_rank",
    "main_first",
    "rank",
    "total",
    "world_size",
]

# The attendance at collective calls, and the group for all communication but gradients. The group uses gloo on GPUs as
# well: its data are small and needed on the CPU, and a timeout there raises an error, while NCCL can only end the whole
# process.
_connection = SimpleNamespace(attendance=None, group=None)


def local_rank() -> int:
    """Rank of this process on its machine; 0 if there is only one."""
    return int(os.environ["LOCAL_RANK"]) if launched_outside() else 0


def join(device: torch.device, timeout: float) -> None:
    """Connect to the other processes, once. Gradients use NCCL on GPUs, gloo on CPUs.

    Args:
        device: The device of this process.
        timeout: Seconds to wait for the others, here and in later calls.

    Raises:
        SettingError: If the port cannot be used.
        NoAnswerError: If not all processes connect in time.
    """
    if not launched_outside() or dist.is_initialized():
        return
    limit = timedelta(seconds=timeout)
    try:
        store, own_rank, n_processes = next(rendezvous("env://", timeout=limit))
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise connection_error(error, timeout) from error
    store.set_timeout(limit)
    _connection.attendance = Attendance(
        store, own_rank, n_processes, timeout, os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    )
    place: dict[str, Any] = {"store": store, "rank": own_rank, "world_size": n_processes}
    if device.type == "cuda":
        # Twice the timeout: a process that waits for a gradient may reach the next gloo call, which raises an error.
        dist.init_process_group("nccl", timeout=2 * limit, **place)
        _connection.group = dist.new_group(backend="gloo", timeout=limit)
    else:
        dist.init_process_group("gloo", timeout=limit, **place)


@contextmanager
def explain_timeouts() -> Iterator[None]:
    """If waiting for the other processes times out, name those that did not answer.

    Raises:
        NoAnswerError: If it times out.
    """
    try:
        yield
    except RuntimeError as error:
        if _connection.attendance is None:
            raise
        explained = _connection.attendance.explained(error)
        if explained is error:
            raise
        raise explained from error


def leave() -> None:
    """Disconnect from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
    _connection.attendance = _connection.group = None


def world_size() -> int:
    """The number of connected processes; 1 without others."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process among the connected ones; 0 without others."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, the process that writes files."""
    return rank() == 0


def broadcast_from_main(value: Any) -> Any:
    """The value of rank 0, in every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_collective_group())
    return box[0]


def gather_on_main(value: Any) -> list[Any] | None:
    """The values of all processes by rank, in rank 0; ``None`` in the others."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size() if is_main() else None
    dist.gather_object(value, values, dst=0, group=_collective_group())
    return values


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in rank 0 first, then in all others, which find its files on disk."""
    if not is_main():
        dist.barrier(group=_collective_group())
    yield
    if is_main() and world_size() > 1:
        dist.barrier(group=_collective_group())


def total(values: Tensor) -> Tensor:
    """The sum over all processes of a tensor that has the same shape in each."""
    return all_reduce_sum_async(values)()


def all_reduce_sum_async(values: Tensor) -> Callable[[], Tensor]:
    """Start :func:`total` without waiting for it; the returned function waits and returns the sum."""
    if world_size() == 1:
        return lambda: values
    summed = values.cpu()
    work = dist.all_reduce(summed, group=_collective_group(), async_op=True)

    def result() -> Tensor:
        work.wait()
        return summed.to(values.device)

    return result


def gather_rows(tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all processes, those of rank 0 first, of several tables.

    Args:
        tables: By name, each of shape (own number of rows, …). A process that has no rows may leave a table out.

    Returns:
        By name, shape (number of all rows, …), on the CPU.
    """
    own = {name: table.cpu() for name, table in tables.items()}
    if world_size() == 1:
        return own
    shapes: list[Any] = [None] * world_size()
    dist.all_gather_object(
        shapes, {name: (table.shape, table.dtype) for name, table in own.items()}, group=_collective_group()
    )
    known = {name: shape for of_process in shapes for name, shape in of_process.items()}
    gathered = {}
    for name in sorted(known):
        (_, *row), dtype = known[name]
        counts = [of_process[name][0][0] if name in of_process else 0 for of_process in shapes]
        padded = torch.zeros((max(counts), *row), dtype=dtype)
        padded[: counts[rank()]] = own.get(name, padded[:0])
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=_collective_group())
        gathered[name] = torch.cat([part[:count] for part, count in zip(parts, counts)])
    return gathered


def _collective_group() -> Any:
    """The group for a collective call, at which this process is noted as present."""
    _connection.attendance.enter()
    return _connection.group
