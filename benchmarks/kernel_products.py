"""Measurements behind the thresholds in ``nn/products.py`` and ``nn/attention.py``.

    python -m benchmarks.kernel_products      # writes results/kernel_products.md

Each way of multiplying a kernel with a sequence, forward and backward, by length and by the lags of a band; and causal
attention with dropout by the number of queries in memory at a time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from benchmarks.common import interleaved_medians, report
from recbole_posattn.nn import attention, products
from recbole_posattn.nn.kernels.by_lag import ExponentialKernel

TOKENS, HIDDEN_SIZE = 8192, 64
LENGTHS = (50, 100, 200, 300, 400, 512, 1024, 2048, 4096)
LAGS = (8, 32, 64, 128, 256, 512)
ROWS = (64, 128, 256, 512, 1024)


def forward_and_backward(function: Callable[[Tensor], Tensor], length: int) -> Callable[[], None]:
    """A call of ``function`` on sequences of a length, with gradients."""
    x = torch.randn(max(1, TOKENS // length), 1, length, HIDDEN_SIZE, requires_grad=True)
    return lambda: function(x).sum().backward()


def ways(length: int) -> dict[str, Callable[[], None]]:
    """Every way that serves sequences of a length."""
    taps = torch.randn(1, length, requires_grad=True)
    exponential = ExponentialKernel(length)

    def recurrence(x: Tensor) -> Tensor:
        with mock.patch.object(products, "DENSE_RECURRENCE_LENGTH", 0):
            return exponential(x)

    functions = {
        "dense": lambda x: products.dense_product(products.toeplitz_matrix(taps, length), x),
        "FFT": lambda x: products.fft_product(taps, x),
        "recurrence": recurrence,
    }

    def with_lags(lags: int) -> Callable[[Tensor], Tensor]:
        return lambda x: products.blocked_band_product(taps[:, None, :lags], x)

    functions |= {f"blocks, {lags} lags": with_lags(lags) for lags in LAGS if lags <= length}

    def with_rows(rows: int) -> Callable[[Tensor], Tensor]:
        def attend(x: Tensor) -> Tensor:
            with mock.patch.object(attention, "ROWS", rows):
                y = attention.causal_attention(x, x, x, dropout=0.5)
                y.sum().backward()  # inside the patch: the blocks are computed again here
                return y.detach().requires_grad_()

        return attend

    fitting = [rows for rows in ROWS if rows <= max(length, ROWS[0])]
    functions |= {f"attention with dropout, {rows} rows": with_rows(rows) for rows in fitting}
    return {name: forward_and_backward(function, length) for name, function in functions.items()}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: 7)")
    options = parser.parse_args()
    seconds = {length: interleaved_medians(ways(length), options.repeats) for length in LENGTHS}
    names = dict.fromkeys(name for by_way in seconds.values() for name in by_way)
    report(
        "kernel_products",
        "Ways to multiply a kernel with a sequence",
        f"Milliseconds forward and backward on {TOKENS} positions in all (the number of sequences follows from their "
        f"length), {HIDDEN_SIZE} channels, float32. Thresholds: dense up to T = {products.DENSE_LENGTH} "
        f"({products.DENSE_RECURRENCE_LENGTH} against the recurrence), blocks up to {products.BLOCKED_LAGS} lags, "
        f"{attention.ROWS} rows of attention.",
        ["way", *map(str, LENGTHS)],
        [[name, *(f"{1000 * seconds[n][name]:.1f}" if name in seconds[n] else "" for n in LENGTHS)] for name in names],
    )


if __name__ == "__main__":
    main()
