"""Negative items, drawn for sampled losses."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distribution = Literal["uniform", "popularity"]
DISTRIBUTIONS = ("uniform", "popularity")

# Probabilities of items are rounded to multiples of one over this number; up to 2^53, float64 draws them exactly.
PROBABILITY_PARTS = 2**52


class NegativeItems(nn.Module):
    """A distribution of negative items, the same as that of RecBole's samplers.

    ``uniform`` draws all items except the padding with equal probability, ``popularity`` in proportion to count^α.
    Items that never occur in training are drawn by the first, never by the second.

    Every item owns an interval of the integers 0 … ``total`` − 1, in proportion to its probability. A draw is an
    integer. A target is excluded from its own negatives by drawing from a range that is shorter by its interval: no
    draw has to be repeated, however probable the target is.

    Args:
        distribution: ``uniform`` or ``popularity``.
        item_counts: How often each item occurs in training, integers of shape (n,).
        alpha: α, for ``popularity`` only: 1 follows the counts, 0 makes all items that occur equally likely.

    Attributes:
        n_items: n.

    Raises:
        ValueError: If ``distribution`` is unknown, or if fewer than two items can be drawn.
    """

    bounds: Tensor

    def __init__(self, distribution: Distribution, item_counts: Tensor, alpha: float = 1.0) -> None:
        super().__init__()
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
        drawable = item_counts > 0 if distribution == "popularity" else torch.ones_like(item_counts, dtype=torch.bool)
        drawable[0] = False
        if drawable.sum() < 2:
            raise ValueError(
                f"negative items need two items to draw from, but distribution {distribution} finds "
                f"{int(drawable.sum())} among {len(item_counts)} items"
            )
        self.distribution = distribution
        self.alpha = alpha
        self.n_items = len(item_counts)
        length = drawable.long()
        if distribution == "popularity":
            # Divided by the largest count, so that no power overflows and not all of them are 0.
            weight = torch.where(drawable, item_counts.double() / item_counts[drawable].max(), 1.0) ** alpha
            probability = weight / weight[drawable].sum()
            length = length * (probability * PROBABILITY_PARTS).round().long().clamp(min=1)
        self.total = int(length.sum())
        # Item i owns bounds[i] … bounds[i + 1] − 1. Integers do not change when a model is cast to half precision.
        self.register_buffer("bounds", F.pad(length.cumsum(0), (1, 0)), persistent=False)

    def sample(self, target: Tensor, k: int) -> Tensor:
        """k independent negatives for each target, which differ from it.

        Args:
            target: Items of shape (m,).
            k: Negatives of each.

        Returns:
            Items of shape (m, k).
        """
        first = self.bounds[target].unsqueeze(-1)
        length = self.bounds[target + 1].unsqueeze(-1) - first
        draw = self._draw((len(target), k), self.total - length)
        return self._owner(draw + length * (draw >= first))

    def sample_shared(self, k: int) -> Tensor:
        """k independent items, shape (k,); targets may be among them."""
        return self._owner(self._draw((k,), self.total))

    def log_probability(self, items: Tensor) -> Tensor:
        """The log-probability with which :meth:`sample_shared` draws each of some items, float64 of their shape."""
        return (self.bounds[items + 1] - self.bounds[items]).double().log() - math.log(self.total)

    def _draw(self, shape: tuple[int, ...], total: int | Tensor) -> Tensor:
        return (torch.rand(shape, dtype=torch.float64, device=self.bounds.device) * total).long()

    def _owner(self, draw: Tensor) -> Tensor:
        if self.distribution == "uniform":
            return draw + 1
        return torch.searchsorted(self.bounds, draw, right=True) - 1

    def extra_repr(self) -> str:
        """The distribution and its size, for ``print(model)``."""
        alpha = f", alpha={self.alpha}" if self.distribution == "popularity" else ""
        return f"{self.distribution}, n_items={self.n_items}{alpha}"
