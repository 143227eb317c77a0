"""Starting several processes, each with its rank, and ending them."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
import torch.multiprocessing as mp

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

# The variables that tell a process its rank, those that torchrun sets
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_MOST_PROCESSES = 1024


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
    return all(name in os.environ for name in RANK_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


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
    os.environ.update(dict(zip(RANK_VARIABLES, map(str, place))))
    if "OMP_NUM_THREADS" not in os.environ:  # the processes of a machine share its cores
        torch.set_num_threads(max(1, torch.get_num_threads() // layout.nproc))
    try:
        result = function(**arguments)
        if own_rank == 0:
            messages.put(("result", result))
        end_process()
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    except UserError as error:
        _fail(messages, error, EXIT_USER_ERROR)
    except ProcessError as error:
        _fail(messages, error, EXIT_FAILURE)
    except BaseException:
        failed = f"process {own_rank} of {layout.world_size} failed:\n{traceback.format_exc()}"
        _fail(messages, ProcessError(failed), EXIT_FAILURE)


def end_process(exit_code: int = 0) -> NoReturn:
    """End one of several processes after its exit handlers, without finalizing the interpreter.

    A communication thread of PyTorch that asks for the GIL while the interpreter is finalized aborts the process: the
    job would end in SIGABRT although its work is done.
    """
    for thread in threading.enumerate():
        if not thread.daemon and thread not in (threading.current_thread(), threading.main_thread()):
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(exit_code)


def _fail(messages: Any, error: Exception, exit_code: int) -> None:
    messages.put(("failure", error))
    os._exit(exit_code)  # destroying the process group would wait for the others


def _waiting(messages: Any) -> Iterator[tuple[str, Any]]:
    while not messages.empty():
        yield messages.get()
