"""Which of several processes are missing from a collective call.

Each process counts its collective calls and writes the number to the shared store. A process whose call times out reads
the numbers of the others: those with a smaller number are missing.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta

from torch.distributed import DistError, Store

from recbole_posattn.errors import NoAnswerError, SettingError

# Timeout in seconds for reading the store. It runs in a thread of one process, which may be the missing one.
_STORE_ANSWERS_WITHIN = 10

# Parts of the messages of a timeout: gloo raises a plain RuntimeError, NCCL and the store raise a DistError.
_GLOO_TIMED_OUT, _STORE_TIMED_OUT = "Timed out waiting", "timeout"


class Attendance:
    """The collective calls of one of several processes.

    Args:
        store: The store shared by all processes.
        rank: Rank of this process.
        world_size: Number of all processes.
        limit: Seconds that a process waits for the others.
        store_is_in_rank_0: Whether rank 0 serves the store; with ``torchrun``, another process does.
    """

    def __init__(self, store: Store, rank: int, world_size: int, limit: float, store_is_in_rank_0: bool) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._limit = limit
        self._store_is_in_rank_0 = store_is_in_rank_0
        self._n_calls = 0
        store.set(self._key(rank), "0")

    def enter(self) -> None:
        """Note that this process enters the next collective call."""
        self._n_calls += 1
        self._store.set(self._key(self._rank), str(self._n_calls))

    def explained(self, error: Exception) -> Exception:
        """The error to raise instead of a collective call's: it names the missing processes if the call timed out."""
        if (_STORE_TIMED_OUT if isinstance(error, DistError) else _GLOO_TIMED_OUT) not in str(error):
            return error
        missing = self._missing()
        names = f"{'process' if len(missing) == 1 else 'processes'} {', '.join(map(str, missing))}"
        return NoAnswerError(
            f"process {self._rank} of {self._world_size} waited {self._limit:g} s for "
            f"{names if missing else 'another process'}, without an answer: it hangs or needs longer; raise "
            "process_timeout if it is only slow"
        )

    def _missing(self) -> list[int]:
        """The ranks that entered fewer collective calls than this process."""
        counts: list[int] = []

        def ask() -> None:
            self._store.set_timeout(timedelta(seconds=_STORE_ANSWERS_WITHIN))
            counts.extend(int(self._store.get(self._key(rank))) for rank in range(self._world_size))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_STORE_ANSWERS_WITHIN)
        if len(counts) < self._world_size:
            return [0] if self._store_is_in_rank_0 and self._rank != 0 else []
        return [rank for rank, count in enumerate(counts) if count < self._n_calls]

    @staticmethod
    def _key(rank: int) -> str:
        return f"recbole-posattn/{rank}"


def connection_error(error: Exception, timeout: float) -> Exception:
    """The error to raise if the processes could not connect at the address given by the environment."""
    address, port = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
    own_rank, n_processes = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if "EADDRINUSE" in str(error):
        return SettingError(f"port {port} of this machine is in use; name a free one, such as --port={int(port) + 1}.")
    return NoAnswerError(
        f"process {own_rank} of {n_processes} waited {timeout:g} s at {address}, port {port}, and the others did not "
        "connect: make sure that all are started, with the same address, port and number of processes"
    )
