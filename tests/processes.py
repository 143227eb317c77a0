"""What new processes of the tests do: functions at the top level of a module, as they must be.

RecBole is imported by the functions that need it, because importing takes seconds.
"""

from __future__ import annotations

import atexit
import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from recbole_posattn import distributed
from recbole_posattn.errors import DataError, UserError

# The results of a run that several processes must have in common with one.
COMPARED = ("epochs", "best_epoch", "best_valid_result", "test_result")


def free_port() -> str:
    """A port that nobody listens on, below those from which other programs' connections are given theirs."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("", random.SystemRandom().randrange(10_000, 32_000)))
            return str(free.getsockname()[1])


class AbortsInFinalization:
    """Stands for a thread of PyTorch that asks for the GIL while the interpreter is finalized."""

    def __del__(self) -> None:
        os.abort()


def exchange(folder: str) -> list:
    """Exchange rows and values, and return what was received."""
    distributed.join(torch.device("cpu"), timeout=600)
    rank = distributed.rank()
    sys.kept = AbortsInFinalization()
    atexit.register((Path(folder) / f"{rank}.exited").touch)
    rows = torch.arange(3 * rank).reshape(-1, 3) + 10 * rank  # rank r gives r rows
    order = Path(folder) / "order"
    with distributed.main_first(), order.open("a") as file:
        file.write(str(rank))
    received = [
        distributed.world_size(),
        distributed.is_main(),
        distributed.gather_rows({"rows": rows} if rank else {})["rows"].tolist(),
        distributed.total(torch.tensor([1.0 + rank])).item(),
        distributed.broadcast_from_main("from the first" if rank == 0 else "from another"),
    ]
    distributed.leave()
    return received


def die(folder: str, rank: int) -> None:
    """One process is killed while the others wait for it."""
    distributed.join(torch.device("cpu"), timeout=600)
    (Path(folder) / f"{distributed.rank()}.pid").write_text(str(os.getpid()))
    dist.barrier()
    if distributed.rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def fail(kind: str) -> None:
    """One process fails, the other sleeps."""
    if os.environ["RANK"] == "1":
        raise DataError("column missing") if kind == "user" else ZeroDivisionError("a bug")
    time.sleep(600)


def stay_away() -> None:
    """All processes exchange a value, then the last one enters no further collective call."""
    distributed.join(torch.device("cpu"), timeout=600)
    distributed.total(torch.ones(1))
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))  # starting may take longer
    if distributed.rank() + 1 == distributed.world_size():
        time.sleep(600)
    with distributed.explain_timeouts():
        distributed.total(torch.ones(1))


def run_or_die(settings: dict, folder: str, n_threads: int, *arguments: object, **options: object) -> str | None:
    """Replaces ``run_in_folder``: the process is killed, with seed 3 always and with seed 2 the first time.

    Each start is noted in the file ``order`` next to the folder.
    """
    order, seed = Path(folder).with_name("order"), settings["seed"]
    before = order.read_text() if order.exists() else ""
    dies = seed == 3 or (seed == 2 and "2" not in before)
    with order.open("a") as file:
        file.write(f"{seed}{'†' if dies else ''} ")
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    from recbole_posattn.experiments import run_folders

    return run_folders.run_in_folder(settings, folder, n_threads, *arguments, **options)


def run_each(cases: list[tuple[str, dict]]) -> list[dict]:
    """Train and evaluate cases one after the other in the same processes; the result or the error of each."""
    from recbole_posattn.training import run as run_module
    from recbole_posattn.training.request import RunRequest

    leave, distributed.leave = distributed.leave, lambda: None
    results = []
    for model, settings in cases:
        try:
            result = run_module._run(RunRequest(model, "tiny", None, settings, True, (), True, None, None, False))
            results.append({key: result[key] for key in COMPARED})
        except UserError as error:
            results.append({"error": str(error)})
    everywhere = [None] * distributed.world_size()
    dist.all_gather_object(everywhere, results)
    leave()
    assert {*map(repr, everywhere)} == {repr(results)}  # as text, because a metric may be NaN, which equals nothing
    return results
