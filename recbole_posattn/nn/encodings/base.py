"""Positional encodings, which can stand beside a positional kernel or instead of one.

All have one interface, :class:`PositionEncoding`: four places at which an encoding may enter, each of which does
nothing unless the encoding says otherwise. A new encoding is a class here and a line in :data:`ENCODINGS`.

Shape keys: b batch, s sequence length (of the keys), t query rows, d hidden size, h heads, d_h head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from recbole_posattn.nn.kernels.base import Alignment, aligned, checked_alignment

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


class AddedPositions(PositionEncoding):
    """Common part of the encodings that add a vector to each position: x + E, at the place of ``enters``.

    Args:
        max_length: The longest sequence, in positions.
        alignment: Whether a shorter sequence takes the last positions (``end``) or the first (``start``).

    Raises:
        ValueError: If ``alignment`` is unknown.
    """

    lag_only = False

    def __init__(self, max_length: int, alignment: Alignment = "end") -> None:
        super().__init__()
        self.max_length = max_length
        self.alignment = checked_alignment(alignment)

    def table(self) -> Tensor:
        """E, shape (``max_length``, d)."""
        raise NotImplementedError

    def at_input(self, x: Tensor) -> Tensor:
        """See :meth:`PositionEncoding.at_input`."""
        return self._add(x) if self.enters == "input" else x

    def at_attention_input(self, x: Tensor, first: int = 0) -> Tensor:
        """See :meth:`PositionEncoding.at_attention_input`."""
        return self._add(x, first) if self.enters == "attention_input" else x

    def _add(self, x: Tensor, first: int = 0) -> Tensor:
        length = first + x.shape[-2]
        if length > self.max_length:
            raise ValueError(f"length must be at most {self.max_length} (max_length), got {length}")
        return x + self.table()[aligned(self.alignment, length, self.max_length)][first:]


class AbsoluteEncoding(AddedPositions):
    """A learned embedding of each position, added to the input (the classic SASRec, arXiv 1808.09781, §III-A).

    Args:
        max_length: See :class:`AddedPositions`.
        hidden_size: Channels d.
        alignment: See :class:`AddedPositions`.
    """

    name = "absolute"
    enters = "input"

    def __init__(self, max_length: int, hidden_size: int, alignment: Alignment = "end") -> None:
        super().__init__(max_length, alignment)
        self.embedding = nn.Embedding(max_length, hidden_size)

    def table(self) -> Tensor:
        """See :meth:`AddedPositions.table`."""
        return self.embedding.weight


class AllAbsoluteEncoding(AbsoluteEncoding):
    """A learned embedding of each position, added to the inputs of Q, K and V inside every block (ALL-APE of
    arXiv 2602.21052): softmax((X_q + E) W_Q ((X + E) W_K)ᵀ / √d_h) (X + E) W_V.
    """

    name = "all_absolute"
    enters = "attention_input"


class SinusoidalEncoding(AddedPositions):
    """Fixed sines and cosines added to the input (Vaswani et al., arXiv 1706.03762, §3.5).

    E[t, 2i] = sin(t / base^(2i / d)), E[t, 2i + 1] = cos(t / base^(2i / d)).

    Args:
        max_length: See :class:`AddedPositions`.
        hidden_size: Channels d.
        alignment: See :class:`AddedPositions`.
        base: The longest wavelength is 2π · base.
    """

    name = "sinusoidal"
    enters = "input"

    def __init__(self, max_length: int, hidden_size: int, alignment: Alignment = "end", base: float = 10000.0) -> None:
        super().__init__(max_length, alignment)
        angle = _angles(max_length, hidden_size, base)
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[:, :hidden_size]
        self.register_buffer("waves", waves.to(torch.get_default_dtype()), persistent=False)

    def table(self) -> Tensor:
        """See :meth:`AddedPositions.table`."""
        return self.waves


class RotaryEncoding(PositionEncoding):
    """Rotary positions, RoPE (Su et al., arXiv 2104.09864, §3.2), in the rotate-half convention.

    Channels i and i + d_h / 2 of position t are rotated by the angle t / base^(2i / d_h), so that the product of a
    query and a key depends on the distance of their positions alone.

    Args:
        max_length: The longest sequence, in positions.
        head_size: Channels d_h, an even number.
        base: The longest wavelength is 2π · base.

    Raises:
        ValueError: If ``head_size`` is odd.
    """

    name = "rope"
    enters = "query_key"

    def __init__(self, max_length: int, head_size: int, base: float = 10000.0) -> None:
        super().__init__()
        if head_size % 2:
            raise ValueError(f"head_size must be even, since channels are rotated in pairs, got {head_size}")
        angle = _angles(max_length, head_size, base)
        self.register_buffer("cos", angle.cos(), persistent=False)  # float64: rounded where it meets x
        self.register_buffer("sin", angle.sin(), persistent=False)

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        """See :meth:`PositionEncoding.rotate`."""
        cos, sin = (table[first : first + x.shape[-2]].to(x.dtype) for table in (self.cos, self.sin))
        real, imaginary = x.chunk(2, dim=-1)
        return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)


class CAPEEncoding(PositionEncoding):
    """Contextual-aware positions, CAPE (Yuan et al., arXiv 2502.09027): dissimilar items count, similar ones hardly.

    With the logits s_tj of the attention, the position of key j for query t is p_tj = Σ_{j ≤ i ≤ t} (1 − σ(s_ti)), at
    most P − 1. The bias is q_t · e[p_tj] with learned e, linear between the integers around p_tj, and with q_t before
    any rotation. e starts at 0.

    Args:
        head_size: Channels d_h.
        n_positions: P, the number of learned positions.
    """

    name = "cape"
    enters = "logits"

    def __init__(self, head_size: int, n_positions: int) -> None:
        super().__init__()
        if n_positions < 1:
            raise ValueError(f"n_positions must be a positive integer, got {n_positions}")
        self.n_positions = n_positions
        self.position = nn.Parameter(torch.zeros(head_size, n_positions))

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`."""
        logits = query @ key.mT / math.sqrt(query.shape[-1])
        gates = (1 - logits.sigmoid()).tril(first)  # keys behind the query do not count
        position = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=self.n_positions - 1)
        below = position.detach().floor()
        above = below.add(1).clamp(max=self.n_positions - 1)
        at_integers = unrotated @ self.position
        bias_below, bias_above = (at_integers.gather(-1, index.long()) for index in (below, above))
        return torch.lerp(bias_below, bias_above, position - below)


