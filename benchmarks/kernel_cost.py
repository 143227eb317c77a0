"""Time and peak memory of one attention layer, forward and backward, by length, against the layer without positions.

    python -m benchmarks.kernel_cost          # writes results/kernel_cost.md and .png

Every measurement has a process of its own, whose resident memory tells the peak. As in the models, kernels whose
weights depend on the position (full, banded, lowrank) get their padding mask, and the others none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

from benchmarks.common import RESULTS, report
from recbole_posattn.position.attention import ROWS, PositionKernelAttention
from recbole_posattn.position.encodings import EncodingOptions, build_encodings
from recbole_posattn.position.kernels import KernelOptions, build_kernel

BATCH, HIDDEN_SIZE, BANDWIDTH = 4, 64, 32
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
NOPE = "none (NoPE)"
STRUCTURES = ("toeplitz", "banded_toeplitz", "adaptive_band", "dilated", "exponential", "banded", "lowrank", "full")
ENCODINGS = ("rope", "alibi", "cape")


class Cost(NamedTuple):
    """Median seconds of forward and backward, and the most MiB taken by them."""

    seconds: float
    mebibytes: float


def layer(name: str, length: int) -> PositionKernelAttention:
    """Attention with the structure ``name`` for both U and L, or with the encoding ``name``, or with neither."""
    structure = name if name in STRUCTURES else "identity"
    kernels = [build_kernel(structure, KernelOptions(role, length, bandwidth=min(BANDWIDTH, length))) for role in "ul"]
    names = [name] if name in ENCODINGS else []
    encodings = build_encodings(names, 1, EncodingOptions(length, HIDDEN_SIZE))[0]
    return PositionKernelAttention(HIDDEN_SIZE, 1, *kernels, encodings=encodings)


def step(name: str, length: int, batch: int) -> Callable[[], None]:
    """A function that does one forward and backward pass of the layer."""
    torch.manual_seed(0)
    attention = layer(name, length)
    x = torch.randn(batch, length, HIDDEN_SIZE, requires_grad=True)
    lag_only = attention.u_kernel.lag_only and attention.l_kernel.lag_only
    valid = None if lag_only else torch.ones(batch, length, dtype=torch.bool)
    return lambda: attention(x, x, valid).sum().backward()


def measure(name: str, length: int, seconds: float) -> Cost:
    """Repeat forward and backward for about so many seconds, at least three times; the first does not count."""
    step(name, ROWS + 1, batch=1)()  # what PyTorch loads at first use is none of the cost
    forward_and_backward = step(name, length, BATCH)
    before = _resident_mebibytes()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        forward_and_backward()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(statistics.median(times[1:]), peak - before)


def in_own_process(function: Callable[..., Cost], *arguments: object) -> Cost:
    """Call the function in a forked process and return what it returns."""
    context = multiprocessing.get_context("fork")  # the imports are there already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"the process that measured {arguments} ended with code {process.exitcode}") from None
    finally:
        process.join()


def _resident_mebibytes() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def plot(costs: dict[tuple[str, int], Cost], names: list[str], lengths: list[int]) -> None:
    """Both costs over the length, on logarithmic axes."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    colors = plt.get_cmap("tab20").colors
    for axis, field, label in zip(axes, Cost._fields, ("seconds, forward and backward", "peak memory, MiB")):
        for name, color in zip(names, colors):
            values = [getattr(costs[name, length], field) for length in lengths]
            style = {"color": "black", "linewidth": 2.5} if name == NOPE else {"color": color}
            axis.plot(lengths, values, marker="o", markersize=3, label=name, **style)
        axis.set(xscale="log", yscale="log", xlabel="sequence length T", ylabel=label)
        axis.set_xticks(lengths, map(str, lengths))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8, ncols=2)
    figure.savefig(RESULTS / "kernel_cost.png", dpi=150)


def main() -> None:
    """Measure, write the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each measurement (default: 1)")
    options = parser.parse_args()
    names = [NOPE, *STRUCTURES, *ENCODINGS]
    costs = {
        (name, length): in_own_process(measure, name, length, options.seconds)
        for length, name in tqdm([(length, name) for length in options.lengths for name in names])
    }
    rows = []
    for name in names:
        ratios = (costs[name, length].seconds / costs[NOPE, length].seconds for length in options.lengths)
        rows.append([name, "time, × NoPE", *(f"{ratio:.2f}" for ratio in ratios)])
        rows.append(["", "peak MiB", *(f"{costs[name, length].mebibytes:.0f}" for length in options.lengths)])
    plot(costs, names, options.lengths)
    nope = ", ".join(f"{1000 * costs[NOPE, length].seconds:.0f} ms at {length}" for length in options.lengths)
    report(
        "kernel_cost",
        "Cost of an attention layer by length",
        f"One layer, forward and backward, batch {BATCH}, hidden size {HIDDEN_SIZE}, 1 head, no dropout, float32. A "
        f"structure is that of both U and L; banded ones keep {BANDWIDTH} lags. Without positions: {nope}.\n\n"
        "![time and memory](kernel_cost.png)",
        ["positions", "", *map(str, options.lengths)],
        rows,
    )


if __name__ == "__main__":
    main()
