"""Several processes: their ranks, communication between them, and starting them. Needs PyTorch only.

A process reads its rank from the variables that ``torchrun`` sets (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``,
``MASTER_ADDR``, ``MASTER_PORT``); :func:`launch` sets the same ones. Without them there is only one process, and the
functions here have no effect.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from recbole_posattn.distributed.attendance import Attendance, connection_error
from recbole_posattn.errors import (
    EXIT_FAILURE,
    EXIT_USER_ERROR,
    NoAnswerError,
    ProcessError,
    SettingError,
    UserError,
    shown,
)

_Result = TypeVar("_Result")

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_MOST_PROCESSES = 1024

# The attendance at collective calls, and the group for all communication but gradients. The group uses gloo on GPUs as
# well: its data are small and needed on the CPU, and a timeout there raises an error, while NCCL can only end the whole
# process.
_connection = SimpleNamespace(attendance=None, group=None)


class Layout(NamedTuple):
    """The processes of a job, in RecBole's terms.

    Attributes:
        nproc: Number of processes started on this machine.
        world_size: Number of processes in all groups (machines).
        ip: Address of the machine on which the process of rank 0 runs.
        port: A free port there.
        group_offset: Rank of the first process started here.
    """

    nproc: int = 1
    world_size: int = 1
    ip: str = "localhost"
    port: str = "5678"
    group_offset: int = 0


def launched_outside() -> bool:
    """Whether ``torchrun`` or a similar program started this process as one of several."""
    return all(name in os.environ for name in _RANK_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


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
def waits_explained() -> Iterator[None]:
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


def share_from_main(value: Any) -> Any:
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
    if world_size() == 1:
        return values
    summed = values.cpu()
    dist.all_reduce(summed, group=_collective_group())
    return summed.to(values.device)


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


def launch(function: Callable[..., _Result], arguments: Mapping[str, Any], layout: Layout) -> _Result | None:
    """Call a function in ``layout.nproc`` new processes, each with its rank.

    If one fails or dies, the others are stopped; none outlives this call.

    Args:
        function: A function at the top level of a module; its result in rank 0 must be picklable.
        arguments: Its keyword arguments, picklable.
        layout: The processes, here and on other machines.

    Returns:
        The result of the function in rank 0; ``None`` if rank 0 is on another machine.

    Raises:
        UserError: The first one raised in a process.
        ProcessError: If a process failed for another reason or died.
    """
    messages = mp.get_context("spawn").SimpleQueue()
    received: list[tuple[str, Any]] = []
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # it logs each process it stops
    workers = mp.spawn(_worker, (function, dict(arguments), layout, messages), nprocs=layout.nproc, join=False)
    try:
        done = False
        while not done:
            done = workers.join(timeout=1)
            received += _waiting(messages)
    except mp.ProcessExitedException:
        received += _waiting(messages)
        raise _cause(workers.processes, [content for kind, content in received if kind == "failure"], layout) from None
    finally:
        for process in workers.processes:
            if process.is_alive():
                process.kill()
            process.join()
    return next((content for kind, content in received if kind == "result"), None)


def _cause(processes: Sequence[Any], failures: Sequence[Exception], layout: Layout) -> Exception:
    """Why a job failed: a process that died, else the first reported failure.

    The other processes then time out, or are stopped with SIGTERM.
    """
    codes = [process.exitcode for process in processes]
    stopped = (0, EXIT_FAILURE, EXIT_USER_ERROR, -signal.SIGTERM)
    died = [index for index, code in enumerate(codes) if code not in stopped]
    if failures and (not died or isinstance(failures[0], NoAnswerError)):  # one that hangs may have to be killed
        return failures[0]
    index = next(iter(died), next(index for index, code in enumerate(codes) if code))
    how = signal.Signals(-codes[index]).name if codes[index] < 0 else f"exit code {codes[index]}"
    return ProcessError(
        f"process {layout.group_offset + index} of {layout.world_size} died ({how}); the others were stopped"
    )


def _worker(index: int, function: Callable[..., Any], arguments: dict[str, Any], layout: Layout, messages: Any) -> None:
    own_rank = layout.group_offset + index
    place = (own_rank, index, layout.world_size, layout.ip, layout.port)
    os.environ.update(dict(zip(_RANK_VARIABLES, map(str, place))))
    if "OMP_NUM_THREADS" not in os.environ:  # the processes of a machine share its cores
        torch.set_num_threads(max(1, torch.get_num_threads() // layout.nproc))
    try:
        result = function(**arguments)
        if own_rank == 0:
            messages.put(("result", result))
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    except UserError as error:
        _fail(messages, error, EXIT_USER_ERROR)
    except ProcessError as error:
        _fail(messages, error, EXIT_FAILURE)
    except BaseException:
        failed = f"process {own_rank} of {layout.world_size} failed:\n{traceback.format_exc()}"
        _fail(messages, ProcessError(failed), EXIT_FAILURE)


def _fail(messages: Any, error: Exception, exit_code: int) -> None:
    messages.put(("failure", error))
    os._exit(exit_code)  # destroying the process group would wait for the others


def _waiting(messages: Any) -> Iterator[tuple[str, Any]]:
    while not messages.empty():
        yield messages.get()


def checked_layout(nproc: int, world_size: int, ip: str, port: str | int, group_offset: int) -> Layout:
    """The layout that RecBole's five flags describe.

    Raises:
        SettingError: If the numbers contradict each other or the process is already one of several.
    """
    processes = nproc if world_size <= 0 else world_size
    if nproc > _MOST_PROCESSES:
        raise SettingError(
            f"nproc must be at most {_MOST_PROCESSES}, the processes of one machine; got {shown(nproc)}."
        )
    if nproc < 1 or group_offset < 0 or nproc + group_offset > processes:
        raise SettingError(
            "nproc processes start here with the ranks group_offset, group_offset + 1, …, all below world_size; "
            f"got nproc {nproc}, group_offset {group_offset}, world_size {processes}."
        )
    if not re.fullmatch("[0-9]{1,5}", str(port)) or not 0 < int(port) < 2**16:
        raise SettingError(f"port must be a number from 1 to 65535; got {port!r}.")
    if processes > 1 and launched_outside():
        raise SettingError(
            f"nproc {nproc}, world_size {processes}: torchrun has started the processes already; leave these flags out."
        )
    return Layout(nproc, processes, ip, str(port), group_offset)