class ALiBiEncoding(PositionEncoding):
    """A fixed penalty on distance, ALiBi (Press et al., arXiv 2108.12409, §3): −m_i (t − s) is added in head i.

    The slopes are m_i = 2^(−E i / h), i = 1 … h.

    Args:
        n_heads: Heads h.
        slope_exponent: E, which is 8 in the paper. Its smallest slope, 2⁻⁸, is all that a single head gets.
    """

    name = "alibi"
    enters = "logits"

    def __init__(self, n_heads: int, slope_exponent: float = 8.0) -> None:
        super().__init__()
        slope = 2.0 ** (-slope_exponent * torch.arange(1, n_heads + 1) / n_heads)
        self.register_buffer("slope", slope, persistent=False)

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`."""
        return -self.slope[None, :, None, None] * _lags(query, key, first)


class T5BiasEncoding(PositionEncoding):
    """A learned bias for each head and bucket of distances, as in T5 (Raffel et al., arXiv 1910.10683, §2.1).

    Of B buckets, the first B / 2 hold one distance each; the others grow logarithmically up to ``max_distance``,
    behind which all distances are in the last one.

    Args:
        n_heads: Heads h.
        n_buckets: B, at least 2.
        max_distance: Where the last bucket begins to hold everything, in positions; above B / 2.

    Raises:
        ValueError: If ``n_buckets`` or ``max_distance`` is out of range.
    """

    name = "t5_bias"
    enters = "logits"

    def __init__(self, n_heads: int, n_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        if n_buckets < 2:
            raise ValueError(f"n_buckets must be at least 2, got {n_buckets}")
        if max_distance <= n_buckets // 2:
            raise ValueError(f"max_distance must be above n_buckets / 2, {n_buckets // 2}, got {max_distance}")
        self.n_buckets = n_buckets
        self.max_distance = max_distance
        self.bias = nn.Embedding(n_buckets, n_heads)

    def bucket(self, lag: Tensor) -> Tensor:
        """The bucket of each lag; negative lags count as 0."""
        exact = self.n_buckets // 2
        lag = lag.clamp(min=0)
        # Rounded before the cut: the logarithm of a bucket's first distance may fall just below an integer.
        steps = torch.log(lag.clamp(min=1).double() / exact) / math.log(self.max_distance / exact)
        wide = exact + (steps * (self.n_buckets - exact) + 1e-9).long()
        return torch.where(lag < exact, lag, wide.clamp(max=self.n_buckets - 1))

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`."""
        return self.bias(self.bucket(_lags(query, key, first))).movedim(-1, 0)[None]


def _angles(max_length: int, channels: int, base: float) -> Tensor:
    """t / base^(2i / d) for position t and pair i, in float64, shape (``max_length``, ⌈d / 2⌉)."""
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.outer(torch.arange(max_length, dtype=torch.float64), frequency)


def _lags(query: Tensor, key: Tensor, first: int) -> Tensor:
    """t − s for the queries ``first``, ``first`` + 1, … and all keys, shape (t, s)."""
    row = first + torch.arange(query.shape[-2], device=query.device)
    return row[:, None] - torch.arange(key.shape[-2], device=query.device)


class EncodingOptions(NamedTuple):
    """What the encodings are built from; each takes what concerns it.

    Args:
        max_length: The longest sequence, in positions.
        hidden_size: Channels d.
        n_heads: Heads h.
        alignment: See :class:`AddedPositions`.
        all_absolute_sharing: One embedding of ``all_absolute`` a layer, or one for all.
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


