"""Training on a GPU: an epoch beside RecBole's SASRec on the same card, and long sequences beside bare attention.

    python -m benchmarks.gpu                  # writes results/gpu.md, .csv and .png; needs a CUDA device

The epochs are those of benchmarks.epoch_speed, in float32 and with mixed precision (``enable_amp``). Bare attention is
one forward and backward pass of PyTorch's fused kernel for each layer, in the same type and shape as the model's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.common import bars, report, scratch_folder, taking_turns
from benchmarks.epoch_speed import NO_ANOMALY, RECBOLE, SAME_SIZES, ours, recboles
from benchmarks.step_time import training_step
from recbole_posattn.reporting.terminal import markdown_table

MODELS = ("NoPESASRec", "APESASRec", "PosKernelSASRec")
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
TOKENS = 2**16  # in a batch
LONG_MODELS = {
    "NoPESASRec": ("NoPESASRec", {}),
    "RoPESASRec": ("RoPESASRec", {}),
    "T5BiasSASRec": ("T5BiasSASRec", {}),
    "PosKernelSASRec toeplitz-toeplitz": ("PosKernelSASRec", {"kernel_structure": "toeplitz-toeplitz"}),
    "PosKernelSASRec exponential-exponential": ("PosKernelSASRec", {"kernel_structure": "exponential-exponential"}),
    "PosKernelSASRec toeplitz-full": ("PosKernelSASRec", {"kernel_structure": "toeplitz-full"}),
}
HIDDEN_SIZE, N_HEADS, N_LAYERS = 128, 2, 2

TEXT = """
## An epoch compared with RecBole's SASRec

The same targets, two layers, one head, d = 64, dropout 0.5, Adam, batches of 128 sequences (ours) and 2,048 prefixes
(RecBole's), float32 without TF32, validation not included. Some of RecBole's batches are timed and multiplied, as in
[epoch_speed](epoch_speed.md), which explains its three rows. MiB is the peak of the tensors on the card.

{epochs}

## Long sequences beside bare attention

One training step (forward, cross-entropy over all items of ml-100k, backward, Adam) in bfloat16, d = {hidden_size},
{n_heads} heads, {n_layers} layers, no dropout, {tokens:,} tokens a batch. The last column is the time of bare fused
attention, forward and backward in all layers, as a share of the step.

![tokens per second](gpu.png)
"""


def attention_step(batch_size: int, length: int) -> Callable[[], None]:
    """Bare causal attention of all layers, forward and backward."""
    shape = (batch_size, N_HEADS, length, HIDDEN_SIZE // N_HEADS)
    q, k, v = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))

    def step() -> None:
        for _ in range(N_LAYERS):
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

    return step


def seconds_and_bytes(step: Callable[[], None], repeats: int) -> tuple[float, int]:
    """Median seconds of a step and the peak of memory, after three steps that do not count."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), torch.cuda.max_memory_allocated()


def with_peak(epoch: Callable[[], float], peaks: list[float]) -> Callable[[], float]:
    """The epoch, which also notes the MiB of the device at its peak."""

    def timed() -> float:
        torch.cuda.reset_peak_memory_stats()
        seconds = epoch()
        peaks.append(torch.cuda.max_memory_allocated() / 2**20)
        return seconds

    return timed


def epochs(options: argparse.Namespace) -> str:
    """The table of epochs."""
    rows = []
    for dataset, length in itertools.product(options.datasets, options.epoch_lengths):
        contestants = recboles(dataset, length, options)
        contestants |= {model: ours(model, dataset, length, options) for model in MODELS}
        contestants["PosKernelSASRec, enable_amp"] = ours(MODELS[-1], dataset, length, options, enable_amp=True)
        assert len({contestant.targets for contestant in contestants.values()}) == 1, "the same targets for all"
        peaks: dict[str, list[float]] = {name: [] for name in contestants}
        functions = {name: with_peak(contestants[name].seconds, peaks[name]) for name in contestants}
        rounds = taking_turns(functions, options.rounds, f"{dataset}, L = {length}")
        seconds = {name: statistics.median(values[1:]) for name, values in rounds.items()}
        for name, value in seconds.items():
            ratios = [f"{seconds[recbole] / value:.1f}" for recbole in (RECBOLE, SAME_SIZES, NO_ANOMALY)]
            rows.append([dataset, length, name, f"{value:.2f}", *ratios, f"{max(peaks[name]):,.0f}"])
    header = ["data", "L", "model", "s an epoch", "× RecBole's", "× our sizes", "× no anomaly detection", "MiB"]
    return markdown_table(header, rows)


def main() -> None:
    """Measure and write tables and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "amazon-beauty"])
    parser.add_argument("--data_path", default="dataset", help="folder of amazon-beauty (default: dataset)")
    parser.add_argument("--epoch_lengths", type=int, nargs="+", default=[50, 200])
    parser.add_argument(
        "--batches", type=int, default=5, help="timed batches of the RecBole model in each round (default: 5)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one warm-up round (default: 3)")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and torch finds none here")
    options.use_gpu = True
    with scratch_folder():
        table = epochs(options)
    print(f"\n{table}\n")
    rows, speeds = [], {}
    for length in options.lengths:
        batch_size = max(1, TOKENS // length)
        bare, _ = seconds_and_bytes(attention_step(batch_size, length), options.repeats)
        for name, (model, settings) in LONG_MODELS.items():
            settings = {**settings, "hidden_size": HIDDEN_SIZE, "n_heads": N_HEADS, "n_layers": N_LAYERS}
            settings |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
            try:
                step = training_step(model, settings, length, batch_size, device="cuda")
                seconds, n_bytes = seconds_and_bytes(step, options.repeats)
            except torch.cuda.OutOfMemoryError:
                rows.append([length, batch_size, name, "out of memory", "", ""])
                continue
            finally:
                torch.cuda.empty_cache()
            speeds.setdefault(f"T = {length}", {})[name] = batch_size * length / seconds
            figures = [f"{batch_size * length / seconds:,.0f}", f"{n_bytes / 2**30:.2f}", f"{bare / seconds:.2f}"]
            rows.append([length, batch_size, name, *figures])
    bars("gpu", speeds, "tokens per second", logarithmic=True)
    sizes = {"hidden_size": HIDDEN_SIZE, "n_heads": N_HEADS, "n_layers": N_LAYERS, "tokens": TOKENS}
    header = ["T", "batch", "model", "tokens/s", "peak GiB", "bare attention"]
    report("gpu", "Training on a GPU", TEXT.format(epochs=table, **sizes), header, rows)


if __name__ == "__main__":
    main()
