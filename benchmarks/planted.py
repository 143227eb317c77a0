"""What each encoding and kernel can tell, on data whose next item only positions, or repetition, can tell.

python -m benchmarks.planted lag          # writes results/planted_lag.md
python -m benchmarks.planted repetitive   # writes results/repetitive.md
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from benchmarks.common import train_all
from tests.planted import lagged_sequences, looped_sequences

BASELINES = {
    name.removesuffix("SASRec"): {"model": name}
    for name in (
        "NoPESASRec",
        "APESASRec",
        "AllAPESASRec",
        "SinusoidalSASRec",
        "RoPESASRec",
        "CAPESASRec",
        "ALiBiSASRec",
        "T5BiasSASRec",
    )
}


def kernel(structure: str, **settings: Any) -> dict[str, Any]:
    """Settings of PosKernelSASRec with one structure."""
    return {"model": "PosKernelSASRec", "kernel_structure": structure, **settings}


KERNELS = {
    f"kernel {name}": kernel(name)
    for name in (
        "toeplitz-full",
        "toeplitz-toeplitz",
        "exponential-exponential",
        "lowrank-lowrank",
        "adaptive_band-adaptive_band",
        "dilated-dilated",
    )
}
HYBRIDS = {
    f"kernel toeplitz-toeplitz + {name}": kernel("toeplitz-toeplitz", position_encoding=[name]) for name in ("rope",)
}


class Task(NamedTuple):
    """A planted data set with the settings for it."""

    file: str
    title: str
    text: str
    rows: list[tuple]
    best: float
    settings: dict[str, Any]


def lag_task() -> Task:
    """Nine of ten items follow from the one three steps before."""
    return Task(
        file="planted_lag",
        title="Planted lag",
        text="300 users, 12 to 30 items each out of 30; nine of ten items are a fixed function of the item three steps "
        "before. Hit@1 on the last item of each user at the epoch that is best on the item before it.",
        rows=lagged_sequences(300, range(12, 31), n_items=30, lag=3, noise=0.1, seed=1),
        best=0.9 + 0.1 / 30,
        settings={
            "MAX_ITEM_LIST_LENGTH": 20,
            "epochs": 60,
            "n_layers": 1,
            "n_heads": 2,
            "hidden_size": 32,
            "hidden_dropout_prob": 0.1,
            "attn_dropout_prob": 0.1,
            "learning_rate": 0.005,
            "train_batch_size": 32,
        },
    )


def repetitive_task() -> Task:
    """Loops of 20 to 200 items, repeated with noise over 512 positions."""
    return Task(
        file="repetitive",
        title="Long repetitive sequences",
        text="",
        rows=looped_sequences(256, 514, range(20, 201), n_items=250, noise=0.1, seed=1),
        best=0.9,
        settings={
            "MAX_ITEM_LIST_LENGTH": 512,
            "epochs": 40,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_size": 32,
            "hidden_dropout_prob": 0.1,
            "attn_dropout_prob": 0.0,
            "learning_rate": 0.003,
            "train_batch_size": 16,
            "eval_step": 2,
        },
    )


TASKS = {"lag": lag_task, "repetitive": repetitive_task}


def main() -> None:
    """Train all on one task and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="one run each (default: 1 2 3)")
    parser.add_argument("--only", nargs="+", help="names of the rows to train (default: all)")
    parser.add_argument("--set", nargs="+", help="names of the rows to train (default: all)")
    options = parser.parse_args()
    task = TASKS[options.task]()
    variants = {**BASELINES, **KERNELS, **HYBRIDS}
    if options.only:
        variants = {k: v for k, v in variants.items() if k in options.only}
    for pair in options.set or []:
        k, v = pair.split("=")
        task.settings[k] = eval(v)
    shared = {"metrics": ["Hit"], "topk": [1], "valid_metric": "Hit@1", **task.settings}
    results = train_all(variants, task.rows, shared, "hit@1", options.seeds)
    print({k: (v["test"], v["seconds"]) for k, v in results.items()})


if __name__ == "__main__":
    main()