ENCODINGS: dict[str, Callable[[EncodingOptions], PositionEncoding]] = {
    "absolute": lambda o: AbsoluteEncoding(o.max_length, o.hidden_size, o.alignment),
    "all_absolute": lambda o: AllAbsoluteEncoding(o.max_length, o.hidden_size, o.alignment),
    "sinusoidal": lambda o: SinusoidalEncoding(o.max_length, o.hidden_size, o.alignment),
    "rope": lambda o: RotaryEncoding(o.max_length, o.head_size, o.rope_base),
    "cape": lambda o: CAPEEncoding(o.head_size, o.cape_positions or o.max_length),
    "alibi": lambda o: ALiBiEncoding(o.n_heads, o.alibi_slope_exponent),
    "t5_bias": lambda o: T5BiasEncoding(o.n_heads, o.t5_buckets, o.t5_max_distance),
}

# Encodings that cannot tell more together than one of them alone, each with the reason.
MEANINGLESS_TOGETHER = {
    ("absolute", "sinusoidal"): "both add a vector per position to the input, and a learned one can hold the fixed one",
    ("alibi", "t5_bias"): "both add a bias per distance to the logits, of which only the sum can be told",
}


def check_encodings(names: Sequence[str]) -> None:
    """Refuse encodings that make no sense together.

    Raises:
        ValueError: If a name is unknown, given twice, or in a pair of :data:`MEANINGLESS_TOGETHER`.
    """
    for name in names:
        if name not in ENCODINGS:
            raise ValueError(f"position_encoding must hold any of {', '.join(ENCODINGS)}, got {name!r}")
        if list(names).count(name) > 1:
            raise ValueError(f"position_encoding must hold {name!r} once, got {list(names)}")
    for pair, reason in MEANINGLESS_TOGETHER.items():
        if set(pair) <= set(names):
            raise ValueError(f"position_encoding {list(names)} makes no sense: of {' and '.join(pair)}, {reason}")


def build_encodings(names: Sequence[str], n_layers: int, options: EncodingOptions) -> list[list[PositionEncoding]]:
    """The encodings of each layer, in the order of their names.

    Layers have a CAPE of their own, as they have queries of their own; ALL-APE's are a matter of its option, and all
    others are one module for all layers (T5 shares its bias as well).

    Raises:
        ValueError: See :func:`check_encodings`; or if an option is out of range.
    """
    check_encodings(names)
    per_layer = {"cape"} | ({"all_absolute"} if options.all_absolute_sharing == "per_layer" else set())
    shared = {name: ENCODINGS[name](options) for name in names if name not in per_layer}
    return [[shared[name] if name in shared else ENCODINGS[name](options) for name in names] for _ in range(n_layers)]
