"""The interface of positional encodings, and their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from recbole_posattn.nn.kernels.base import Alignment
from recbole_posattn.nn.times import Times

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
        time_bias_positions: See :class:`TimeBiasEncoding`.
        time_rope_base: See :class:`TimeRotaryEncoding`.
        median_gap: See :class:`TimeRotaryEncoding`.
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
    time_bias_positions: bool = False
    time_rope_base: float = 10000.0
    median_gap: float = 1.0

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden_size // self.n_heads


def _unrotated(x: Tensor, first: int) -> Tensor:
    return x


def _no_bias(query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
    raise NotImplementedError


class OfBatch(NamedTuple):
    """An encoding of the sequences of one batch; fields as the attribute and methods of :class:`PositionEncoding`."""

    enters: Place
    rotate: Callable[[Tensor, int], Tensor] = _unrotated
    logit_bias: Callable[[Tensor, Tensor, Tensor, int], Tensor] = _no_bias


class PositionEncoding(nn.Module):
    """The interface of all encodings; subclasses override the one place at which they enter.

    Attributes:
        name: Its name in :data:`ENCODINGS` and in the key ``position_encoding``.
        enters: Where it acts: ``input`` (overrides :meth:`at_input`), ``attention_input`` (:meth:`at_attention_input`),
            ``query_key`` (:meth:`rotate`) or ``logits`` (:meth:`logit_bias`).
        lag_only: True if it depends on distances alone, so that it does not matter where the padding is.
        reads_time: True if it depends on the times of the items.
        per_layer: True if each layer has its own, False if all layers share one.
    """

    name: ClassVar[str]
    enters: ClassVar[Place]
    lag_only = True
    reads_time: ClassVar[bool] = False
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

    def of_batch(self, x: Tensor, times: Times | None) -> PositionEncoding | OfBatch:
        """Bind the encoding to one batch, if its rotation or bias depends on the items or their times.

        Args:
            x: Input of the keys and values of the block, shape (b, s, d).
            times: Times of the items; ``None`` for evenly spaced items.

        Returns:
            What provides ``rotate`` and ``logit_bias`` for this batch; by default the encoding itself.
        """
        return self

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
    return torch.outer(torch.arange(max_length, dtype=torch.float64), frequencies(channels, base))


def frequencies(channels: int, base: float) -> Tensor:
    """base^(−2i / d) for pair i of d channels, in float64, shape (⌈d / 2⌉,)."""
    return base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
