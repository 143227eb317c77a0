"""What the benchmarks share: fair timing, and tables that say how they were made."""

from __future__ import annotations

import csv
import importlib.metadata
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from recbole_posattn.reporting.terminal import markdown_table

RESULTS = Path(__file__).parent.parent / "results"


def interleaved_medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function. The functions take turns, so a busy moment of the machine affects all of them.

    The first round warms up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions.items())
    for _ in tqdm(range(repeats + 1), leave=False):
        random.shuffle(order)  # so that no function always runs after the same one
        for name, function in order:
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def taking_turns(functions: Mapping[str, Callable[[], float]], n_rounds: int, title: str) -> dict[str, list[float]]:
    """The results of self-timing functions in a warm-up round and in each round after it; the functions take turns."""
    results: dict[str, list[float]] = {name: [] for name in functions}
    for _ in tqdm(range(n_rounds + 1), desc=title):
        for name, function in functions.items():
            results[name].append(function())
    return results


def peak_mebibytes(function: Callable[[], object]) -> float:
    """Peak memory in MiB of the tensors that a call allocates on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    # Each allocation by its time; ``profiler.events()`` would join it to its operation.
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate(n_bytes for _, n_bytes in changes)) / 2**20


def report(name: str, title: str, text: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Print a table and write it to ``results/<name>.md`` with the command, the versions and the commit behind it.

    The rows alone go to ``results/<name>.csv``.
    """
    table = markdown_table(header, rows)
    print(f"\n{table}\n")
    file = RESULTS / f"{name}.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"# {title}\n\n{text.strip()}\n\n{table}\n\n{provenance()}\n", encoding="utf-8")
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([header, *rows])
    print(f"written to {file}")
    return file


def bars(name: str, groups: Mapping[str, Mapping[str, float]], label: str, logarithmic: bool = False) -> None:
    """Draw ``results/<name>.png``: a group of bars for each key, a bar for each name in it.

    Args:
        name: Of the file.
        groups: Values by group and name.
        label: What the values are.
        logarithmic: Whether their axis is.
    """
    names = list(dict.fromkeys(itertools.chain.from_iterable(groups.values())))
    width = 0.8 / len(names)
    figure, axis = plt.subplots(figsize=(max(5.5, 2.2 * len(groups)), 4), layout="constrained")
    for i, (bar, color) in enumerate(zip(names, plt.get_cmap("tab10").colors)):
        places = [group + (i - (len(names) - 1) / 2) * width for group in range(len(groups))]
        heights = [values.get(bar, float("nan")) for values in groups.values()]
        axis.bar(places, heights, width, label=bar, color=color)
    axis.set_xticks(range(len(groups)), groups)
    axis.set(ylabel=label, yscale="log" if logarithmic else "linear")
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8)
    figure.savefig(RESULTS / f"{name}.png", dpi=150)
    plt.close(figure)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Work in an empty folder, where runs may leave logs and checkpoints; the data sets' folder stays in reach."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        if (home / "dataset").is_dir():
            (Path(folder) / "dataset").symlink_to(home / "dataset")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(home)


def provenance() -> str:
    """One paragraph: the command, the versions, the machine and the commit."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    name = module.name.removesuffix(".__main__") if module else Path(sys.argv[0]).stem
    command = " ".join(["python", "-m", name, *sys.argv[1:]])
    packages = ("torch", "numpy", "recbole")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--exclude=*", "--dirty=+changes"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"Made by `{command}`: Python {platform.python_version()}, {versions}, {device}; commit {commit}."
