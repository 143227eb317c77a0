"""The base class of losses over items, and the chunks in which they compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ItemLoss(nn.Module):
    """The interface of all losses. The score of item i for target j is s = ``hidden[j]`` · ``item_weight[i]``."""

    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
        """The mean loss of some targets.

        Args:
            hidden: What predicts each target, shape (m, d). There must be a target: the mean over none is not a number.
            target: Items of shape (m,).
            item_weight: Embeddings of all items, shape (n, d).

        Returns:
            Scalar.
        """
        raise NotImplementedError


def targets_per_chunk(elements: dict[str, int], elements_per_target: int, device: torch.device) -> int:
    """Targets whose elements together are about as many as the device likes; one at least."""
    return max(1, elements.get(device.type, elements["cuda"]) // elements_per_target)


def target_chunks(n_targets: int, chunk_size: int) -> Iterator[slice]:
    """Slices of ``chunk_size`` targets, the last of what remains."""
    return (slice(start, start + chunk_size) for start in range(0, n_targets, chunk_size))
