"""What the processes of the tests do; functions of a module, as new processes want them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist

from recbole_posattn import distributed
from recbole_posattn.errors import DataError


def exchange(folder: str) -> list:
    """Meet, exchange rows and values, and report what arrived."""
    distributed.join(torch.device("cpu"))
    rank = distributed.rank()
    rows = torch.arange(3 * rank).reshape(-1, 3) + 10 * rank  # rank r gives r rows
    order = Path(folder) / "order"
    with distributed.main_first(), order.open("a") as file:
        file.write(str(rank))
    told = [
        distributed.world_size(),
        distributed.is_main(),
        distributed.gather_rows(rows, torch.device("cpu")).tolist(),
        distributed.total(torch.tensor([1.0 + rank])).item(),
        distributed.share_from_main("from the first" if rank == 0 else "from another"),
    ]
    distributed.leave()
    return told


def die(folder: str, rank: int) -> None:
    """One process is killed while the others wait for it."""
    distributed.join(torch.device("cpu"))
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
