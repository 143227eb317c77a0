"""Encodings that are added to the attention logits."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn.encodings.base import OfBatch, PositionEncoding
from recbole_posattn.nn.times import Times


class CAPEEncoding(PositionEncoding):
    """Contextual-aware positions, CAPE (Yuan et al., arXiv 2502.09027), which count dissimilar items more than similar.

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
        # In half precision, a sum of many gates has no digits left between the integers.
        with torch.autocast(query.device.type, enabled=False):
            logits = _at_least_float32(query) @ _at_least_float32(key).mT / math.sqrt(query.shape[-1])
            gates = (1 - logits.sigmoid()).tril(first)  # keys after the query do not count
            position = gates.flip(-1).cumsum(dim=-1).flip(-1).clamp(max=self.n_positions - 1)
        below = position.detach().floor()
        above = below.add(1).clamp(max=self.n_positions - 1)
        at_integers = (unrotated @ self.position).to(position.dtype)
        bias_below, bias_above = (at_integers.gather(-1, index.long()) for index in (below, above))
        return torch.lerp(bias_below, bias_above, position - below)


class ALiBiEncoding(PositionEncoding):
    """A fixed penalty on distance, ALiBi (Press et al., arXiv 2108.12409, §3): −m_i (t − s) is added in head i.

    The slopes are m_i = 2^(−E i / h), i = 1 … h.

    Args:
        n_heads: Heads h.
        slope_exponent: E, which is 8 in the paper. A single head gets the smallest slope, 2⁻⁸.
    """

    name = "alibi"
    enters = "logits"
    slope: Tensor

    def __init__(self, n_heads: int, slope_exponent: float = 8.0) -> None:
        super().__init__()
        slope = 2.0 ** (-slope_exponent * torch.arange(1, n_heads + 1) / n_heads)
        self.register_buffer("slope", slope, persistent=False)

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`."""
        return -self.slope[None, :, None, None] * lags(query, key, first)


class T5BiasEncoding(PositionEncoding):
    """A learned bias for each head and bucket of distances, as in T5 (Raffel et al., arXiv 1910.10683, §2.1).

    Of B buckets, the first B / 2 hold one distance each; the others grow logarithmically up to ``max_distance``,
    beyond which all distances share the last bucket.

    Args:
        n_heads: Heads h.
        n_buckets: B, at least 2.
        max_distance: Distance from which all share the last bucket, in positions; above B / 2.

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
        # 1e-9, since the logarithm of a bucket's first distance may fall just below an integer.
        steps = torch.log(lag.clamp(min=1).double() / exact) / math.log(self.max_distance / exact)
        wide = exact + (steps * (self.n_buckets - exact) + 1e-9).long()
        return torch.where(lag < exact, lag, wide.clamp(max=self.n_buckets - 1))

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`."""
        bias: Tensor = self.bias(self.bucket(lags(query, key, first)))
        return bias.movedim(-1, 0)[None]


class ForgettingEncoding(PositionEncoding):
    """A decay that depends on the contents, of the Forgetting Transformer (Lin et al., arXiv 2503.02130).

    Each item l has a forget gate f_l = σ(w · x_l + c) in each head, and Σ_{j < l ≤ t} log f_l is added to the logit of
    key j for query t: what came before an item with a low gate is forgotten. c starts at log T, so that a gate starts
    near T / (T + 1) and hardly anything is forgotten over T positions; w starts at N(0, 0.02²).

    Args:
        hidden_size: Channels d of x.
        n_heads: Heads h.
        max_length: T, the longest sequence, in positions.
    """

    name = "forgetting"
    enters = "logits"
    per_layer = True

    def __init__(self, hidden_size: int, n_heads: int, max_length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(n_heads, hidden_size))
        self.bias = nn.Parameter(torch.full((n_heads,), math.log(max_length)))

    def of_batch(self, x: Tensor, times: Times | None) -> OfBatch:
        """See :meth:`PositionEncoding.of_batch`."""
        log_gate = F.logsigmoid(F.linear(x, self.weight, self.bias)).mT  # (b, h, s)
        total = _at_least_float32(log_gate).cumsum(dim=-1)  # differences of its neighbours are small
        return OfBatch(self.enters, logit_bias=functools.partial(_between, total))


def _between(total: Tensor, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
    """Differences of a sum over positions (b, h, s) between queries and keys, shape (b, h, t, s)."""
    return total[..., first : first + query.shape[-2], None] - total[..., None, : key.shape[-2]]


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def lags(query: Tensor, key: Tensor, first: int) -> Tensor:
    """t − s for the queries ``first``, ``first`` + 1, … and all keys, shape (t, s)."""
    row = first + torch.arange(query.shape[-2], device=query.device)
    return row[:, None] - torch.arange(key.shape[-2], device=query.device)
