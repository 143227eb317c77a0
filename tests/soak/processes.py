"""One training in one new process, which a signal may stop."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import NamedTuple

import psutil

from recbole_posattn.cli.main import launch
from tests.soak.cases import Blow

LAUNCHER = Path(__file__).parents[2] / "run_recbole_posattn.py"

LONGEST = 120  # seconds after which a run counts as hanging
PATIENCE = 20  # seconds that its other processes may take to end after it


class Ended(NamedTuple):
    """A process that has ended.

    Attributes:
        code: Its exit code; negative for the signal that it died of.
        seconds: Its duration.
        output: Its output and error output.
        line: Its last error line; empty if there is none.
        remaining: Command lines of processes of its session that still run.
    """

    code: int
    seconds: float
    output: str
    line: str
    remaining: list[str]


def train_in_process(
    folder: Path, arguments: Sequence[str], fresh: bool, blow: Blow | None = None, expected: float = 0.0
) -> Ended:
    """Train in a new process, and wait for it and all processes that it has started.

    Args:
        folder: With ``work``, where it runs, and ``temp`` for temporary files.
        arguments: The command line.
        fresh: Whether to start the launcher instead of a fork.
        blow: A signal to send.
        expected: Duration in seconds of which ``blow.moment`` is a share.
    """
    output = folder / "output.txt"
    process = multiprocessing.get_context("fork").Process(target=_be_the_run, args=(folder, output, arguments, fresh))
    started = time.perf_counter()
    process.start()
    if blow is not None:
        _wait(process, blow.moment * expected)
        for _ in range(1 + blow.again):
            if process.exitcode is None:
                os.kill(process.pid, blow.signum)
                _wait(process, 0.05)
    _wait(process, LONGEST)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGABRT)  # on which a fork prints its stack
        _wait(process, 1)
    seconds = time.perf_counter() - started
    remaining = _end_remaining(process)
    text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    output.unlink(missing_ok=True)
    lines = [
        line for line in text.splitlines() if line.startswith("recbole-posattn: ") and "stopping after" not in line
    ]
    ended = Ended(process.exitcode, seconds, text, lines[-1] if lines else "", remaining)
    process.close()
    return ended


def _wait(process: ForkProcess, seconds: float) -> None:
    """``process.join(seconds)``, which after ``os.execv`` would wait for the end of the process."""
    deadline = time.perf_counter() + seconds
    while process.exitcode is None and time.perf_counter() < deadline:
        time.sleep(0.005)


def _be_the_run(folder: Path, output: Path, arguments: Sequence[str], fresh: bool) -> None:
    """The new process: set up as by a shell, then run the launcher."""
    os.setsid()  # identifies all processes of the run
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes background processes ignore it
    os.chdir(folder / "work")
    use_temporary_folder(folder / "temp")
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    if fresh:
        os.environ["PYTHONPATH"] = str(LAUNCHER.parent)
        os.execv(sys.executable, [sys.executable, str(LAUNCHER), *arguments])
    faulthandler.enable()
    skip_cpu_load()
    sys.argv = [str(LAUNCHER), *arguments]
    sys.exit(launch(arguments))


def use_temporary_folder(folder: Path) -> None:
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def skip_cpu_load() -> None:
    psutil.cpu_percent = lambda interval=None: 0.0  # RecBole waits a second for it


def _end_remaining(process: ForkProcess) -> list[str]:
    """End the processes of a session that still run after :data:`PATIENCE`; return their command lines."""
    session, deadline = process.pid, time.perf_counter() + PATIENCE
    hangs = process.exitcode is None
    while (others := list(_of_session(session))) and not hangs and time.perf_counter() < deadline:
        time.sleep(0.1)
    ended = []
    for other in others:
        with contextlib.suppress(psutil.Error):
            ended.append(" ".join(other.cmdline())[-200:])
            other.kill()
    if hangs:
        process.join()
    return ended


def _of_session(session: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            other = psutil.Process(pid)
            if os.getsid(pid) == session and other.status() != psutil.STATUS_ZOMBIE:
                yield other


def new_folder(folder: Path) -> Path:
    for name in ("work", "temp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder
