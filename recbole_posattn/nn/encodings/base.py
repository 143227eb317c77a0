"""The interface of positional encodings, and their options."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from recbole_posattn.nn.kernels.base import Alignment

Sharing = Literal["per_layer", "shared"]
Place = Literal["input", "attention_input", "query_key", "logits"]


class EncodingOptions(NamedTuple):
    """The options of all encodings; each encoding uses those it needs.

    Attributes:
        max_length: The longest sequence, in positions.
        hidden_size: Channels d.
        n_heads: Heads h.
        alignment: See :class:`AddedPositions`.
        all_absolute_sharing: One embedding of ``all_absolute`` per layer, or one shared by all layers.
        rope_base: See :class:`RotaryEncoding`.
        cape_positions: P of :class:`CAPEEncoding`; ``max_length`` if ``None``.
        alibi_slope_exponent: See :class:`ALiBiEncoding`.
        t5_buckets: See :class:`T5BiasEncoding`.
        t5_max_distance: See :class:`T5BiasEncoding`.
    """

    max_length: int
    hidden_size: int
    n_heads: int = 1
    alignment: Alignment = "end"
    all_absolute_sharing: Sharing = "per_layer"
    rope_base: float = 10000.0
    cape_positions: int | None = None
    alibi_slope_exponent: float = 8.0
    t5_buckets: int = 32
    t5_max_distance: int = 128

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.n_heads


class PositionEncoding(nn.Module):
    """The interface of all encodings; subclasses override the one place at which they enter.

    Attributes:
        name: Its name in :data:`ENCODINGS` and in the key ``position_encoding``.
        enters: Where it enters: the method below that it overrides.
        lag_only: True if it depends on distances alone, so that it does not matter where the padding is.
        per_layer: True if each layer has its own, False if all layers share one.
    """

    name: ClassVar[str]
    enters: ClassVar[Place]
    lag_only = True
    per_layer: ClassVar[bool] = False

    @classmethod
    def from_options(cls, options: EncodingOptions) -> Self:
        """An encoding of this class from the options of a model, for :func:`recbole_posattn.register_encoding`."""
        return cls()

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
        """The bias of the logits of consecutive queries.

        Args:
            query: Queries of the rows ``first`` to ``first`` + t as they enter the logits, shape (b, h, t, d_h).
            key: Keys of the rows 0 to ``first`` + t as they enter the logits, shape (b, h, s, d_h).
            unrotated: The queries before :meth:`rotate`, which do not depend on their position; shape of ``query``.
            first: Row of the first query.

        Returns:
            Tensor of shape (b or 1, h, t, s). Values at keys after their query are ignored.
        """
        raise NotImplementedError


def angles(max_length: int, channels: int, base: float) -> Tensor:
    """t / base^(2i / d) for position t and pair i, in float64, shape (``max_length``, ⌈d / 2⌉)."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.outer(torch.arange(max_length, dtype=torch.float64), frequency)
