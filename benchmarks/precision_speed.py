"""Time of a training epoch in float32, in mixed precision, compiled, and with the loss in half precision.

python -m benchmarks.precision_speed      # writes results/precision_speed.md and .csv

All ways take turns in one process, on the GPU if there is one.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch

from benchmarks.common import report, scratch_folder, taking_turns
from benchmarks.epoch_speed import ours

BASELINE = "float32"
WAYS = {
    BASELINE: {},
    "enable_amp": {"enable_amp": True},
    "torch_compile": {"torch_compile": True},
    "both": {"enable_amp": True, "torch_compile": True},
    "loss_precision": {"loss_precision": "bfloat16"},
}
MODELS = ("NoPESASRec", "PosKernelSASRec")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one warm-up round (default: 5)")
    options = parser.parse_args()
    options.use_gpu = False
    use_gpu = torch.cuda.is_available()
    rows = []
    with scratch_folder():
        for length, model in itertools.product(options.lengths, MODELS):
            functions = {
                way: ours(model, "ml-100k", length, options, use_gpu=use_gpu, **given).seconds
                for way, given in WAYS.items()
            }
            results = taking_turns(functions, options.rounds, f"{model}, L = {length}")
            medians = {way: statistics.median(seconds[1:]) for way, seconds in results.items()}
            for way, seconds in results.items():
                figures = [f"{medians[way]:.2f}", f"{medians[BASELINE] / medians[way]:.2f}", f"{seconds[0]:.0f}"]
                rows.append([length, model, way, *figures])
    report(
        "precision_speed",
        "Mixed precision and compilation",
        "Seconds of one training epoch on ml-100k, hidden size 64, 2 layers, batches of 128 windows: in float32, in "
        "mixed precision with bfloat16 (`enable_amp`), compiled (`torch_compile`), both, and with `loss_precision: "
        f"bfloat16`. Medians of {options.rounds} rounds in which all take turns in one process; the first epoch, which "
        "compiles, is apart.",
        ["L", "model", "way", "s an epoch", "× faster", "first epoch, s"],
        rows,
    )


if __name__ == "__main__":
    main()
