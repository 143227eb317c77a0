"""Tokens per second and memory of a training step on a GPU by length, and the share of bare attention's throughput.

    python -m benchmarks.cuda_lengths         # writes results/cuda_lengths.md, .csv and .png; needs a CUDA device

Bare attention is one forward and backward pass of PyTorch's fused kernel for each layer, in the same type and shape.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.common import bars, report
from benchmarks.step_time import training_step

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
TOKENS = 2**16  # in a batch
MODELS = {
    "NoPESASRec": ("NoPESASRec", {}),
    "PosKernelSASRec toeplitz-toeplitz": ("PosKernelSASRec", {"kernel_structure": "toeplitz-toeplitz"}),
    "PosKernelSASRec exponential-exponential": ("PosKernelSASRec", {"kernel_structure": "exponential-exponential"}),
    "PosKernelSASRec toeplitz-full": ("PosKernelSASRec", {"kernel_structure": "toeplitz-full"}),
}
HIDDEN_SIZE, N_HEADS, N_LAYERS = 128, 2, 2


def attention_step(batch_size: int, length: int) -> Callable[[], None]:
    """Bare causal attention of all layers, forward and backward."""
    shape = (batch_size, N_HEADS, length, HIDDEN_SIZE // N_HEADS)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def step() -> None:
        for _ in range(N_LAYERS):
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

    return step


def seconds_and_bytes(step: Callable[[], None], repeats: int) -> tuple[float, int]:
    """Mean seconds of a step and the peak of memory, after three steps that do not count."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats, torch.cuda.max_memory_allocated()


def main() -> None:
    """Measure and write table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.cuda_lengths needs a CUDA device, and torch finds none here")
    rows, speeds = [], {}
    for length in options.lengths:
        batch_size = max(1, TOKENS // length)
        bare, _ = seconds_and_bytes(attention_step(batch_size, length), options.repeats)
        for name, (model, settings) in MODELS.items():
            settings = {**settings, "hidden_size": HIDDEN_SIZE, "n_heads": N_HEADS, "n_layers": N_LAYERS}
            settings |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
            step = training_step(model, settings, length, batch_size, device="cuda")
            seconds, n_bytes = seconds_and_bytes(step, options.repeats)
            speeds.setdefault(f"T = {length}", {})[name] = batch_size * length / seconds
            figures = [f"{batch_size * length / seconds:,.0f}", f"{n_bytes / 2**30:.2f}", f"{bare / seconds:.2f}"]
            rows.append([length, batch_size, name, *figures])
    bars("cuda_lengths", speeds, "tokens per second", logarithmic=True)
    report(
        "cuda_lengths",
        "Training on a GPU by length",
        f"One training step (forward, cross-entropy over all items, backward, Adam) in bfloat16, hidden size "
        f"{HIDDEN_SIZE}, {N_HEADS} heads, {N_LAYERS} layers, no dropout, {TOKENS:,} tokens a batch. The last column is "
        "the time of bare fused attention, forward and backward in all layers, as a share of the step.\n\n"
        "![tokens per second](cuda_lengths.png)",
        ["T", "batch", "model", "tokens/s", "peak GiB", "bare attention"],
        rows,
    )


if __name__ == "__main__":
    main()
