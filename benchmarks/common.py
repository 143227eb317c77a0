"""What the benchmarks share: fair timing and training, and tables that say how they were made."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from recbole_posattn import run
from tests.planted import write_atomic_file

RESULTS = Path(__file__).parent.parent / "results"


def interleaved_medians(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, all taking turns, so that a busy moment of the machine hits all alike.

    The first round warms up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions.items())
    for _ in tqdm(range(repeats + 1), leave=False):
        random.shuffle(order)  # none always follows the same other one
        for name, function in order:
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def report(name: str, title: str, text: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Print a table and write it to ``results/<name>.md`` with the command, the versions and the commit behind it."""
    table = tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)
    print(f"\n{table}\n")
    file = RESULTS / f"{name}.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"# {title}\n\n{text.strip()}\n\n{table}\n\n{provenance()}\n", encoding="utf-8")
    print(f"written to {file}")
    return file


def provenance() -> str:
    """One paragraph: the command, the versions, the machine and the commit."""
    module = Path(sys.argv[0]).stem
    command = " ".join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])
    packages = ("torch", "numpy", "recbole")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--exclude=*", "--dirty=+changes"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"Made by `{command}`: Python {platform.python_version()}, {versions}, {device}; commit {commit}."


def train_all(
    variants: Mapping[str, Mapping[str, Any]],
    rows: list[tuple],
    settings: Mapping[str, Any],
    metric: str,
    seeds: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Train each variant on the same planted data with each seed.

    Args:
        variants: Settings by name, ``model`` among them; added to ``settings``.
        rows: Interactions, as the generators of ``tests/planted.py`` make them.
        settings: What all variants share.
        metric: RecBole's name of the metric, such as ``hit@1``.
        seeds: One run each.

    Returns:
        By name: ``test``, the metric of each seed at the epoch that is best on validation, and ``seconds`` an epoch.
    """
    results: dict[str, dict[str, Any]] = {name: {"test": [], "seconds": []} for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_file(Path(folder), "planted", rows)
        shared = {"data_path": folder, "checkpoint_dir": folder, "show_progress": False, "state": "WARNING", **settings}
        for seed, name in tqdm([(seed, name) for seed in seeds for name in variants]):
            result = run(dataset="planted", config_dict={**shared, **variants[name], "seed": seed}, command_line=[])
            results[name]["test"].append(result["test_result"][metric])
            results[name]["seconds"].append(result["seconds"]["training"] / result["epochs"])
            tqdm.write(f"seed {seed} {name}: {results[name]['test'][-1]:.4f}, {result['epochs']} epochs")
    return results


def mean_and_deviation(values: Sequence[float]) -> str:
    """``mean ± standard deviation`` over seeds."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"
