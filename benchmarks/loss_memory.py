"""Memory and time of cross-entropy over all items, plain and in chunks, by the size of the catalogue.

python -m benchmarks.loss_memory          # writes results/loss_memory.md, .csv and .png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.common import bars, interleaved_medians, peak_mebibytes, report
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy

HIDDEN_SIZE, N_TARGETS = 64, 4096
ITEMS = (1_683, 12_102, 100_000, 500_000)
PLAIN_UP_TO = 100_000  # beyond, the scores and their gradients take more than 16 GB


def steps(n_items: int) -> dict[str, Callable[[], None]]:
    """Functions that do one forward and backward pass of each loss, on the same random targets."""
    torch.manual_seed(0)
    hidden = torch.randn(N_TARGETS, HIDDEN_SIZE, requires_grad=True)
    weight = (torch.randn(n_items, HIDDEN_SIZE) * 0.02).requires_grad_()
    target = torch.randint(1, n_items, (N_TARGETS,))
    losses = {"plain": CrossEntropy(None)} if n_items <= PLAIN_UP_TO else {}
    losses["chunks"] = CrossEntropy("auto")
    return {name: lambda loss=loss: loss(hidden, target, weight).backward() for name, loss in losses.items()}


def main() -> None:
    """Measure and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default: 3)")
    options = parser.parse_args()
    rows, plotted = [], {}
    for n_items in ITEMS:
        both = steps(n_items)
        seconds = interleaved_medians(both, options.repeats)
        mebibytes = {name: peak_mebibytes(step) for name, step in both.items()}
        plotted[f"{n_items:,} items"] = mebibytes
        logits = n_items * N_TARGETS * 4 / 2**20
        for name in both:
            figures = [f"{mebibytes[name]:,.0f}", f"{logits:,.0f}", f"{seconds[name]:.2f}"]
            rows.append([f"{n_items:,}", name, *figures])
    bars("loss_memory", plotted, "peak memory, MiB", logarithmic=True)
    report(
        "loss_memory",
        "Memory of cross-entropy over all items",
        f"{N_TARGETS:,} targets, hidden size {HIDDEN_SIZE}, float32, forward and backward. Peak memory of tensors "
        "beyond hidden states, item embeddings and their gradients from the step before; what all scores would take; "
        "seconds, medians taking turns.\n\n![peak memory](loss_memory.png)",
        ["items", "cross-entropy", "peak MiB", "all scores, MiB", "s"],
        rows,
    )


if __name__ == "__main__":
    main()
