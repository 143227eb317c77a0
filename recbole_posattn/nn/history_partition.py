"""A learned bias on the scores of items by whether, and how long ago, they are in the history.

    z_i = s_i + b_∅                  for items that are not in the history
    z_i = s_i + b_bucket(k)          for items that were last seen k items before the newest one

A positive bias copies items from the history, a negative one excludes them. The idea is that of the context partition
of softmax-CPR (Chang et al., arXiv 2310.14079), which gives history items logits of their own.

Shape keys: b sequences, s sequence length, T the longest, m targets, n items.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_posattn.nn.losses.histories import HistoryBias

# Each bias is a weight times this. Adam moves a weight by about the learning rate in a step, so that without it, an
# ordinary bias of 5 would take thousands of steps.
GAIN = 32.0


class HistoryPartition(nn.Module):
    """The biases, which start at 0. Bucket i holds the lags 2^i − 1 to 2^(i + 1) − 2: 0, 1–2, 3–6, 7–14, …

    Args:
        max_length: The longest sequence T, in positions.

    Raises:
        ValueError: If ``max_length`` is below 1.
    """

    bucket: Tensor

    def __init__(self, max_length: int) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"max_length must be a positive integer, got {max_length}")
        lag = torch.arange(max_length)
        # 1e-9 corrects a log2 of a power of two that is rounded down; it is too small to change any other bucket
        self.register_buffer("bucket", (lag + 1).double().log2().add(1e-9).long(), persistent=False)
        self.weight = nn.Parameter(torch.zeros(1 + max_length.bit_length()))

    def biases(self) -> tuple[Tensor, Tensor]:
        """b_∅, a scalar, and b_bucket(k) of each lag k, shape (T,)."""
        bias = GAIN * self.weight
        return bias[0], bias[1:][self.bucket]

    def of_targets(self, item: Tensor, sequence: Tensor, position: Tensor) -> HistoryBias:
        """The biases for the loss of some targets; arguments as for :class:`HistoryBias`."""
        outside, inside = self.biases()
        return HistoryBias(item, sequence, position, outside, inside - outside)

    def forward(self, scores: Tensor, item: Tensor, length: Tensor) -> Tensor:
        """Add the biases to the scores of all items.

        Args:
            scores: Shape (b, n).
            item: The histories, oldest item first, followed by zeros; int64, shape (b, s).
            length: Items in each history, at least 1; int64, shape (b,).

        Returns:
            Tensor of shape (b, n).
        """
        histories = self._of_rows(item, length)
        at, added = histories.added(slice(None))
        return (scores + histories.outside).scatter_add_(1, at, added.to(scores.dtype))

    def of_items(self, candidate: Tensor, item: Tensor, length: Tensor) -> Tensor:
        """The bias of one item for each history, shape (b,).

        Args:
            candidate: The items, shape (b,).
            item: See :meth:`forward`.
            length: See :meth:`forward`.
        """
        histories = self._of_rows(item, length)
        return histories.outside + histories.added_to(candidate[:, None])[:, 0]

    def _of_rows(self, item: Tensor, length: Tensor) -> HistoryBias:
        return self.of_targets(item, torch.arange(item.shape[0], device=item.device), length - 1)

    def by_bucket(self) -> list[tuple[int, int, float]]:
        """The first and the last lag of each bucket, and its bias less that of items not in the history."""
        outside, inside = (bias.detach() for bias in self.biases())
        lags = [torch.nonzero(self.bucket == bucket).flatten() for bucket in self.bucket.unique()]
        return [(int(lag[0]), int(lag[-1]), float(inside[lag[0]] - outside)) for lag in lags]
