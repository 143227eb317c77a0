"""Dropout with cheap random numbers on a CPU, where PyTorch's take a fifth of the training time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p, multiply the others by 1 / (1 − p).

    On a CPU, PyTorch draws a float for each element, one by one. Here 64 random bits serve four elements, which is six
    times as fast (``python -m benchmarks.dropout_speed``). p is rounded to a multiple of 2⁻¹⁶ here and in the factor,
    so that the mean does not change.

    Args:
        x: A tensor of any shape.
        p: Probability of zeroing an element, in [0, 1).

    Returns:
        Tensor of the shape and type of ``x``.
    """
    if p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return x * dropout_factor(x.shape, p, x.dtype)


def dropout_factor(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """The factors of :func:`dropout` on a CPU: 0 with probability p, else 1 / (1 − p).

    Args:
        shape: Shape of the result. Four elements share one draw, so if the first of two calls makes a multiple of four
            elements, both calls together give the same factors as a single call for all elements.
        p: Probability of zeroing an element, in (0, 1).
        dtype: Of the result.
    """
    n, n_zeroed = math.prod(shape), min(round(p * LEVELS), LEVELS - 1)  # of the 2^16 values of a draw
    bits = torch.empty(math.ceil(n / 4), dtype=torch.int64).random_(-(2**63), None)
    draw = bits.view(torch.int16)[:n].view(shape)
    kept = torch.ge(draw, n_zeroed - LEVELS // 2, out=torch.empty(shape, dtype=dtype))  # 1 or 0
    return kept.mul_(LEVELS / (LEVELS - n_zeroed))


class Dropout(nn.Module):
    """:func:`dropout` during training; replaces ``torch.nn.Dropout``.

    Args:
        p: Probability of zeroing an element, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"


class ItemDropout(nn.Module):
    """During training, zero whole item embeddings with probability p, and multiply the others by 1 / (1 − p).

    Each position of a sequence is drawn by itself and stays in its place: word dropout (Iyyer et al., ACL 2015) for
    items. Padding is left as it is.

    Args:
        p: Probability of zeroing an item, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, embedding: Tensor, item: Tensor) -> Tensor:
        """Embeddings of shape (b, s, d) of items of shape (b, s), 0 at padding, to embeddings of that shape."""
        if not self.training or self.p == 0.0:
            return embedding
        factor = dropout(torch.ones_like(item, dtype=embedding.dtype), self.p)
        return embedding * factor.masked_fill(item == 0, 1.0).unsqueeze(-1)

    def extra_repr(self) -> str:
        """The probability, for ``print(model)``."""
        return f"p={self.p}"
