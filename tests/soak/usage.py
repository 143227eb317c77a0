"""Memory, open files, threads and tensors of a process, and how they grow over many trainings."""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from recbole_posattn import run
from recbole_posattn.errors import UserError
from tests.soak.cases import Case
from tests.soak.processes import new_folder, skip_cpu_load, use_temporary_folder

GROWTH = 50  # MiB by which the process that starts all others may grow
# MiB by which a process with several trainings may grow after the first round. It grows by 1 to 6, as the allocator
# takes memory in steps. A leaked model takes only half a MiB, so tensors are counted as well.
GROWTH_IN_PROCESS = 15
N_DIFFERENT, N_ROUNDS = 5, 6  # different trainings, and rounds of them, in that process


class Usage(NamedTuple):
    """Memory in MiB, open files, threads, and tensors known to the garbage collector, of a process."""

    mebibytes: float
    files: int
    threads: int
    tensors: int


def usage() -> Usage:
    """The usage of this process after a garbage collection."""
    gc.collect()
    process = psutil.Process()
    tensors = sum(issubclass(type(instance), torch.Tensor) for instance in gc.get_objects())
    return Usage(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), tensors)


def usage_of_many(cases: Sequence[Case], n_rounds: int, data_path: Path) -> list[Usage]:
    """Train all cases in several rounds in one new process; return its usage after each training."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = new_folder(Path(scratch))
        measured, output = folder / "usage.json", folder / "output.txt"
        arguments = [case.arguments(data_path) for case in cases] * n_rounds
        process = context.Process(target=_be_many_runs, args=(folder, measured, output, arguments))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"trainings in one process failed:\n{output.read_text(encoding='utf-8')[-3000:]}")
        return [Usage(*values) for values in json.loads(measured.read_text(encoding="utf-8"))]


def _be_many_runs(folder: Path, file: Path, output: Path, arguments: Sequence[Sequence[str]]) -> None:
    os.chdir(folder / "work")
    use_temporary_folder(folder / "temp")
    skip_cpu_load()
    stream = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    measured = []
    for line in arguments:
        with contextlib.suppress(UserError):
            run(command_line=line)
        measured.append(usage())
    file.write_text(json.dumps(measured), encoding="utf-8")


def other_threads() -> list[str]:
    """Names of further threads of this process, without that of jemalloc (in pyarrow), which a fork restarts."""
    threads = [thread for thread in Path("/proc/self/task").iterdir() if int(thread.name) != os.getpid()]
    names = [(thread / "comm").read_text().strip() for thread in threads]
    return [name for name in names if name != "jemalloc_bg_thd"]


def growth(name: str, before: Usage, after: Usage, bound: float) -> list[str]:
    grown = []
    if after.mebibytes - before.mebibytes > bound:
        grown.append(f"{name} has grown from {before.mebibytes:.0f} to {after.mebibytes:.0f} MiB")
    if after.files > before.files:
        grown.append(f"{name} has {after.files} open files, {before.files} before")
    if after.threads > before.threads:
        grown.append(f"{name} has {after.threads} threads, {before.threads} before")
    if after.tensors > before.tensors:
        grown.append(f"{name} holds {after.tensors} tensors, {before.tensors} before")
    return grown


def usage_text(*measured: Usage) -> str:
    memory = ", ".join(f"{each.mebibytes:.0f}" for each in measured)
    files = ", ".join(str(each.files) for each in measured)
    threads = ", ".join(str(each.threads) for each in measured)
    tensors = ", ".join(str(each.tensors) for each in measured)
    return f"{memory} MiB; open files {files}; threads {threads}; tensors {tensors}"
