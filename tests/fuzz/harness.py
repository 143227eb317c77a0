"""What every fuzzed case must do: run to its end, or be refused in one line, and leave nothing half done."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings

from recbole_posattn.cli import main as cli
from recbole_posattn.errors import UserError, one_line

# Seconds after which a case hangs: one takes tenths, but other things may run on this machine.
LONGEST = 600

# How often each kind of case ended in which way, for the report at the end.
COUNTS: Counter[tuple[str, str]] = Counter()

# Settings of a run of tenths of a second.
TINY_RUN = {
    "epochs": 1,
    "hidden_size": 8,
    "n_layers": 1,
    "MAX_ITEM_LIST_LENGTH": 5,
    "train_batch_size": 64,
    "topk": 3,
    "valid_metric": "NDCG@3",
    "show_progress": False,
    "use_gpu": False,
}

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROWS = [
    (f"u{user}", f"i{(3 * user + step * (step % 3 + 1)) % 7}", 10 * step + user)
    for user in range(4)
    for step in range(6)
]


def words(text: str) -> list[str]:
    """The words of a text, for strategies that draw from many."""
    return text.split()


def cases(of_hundred: int) -> Callable:
    """Settings of a fuzz test: so many cases where the profile has a hundred, and as many more as it has more.

    In the profile of the normal test run they are the same each time, so that a change is judged by itself.
    """
    profile = settings()
    return settings(
        max_examples=max(1, of_hundred * profile.max_examples // 100),
        derandomize=profile.max_examples <= 100,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


class Outcome(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        files: What it left in the working folder, but for logs.
    """

    code: int
    out: str
    err: str
    files: set[str]


class TooLong(BaseException):
    """A case has taken more than its time; no ``except Exception`` may swallow it."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """A case that hangs is a failed one."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"no end after {LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A working folder of its own for a case."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(dir=before, prefix="case-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def write_data(content: bytes | None = None, name: str = "tiny", suffix: str = "inter", folder: str = "data") -> Path:
    """An atomic file, by default one that a tiny run can use."""
    if content is None:
        content = "\n".join([HEADER, *("\t".join(map(str, row)) for row in ROWS), ""]).encode()
    file = Path(folder, name, f"{name}.{suffix}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def tiny_flags(**changes: object) -> list[str]:
    """The command line of a run on what :func:`write_data` wrote; a key that is ``None`` is left out."""
    flags = {"dataset": "tiny", "data_path": "data", **TINY_RUN, **changes}
    return [f"--{key}={value}" for key, value in flags.items() if value is not None]


def call(kind: str, arguments: Sequence[str], start: Callable[[Sequence[str]], int] = cli.main) -> Outcome:
    """A command, in this process, checked against the rule for every case.

    Either it ends with exit code 0, or with 2 and one line, and then it has written nothing but its log.

    Args:
        kind: What is counted.
        arguments: Of the command line.
        start: ``cli.main`` or ``cli.launch``.
    """
    before = _files()
    out, err = _Captured(), _Captured()
    with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _quiet():
        try:
            code = start(list(arguments))
        except SystemExit as stop:  # argparse's
            code = stop.code
    outcome = Outcome(code, out.getvalue(), err.getvalue(), _files() - before)
    COUNTS[kind, {0: "run", 2: "refused"}.get(code, "other")] += 1
    check(outcome)
    return outcome


def check(outcome: Outcome) -> None:
    """The rule for every case."""
    assert outcome.code in (0, 2), outcome
    assert "Traceback" not in outcome.err, outcome
    if outcome.code == 2:
        lines = outcome.err.splitlines()
        by_argparse = outcome.err.startswith("usage: ") and ": error: " in lines[-1]
        assert by_argparse or lines[-1].startswith("recbole-posattn: "), outcome
        message = lines[-1].partition(": ")[2]
        assert len(message) > 10 and message.isprintable(), outcome
        assert outcome.files == set(), outcome
        logged = any(Path("log").rglob("*.log"))  # a run that has begun writes its log to the screen, too
        assert by_argparse or logged or not [line for line in lines[:-1] if not _is_warning(line)], outcome


def _is_warning(line: str) -> bool:
    """Whether a line in front of an error is a warning of something else that is strange."""
    known = ("without effect", "has no effect", "eval_args leaves out", "has no line break")
    return line.startswith("recbole-posattn: ") or any(words in line for words in known)


def refused(kind: str, action: Callable[[], Any]) -> tuple[Any, UserError | None]:
    """What a function gives, or the error for people that it raises; any other one is a bug."""
    with time_limit(), contextlib.redirect_stderr(io.StringIO()), _quiet():
        try:
            result, error = action(), None
        except UserError as raised:
            result, error = None, raised
    COUNTS[kind, "run" if error is None else "refused"] += 1
    if error is not None:
        assert 10 < len(one_line(error)) < 2000, error
    return result, error


class _Captured(io.TextIOWrapper):
    """A stream with the bytes beneath that commands write to."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="", write_through=True)

    def getvalue(self) -> str:
        return self.buffer.getvalue().decode()

    def fileno(self) -> int:
        return sys.__stderr__.fileno()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without pytest's own handlers, under which RecBole's log and Python's last resort would write nothing."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:], root.level = handlers, level


def _files() -> set[str]:
    """Files below the working folder, but for logs."""
    found = (path for path in Path().rglob("*") if path.is_file() or path.is_symlink())
    return {str(path) for path in found if path.parts[0] not in ("log", "log_tensorboard")}


def write_counts(file: Path) -> None:
    """The counts as JSON: by kind, how many cases ran and how many were refused."""
    table: dict[str, dict[str, int]] = {}
    for (kind, how), count in sorted(COUNTS.items()):
        table.setdefault(kind, {})[how] = count
    total = {how: sum(row.get(how, 0) for row in table.values()) for how in ("run", "refused")}
    report = {"total": sum(COUNTS.values()), **total, "kinds": table}
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
