"""What a positional encoding is, and where it enters."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Sharing = Literal["per_layer", "shared"]
Place = Literal["input", "attention_input", "query_key", "logits"]


class PositionEncoding(nn.Module):
    """The interface of all encodings; subclasses override the one place at which they enter.

    Attributes:
        name: Its name in :data:`ENCODINGS` and in the key ``position_encoding``.
        enters: The place where it enters: the method below that it overrides.
        lag_only: True if only distances count, so that it does not matter where padding stands.
    """

    name: ClassVar[str]
    enters: ClassVar[Place]
    lag_only = True

    def at_input(self, x: Tensor) -> Tensor:
        """The input of the first block, shape (b, s, d), with positions."""
        return x

    def at_attention_input(self, x: Tensor, first: int = 0) -> Tensor:
        """The input of a block's queries, or of its keys and values, with positions.

        Args:
            x: The rows from ``first`` to the last of a sequence, shape (b, t, d).
            first: Row of the first of them.
        """
        return x

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        """Projected queries or keys in heads, with positions.

        Args:
            x: The rows from ``first`` to the last of a sequence, shape (b, h, t, d_h).
            first: Row of the first of them.
        """
        return x

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """What is added to the logits of some consecutive queries.

        Args:
            query: Queries of the rows ``first`` to ``first`` + t as they enter the logits, shape (b, h, t, d_h).
            key: Keys of the rows 0 to ``first`` + t as they enter the logits, shape (b, h, s, d_h).
            unrotated: The queries before :meth:`rotate`, which know nothing of where they stand; shape of ``query``.
            first: Row of the first query.

        Returns:
            Tensor of shape (b or 1, h, t, s). What it holds at keys behind their query has no meaning.
        """
        raise NotImplementedError


def angles(max_length: int, channels: int, base: float) -> Tensor:
    """t / base^(2i / d) for position t and pair i, in float64, shape (``max_length``, ⌈d / 2⌉)."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.outer(torch.arange(max_length, dtype=torch.float64), frequency)
