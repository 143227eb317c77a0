"""Time of a training step of models that read time against T5BiasSASRec's, and of the ways to mix by time.

    python -m benchmarks.time_cost            # writes results/time_cost.md

All models of a length take turns in one process and see the same batch, as in ``benchmarks.step_time``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.common import interleaved_medians, report
from benchmarks.step_time import LENGTHS, random_times, training_step
from recbole_posattn.nn.kernels import by_time
from recbole_posattn.nn.kernels.base import KernelOptions
from recbole_posattn.nn.kernels.structures import build_kernel
from recbole_posattn.nn.times import Times

BASELINE = "T5BiasSASRec"
TARGET = 1.25  # of time_bias
_KERNEL = {"kernel_structure": "toeplitz-full", "kernel_branch": None}
_PLAIN = {**_KERNEL, "kernel_structure": "identity-identity"}
VARIANTS = {
    BASELINE: ("T5BiasSASRec", {}),
    "NoPESASRec": ("NoPESASRec", {}),
    "time_bias": ("PosKernelSASRec", {**_PLAIN, "position_encoding": ["time_bias"]}),
    "time_bias with positions": (
        "PosKernelSASRec",
        {**_PLAIN, "position_encoding": ["time_bias"], "time_bias_positions": True},
    ),
    "time_rope": ("PosKernelSASRec", {**_PLAIN, "position_encoding": ["time_rope"]}),
    "forgetting": ("PosKernelSASRec", {**_PLAIN, "position_encoding": ["forgetting"]}),
    "kernel toeplitz-full": ("PosKernelSASRec", _KERNEL),
    "kernel toeplitz-time_decay": ("PosKernelSASRec", {**_KERNEL, "kernel_structure": "toeplitz-time_decay"}),
    "kernel toeplitz-full + branch toeplitz": ("PosKernelSASRec", {**_KERNEL, "kernel_branch": "toeplitz"}),
    "kernel toeplitz-full + branch time_decay": ("PosKernelSASRec", {**_KERNEL, "kernel_branch": "time_decay"}),
}
KERNEL_LENGTHS = (25, 50, 100, 200, 400, 800)


def kernel_step(length: int, n_groups: int, dense: bool, batch_size: int) -> Callable[[], None]:
    """A function that applies one kernel forward and backward, by its matrices or without them."""
    torch.manual_seed(0)
    kernel = build_kernel("time_decay", KernelOptions("l", length, n_groups, median_gap=1e4))
    x = torch.randn(batch_size, length, 64, requires_grad=True)
    seconds = random_times(batch_size, length)

    def step() -> None:
        by_time.DENSE_LENGTH = 10**9 if dense else 0
        kernel(x, Times(seconds)).sum().backward()

    return step


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="rounds that count (default: 40)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200], choices=LENGTHS)
    parser.add_argument("--without_kernels", action="store_true", help="measure training steps only")
    options = parser.parse_args()
    rows: list[list[object]] = []
    for length in options.lengths:
        steps = {name: training_step(*variant, length, LENGTHS[length]) for name, variant in VARIANTS.items()}
        seconds = interleaved_medians(steps, options.repeats)
        for name, value in seconds.items():
            target = f"≤ {TARGET}" if name.startswith("time_bias") else ""
            ratio = f"{value / seconds[BASELINE]:.2f}"
            rows.append([f"step, T = {length}", name, f"{1000 * value:.0f}", ratio, target])
    for length in () if options.without_kernels else KERNEL_LENGTHS:
        ways = {
            "g = 1: matrix": kernel_step(length, 1, True, 16),
            "g = 1: blocks": kernel_step(length, 1, False, 16),
            "g = 64: recurrence": kernel_step(length, 64, False, 16),
        }
        seconds = interleaved_medians(ways, options.repeats)
        for name, value in seconds.items():
            ratio = f"{value / seconds['g = 1: matrix']:.2f} × matrix"
            rows.append([f"kernel, T = {length}", name, f"{1000 * value:.1f}", ratio, ""])
    report(
        "time_cost",
        "Cost of reading times",
        "Steps: forward, loss, backward and Adam on a batch of 128 full sequences, as in step_time.md; ratios to "
        f"{BASELINE}. Kernels: time_decay for 64 channels in g groups, forward and backward on 16 sequences. "
        "Medians of what takes turns in one process; compare ratios, not milliseconds.",
        ["what", "name", "ms", "ratio", "target"],
        rows,
    )


if __name__ == "__main__":
    main()
