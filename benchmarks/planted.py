"""What encodings and kernels can learn from planted data, where only order or repetition determines the next item.

python -m benchmarks.planted lag          # writes results/planted_lag.md
python -m benchmarks.planted repetitive   # writes results/repetitive.md
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from benchmarks.common import report
from recbole_posattn import run
from tests.planted import lagged_sequences, looped_sequences, write_atomic_file


def baseline(encoding: str, **settings: Any) -> dict[str, Any]:
    """Settings of the model with one encoding and no kernel."""
    return {"model": f"{encoding}SASRec", **settings}


def kernel(structure: str, **settings: Any) -> dict[str, Any]:
    """Settings of PosKernelSASRec with one structure."""
    return {"model": "PosKernelSASRec", "kernel_structure": structure, **settings}


VARIANTS = {
    **{name: baseline(name) for name in ("NoPE", "APE", "AllAPE", "Sinusoidal", "RoPE", "CAPE", "ALiBi", "T5Bias")},
    **{
        f"kernel {structure}": kernel(structure)
        for structure in (
            "toeplitz-full",
            "toeplitz-toeplitz",
            "exponential-exponential",
            "adaptive_band-adaptive_band",
            "dilated-dilated",
            "lowrank-lowrank",
        )
    },
    "kernel toeplitz-toeplitz + RoPE": kernel("toeplitz-toeplitz", position_encoding=["rope"]),
}


class Task(NamedTuple):
    """A planted data set, and how the models are trained on it.

    Attributes:
        title: Of the page.
        text: What is planted and what the figures are.
        rows: The interactions.
        settings: Of all models.
        columns: Settings of each column of the table, by its heading.
        variants: Rows of the table.
    """

    title: str
    text: str
    rows: list[tuple]
    settings: dict[str, Any]
    columns: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]


def lag_task() -> Task:
    """Nine of ten items follow from the one three steps before."""
    return Task(
        title="Planted lag",
        text="300 users with 12 to 30 items each out of 30; nine of ten items are a fixed function of the item three "
        "steps before them, the others are noise, so that a Hit@1 of 0.903 is the best there is and 0.033 is chance. "
        "The figures are Hit@1 on each user's last item, at the epoch that is best on the item before it.",
        rows=lagged_sequences(300, range(12, 31), n_items=30, lag=3, noise=0.1, seed=1),
        settings={
            "MAX_ITEM_LIST_LENGTH": 20,
            "epochs": 100,
            "stopping_step": 30,
            "hidden_size": 32,
            "hidden_dropout_prob": 0.1,
            "attn_dropout_prob": 0.1,
            "learning_rate": 0.005,
            "train_batch_size": 32,
        },
        columns={
            "1 layer, 2 heads": {"n_layers": 1, "n_heads": 2},
            "2 layers, 4 heads": {"n_layers": 2, "n_heads": 4},
        },
        variants={
            **VARIANTS,
            "ALiBi, alibi_slope_exponent 2": baseline("ALiBi", alibi_slope_exponent=2.0),
            "kernel lowrank-lowrank, one a head": kernel("lowrank-lowrank", kernel_groups="n_heads"),
        },
    )


def repetitive_task() -> Task:
    """Loops of 20 to 200 items, repeated with noise over 512 positions."""
    return Task(
        title="Long repetitive sequences",
        text="256 users with 514 items each out of 250. Each repeats a loop of 20 to 200 items of their own; one item "
        "in ten is noise, so that a Hit@1 of 0.9 is the best there is and 0.004 is chance. The next item depends on "
        "what came next the last time round, at a distance that differs from user to user. T = 512, 2 layers, 1 head, "
        "30 epochs (1,920 steps) for all. The figures are Hit@1 on each user's last item, at the epoch that is best "
        "on the item before it; with 256 users the standard error of one seed is at most 0.03.",
        rows=looped_sequences(256, 514, range(20, 201), n_items=250, noise=0.1, seed=1),
        settings={
            "MAX_ITEM_LIST_LENGTH": 512,
            "epochs": 30,
            "eval_step": 3,
            "stopping_step": 30,
            "n_layers": 2,
            "n_heads": 1,
            "hidden_size": 64,
            "hidden_dropout_prob": 0.0,
            "attn_dropout_prob": 0.0,
            "learning_rate": 0.002,
            "train_batch_size": 4,
        },
        columns={"Hit@1": {}},
        variants=VARIANTS,
    )


TASKS = {"lag": ("planted_lag", lag_task), "repetitive": ("repetitive", repetitive_task)}


def train(folder: str, settings: Mapping[str, Any]) -> float:
    """Train one model on the planted data in ``folder``; test Hit@1 at the best epoch on validation."""
    torch.set_num_threads(1)
    shared = {"data_path": folder, "checkpoint_dir": folder, "show_progress": False, "state": "ERROR"}
    metric = {"metrics": ["Hit"], "topk": [1], "valid_metric": "Hit@1"}
    result = run(dataset="planted", config_dict={**shared, **metric, **settings}, command_line=[])
    return result["test_result"]["hit@1"]


def main() -> None:
    """Train all on one task and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one run each (default: 1 2 3)")
    parser.add_argument("--workers", type=int, default=2, help="models trained at a time, one thread each (default: 2)")
    options = parser.parse_args()
    file, make_task = TASKS[options.task]
    task = make_task()

    cells = [(row, column) for row in task.variants for column in task.columns]
    hits: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        write_atomic_file(Path(folder), "planted", task.rows)
        for n_seeds, seed in enumerate(options.seeds, start=1):
            running = {}
            for row, column in cells:
                settings = {**task.settings, **task.columns[column], **task.variants[row], "seed": seed}
                running[pool.submit(train, folder, settings)] = (row, column)
            for done in tqdm(as_completed(running), desc=f"seed {seed}", total=len(running)):
                hits[running[done]].append(done.result())
                tqdm.write(f"seed {seed}, {', '.join(running[done])}: {done.result():.4f}")
            # After every seed, so that finished seeds are kept if a later one is interrupted.
            report(
                file,
                task.title,
                f"{task.text} Mean ± standard deviation of {n_seeds} seed{'s' if n_seeds > 1 else ''}.",
                ["positions", *task.columns],
                [[row, *(mean_and_deviation(hits[row, column]) for column in task.columns)] for row in task.variants],
            )


def mean_and_deviation(values: list[float]) -> str:
    """``mean ± standard deviation``, the latter from two values on."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


if __name__ == "__main__":
    main()
