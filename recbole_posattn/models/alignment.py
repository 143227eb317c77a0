"""Padding moved to the front of sequences.

Shape keys: b batch, s sequence length.
"""

from __future__ import annotations

import torch
from torch import Tensor


def padding_in_front(sequence: Tensor, length: Tensor) -> Tensor:
    """Move padding from the end to the start; shape (b, s)."""
    place = _places_in_front(sequence, length)
    return sequence.gather(1, place.clamp(min=0)).masked_fill(place < 0, 0)


def first_in_front(sequence: Tensor, length: Tensor) -> Tensor:
    """:func:`padding_in_front` with the first value of each sequence at the padding."""
    return sequence.gather(1, _places_in_front(sequence, length).clamp(min=0))


def _places_in_front(sequence: Tensor, length: Tensor) -> Tensor:
    """The place that each value comes from when padding moves to the start, negative at padding; shape (b, s)."""
    s = sequence.shape[1]
    return torch.arange(s, device=sequence.device) - (s - length)[:, None]
