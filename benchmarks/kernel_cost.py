"""Time and peak memory of one attention layer, forward and backward, by length, against the layer without positions.

    python -m benchmarks.kernel_cost          # writes results/kernel_cost.md and .png

As in the models, kernels whose weights depend on the position (full, banded, lowrank) get their padding mask, and the
others none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch

from benchmarks.common import RESULTS, interleaved_medians, peak_mebibytes, report
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.encodings.build import EncodingOptions, build_encodings
from recbole_posattn.nn.kernels.structures import KernelOptions, build_kernel

BATCH, HIDDEN_SIZE, BANDWIDTH = 4, 64, 32
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
NOPE = "none (NoPE)"
STRUCTURES = ("toeplitz", "banded_toeplitz", "adaptive_band", "dilated", "exponential", "banded", "lowrank", "full")
ENCODINGS = ("rope", "alibi", "cape")
NAMES = (NOPE, *STRUCTURES, *ENCODINGS)


def layer(name: str, length: int) -> PositionKernelAttention:
    """Attention with the structure ``name`` for both U and L, or with the encoding ``name``, or with neither."""
    structure = name if name in STRUCTURES else "identity"
    kernels = [build_kernel(structure, KernelOptions(role, length, bandwidth=min(BANDWIDTH, length))) for role in "ul"]
    names = [name] if name in ENCODINGS else []
    encodings = build_encodings(names, 1, EncodingOptions(length, HIDDEN_SIZE))[0]
    return PositionKernelAttention(HIDDEN_SIZE, 1, *kernels, encodings=encodings)


def forward_and_backward(name: str, length: int) -> Callable[[], None]:
    """A function that does one forward and backward pass of the layer."""
    torch.manual_seed(0)
    attention = layer(name, length)
    x = torch.randn(BATCH, length, HIDDEN_SIZE, requires_grad=True)
    lag_only = attention.u_kernel.lag_only and attention.l_kernel.lag_only
    valid = None if lag_only else torch.ones(BATCH, length, dtype=torch.bool)
    return lambda: attention(x, x, valid).sum().backward()


def plot(costs: dict[str, dict[int, dict[str, float]]], lengths: list[int]) -> None:
    """Both costs over the length, on logarithmic axes.

    Args:
        costs: Values by label of the axis, length and name.
        lengths: Of the sequences.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, (label, by_length) in zip(axes, costs.items()):
        for name, color in zip(NAMES, plt.get_cmap("tab20").colors):
            style = {"color": "black", "linewidth": 2.5} if name == NOPE else {"color": color}
            values = [by_length[length][name] for length in lengths]
            axis.plot(lengths, values, marker="o", markersize=3, label=name, **style)
        axis.set(xscale="log", yscale="log", xlabel="sequence length T", ylabel=label)
        axis.set_xticks(lengths, map(str, lengths))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8, ncols=2)
    figure.savefig(RESULTS / "kernel_cost.png", dpi=150)


def main() -> None:
    """Measure, write the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: 5)")
    options = parser.parse_args()
    seconds, mebibytes = {}, {}
    for length in options.lengths:
        steps = {name: forward_and_backward(name, length) for name in NAMES}
        seconds[length] = interleaved_medians(steps, options.repeats)
        mebibytes[length] = {name: peak_mebibytes(step) for name, step in steps.items()}
    plot({"seconds, forward and backward": seconds, "peak memory, MiB": mebibytes}, options.lengths)
    rows = []
    for name in NAMES:
        ratios = (seconds[length][name] / seconds[length][NOPE] for length in options.lengths)
        rows.append([name, "time, × NoPE", *(f"{ratio:.2f}" for ratio in ratios)])
        rows.append(["", "peak MiB", *(f"{mebibytes[length][name]:.1f}" for length in options.lengths)])
    nope = ", ".join(f"{1000 * seconds[length][NOPE]:.0f} ms at {length}" for length in options.lengths)
    report(
        "kernel_cost",
        "Cost of an attention layer by length",
        f"One layer, forward and backward, batch {BATCH}, hidden size {HIDDEN_SIZE}, 1 head, no dropout, float32. A "
        f"structure is that of both U and L; banded ones keep {BANDWIDTH} lags. Times are medians of layers that take "
        "turns in one process; peak memory is that of all tensors beyond parameters, gradients and input. Without "
        f"positions: {nope}.\n\n![time and memory](kernel_cost.png)",
        ["positions", "", *map(str, options.lengths)],
        rows,
    )


if __name__ == "__main__":
    main()
