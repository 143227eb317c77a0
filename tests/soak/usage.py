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

GROWTH = 50  # MiB by which this process, which starts all others, may grow
# MiB by which a process may grow that trains one after the other, behind the first round. It grows by 1 to 6: the
# allocator takes memory in steps. A model kept here takes half of one, so that tensors are counted as well.
GROWTH_IN_PROCESS = 15
N_DIFFERENT, N_ROUNDS = 5, 6  # of those


class Usage(NamedTuple):
    """What a process holds: memory in MiB, open files, threads, and tensors that Python's collector knows."""

    mebibytes: float
    files: int
    threads: int
    tensors: int


def usage() -> Usage:
    """Of this process, without what only waits to be collected."""
    gc.collect()
    process = psutil.Process()
    tensors = sum(issubclass(type(held), torch.Tensor) for held in gc.get_objects())
    return Usage(process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), tensors)


def usage_of_many(cases: Sequence[Case], n_rounds: int, data_path: Path) -> list[Usage]:
    """Train one after the other in one new process, each case once a round; what that holds behind each run."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = new_folder(Path(scratch))
        told, said = folder / "told.json", folder / "said.txt"
        arguments = [case.arguments(data_path) for case in cases] * n_rounds
        process = context.Process(target=_be_many_runs, args=(folder, told, said, arguments))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"trainings in one process failed:\n{said.read_text(encoding='utf-8')[-3000:]}")
        return [Usage(*values) for values in json.loads(told.read_text(encoding="utf-8"))]


def _be_many_runs(folder: Path, told: Path, said: Path, arguments: Sequence[Sequence[str]]) -> None:
    os.chdir(folder / "work")
    use_temporary_folder(folder / "temp")
    skip_cpu_load()
    stream = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    measured = []
    for line in arguments:
        with contextlib.suppress(UserError):
            run(command_line=line)
        measured.append(usage())
    told.write_text(json.dumps(measured), encoding="utf-8")


def other_threads() -> list[str]:
    """Names of this process's threads but the main one and jemalloc's (of pyarrow), which makes it anew in a fork."""
    threads = [thread for thread in Path("/proc/self/task").iterdir() if int(thread.name) != os.getpid()]
    names = [(thread / "comm").read_text().strip() for thread in threads]
    return [name for name in names if name != "jemalloc_bg_thd"]


def growth(whose: str, before: Usage, after: Usage, bound: float) -> list[str]:
    grown = []
    if after.mebibytes - before.mebibytes > bound:
        grown.append(f"{whose} has grown from {before.mebibytes:.0f} to {after.mebibytes:.0f} MiB")
    if after.files > before.files:
        grown.append(f"{whose} has {after.files} open files, {before.files} before")
    if after.threads > before.threads:
        grown.append(f"{whose} has {after.threads} threads, {before.threads} before")
    if after.tensors > before.tensors:
        grown.append(f"{whose} holds {after.tensors} tensors, {before.tensors} before")
    return grown


def usage_text(*measured: Usage) -> str:
    memory = ", ".join(f"{each.mebibytes:.0f}" for each in measured)
    files = ", ".join(str(each.files) for each in measured)
    threads = ", ".join(str(each.threads) for each in measured)
    tensors = ", ".join(str(each.tensors) for each in measured)
    return f"{memory} MiB; open files {files}; threads {threads}; tensors {tensors}"
