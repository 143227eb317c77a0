"""Encodings of the times between items.

Shape keys: b batch, h heads, s sequence length, t queries, d_h head size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_posattn.nn.encodings.base import OfBatch, PositionEncoding, frequencies
from recbole_posattn.nn.encodings.logit_bias import lags
from recbole_posattn.nn.encodings.rotary import rotated_halves
from recbole_posattn.nn.times import Times

# HSTU's buckets of time (RelativeBucketedTimeAndPositionBasedBias in the authors' code): a bucket ends where the
# logarithm of the gap has grown by this, and the last one has all longer gaps: any number of seconds fits.
BUCKET_WIDTH, LAST_BUCKET = 0.301, 128

INIT_STD = 0.02


class TimeBiasEncoding(PositionEncoding):
    """A learned bias for each head and bucket of time gaps, HSTU's (Zhai et al., arXiv 2402.17152, §3 and the code).

    The gap Δ from key j to query t is t's time minus j's, in seconds; its bucket is ⌊log(max(1, Δ)) / 0.301⌋. The
    weights start at N(0, 0.02²).

    The authors' code takes the time of the *next* item as that of a query, which for the newest item is the time of the
    target. Here a query has its own time: when the next interaction will be is not known when it is predicted.

    Args:
        n_heads: Heads h.
        max_length: The longest sequence, in positions.
        positions: Whether a learned bias for each head and distance in positions is added, as in HSTU.
    """

    name = "time_bias"
    enters = "logits"
    reads_time = True
    per_layer = True

    def __init__(self, n_heads: int, max_length: int, positions: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(INIT_STD * torch.randn(n_heads, LAST_BUCKET + 1))
        self.position = nn.Parameter(INIT_STD * torch.randn(n_heads, max_length)) if positions else None

    @staticmethod
    def bucket(gap: Tensor) -> Tensor:
        """The bucket of each gap in seconds; int32. Gaps below 1 s, and to later items, are in the first one."""
        # In 32 bits as in the authors' code; the difference of times was taken before.
        return (gap.float().clamp(min=1.0).log() / BUCKET_WIDTH).int().clamp(max=LAST_BUCKET)

    def of_batch(self, x: Tensor, times: Times | None) -> OfBatch:
        """See :meth:`PositionEncoding.of_batch`; without times, items are a second apart."""
        times = times or Times.evenly(x.shape[-2], 1.0, x.device)
        return OfBatch(self.enters, logit_bias=functools.partial(self._bias, times))

    def logit_bias(self, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        """See :meth:`PositionEncoding.logit_bias`, for items a second apart."""
        return self._bias(Times.evenly(key.shape[-2], 1.0, key.device), query, key, unrotated, first)

    def _bias(self, times: Times, query: Tensor, key: Tensor, unrotated: Tensor, first: int) -> Tensor:
        n_queries, n_keys = query.shape[-2], key.shape[-2]

        def buckets() -> Tensor:
            return self.bucket(times.gaps(first, n_queries, n_keys))

        # All layers have the same; kept only where all queries are computed at once, so that memory is linear in s.
        at_once = n_queries in (1, n_keys)
        bucket = times.shared(("time_bias", first, n_queries, n_keys), buckets) if at_once else buckets()
        bias = weights_of(self.weight, bucket)
        if self.position is not None:
            bias = bias + self.position[:, lags(query, key, first).clamp(min=0)]
        return bias


def weights_of(weight: Tensor, bucket: Tensor) -> Tensor:
    """weight[head, bucket], shape (b, h, t, s), of weights of shape (h, n) and buckets of shape (b, t, s)."""
    if torch.is_grad_enabled():
        apply: Callable[..., Tensor] = _WeightsOf.apply
        return apply(weight, bucket)
    return _taken(weight, bucket)


def _taken(weight: Tensor, bucket: Tensor) -> Tensor:
    taken: Tensor = weight.index_select(1, bucket.flatten()).unflatten(1, bucket.shape)
    return taken.transpose(0, 1)


class _WeightsOf(torch.autograd.Function):
    """:func:`weights_of`, whose gradient is a sum by bucket; PyTorch's own for an index is slower."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bucket: Tensor) -> Tensor:
        """Shapes as above."""
        ctx.save_for_backward(bucket)
        ctx.size = weight.shape[-1]
        return _taken(weight, bucket)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Sums in 64 bits: a bucket may have millions of pairs."""
        (bucket,) = ctx.saved_tensors
        of_heads = [
            torch.bincount(bucket.flatten(), weights=of_head.flatten().double(), minlength=ctx.size)
            for of_head in grad.expand(len(bucket), -1, -1, -1).unbind(1)
        ]
        return torch.stack(of_heads).to(grad.dtype), None


class TimeRotaryEncoding(PositionEncoding):
    """Rotary positions (arXiv 2104.09864) with the time of an item instead of its position.

    Channels i and i + d_h / 2 of an item at time τ are rotated by the angle τ / (m · base^(2i / d_h)), so that the
    product of a query and a key depends on the time between them. m is the median gap of the training data: items that
    far apart turn as neighbours do in RoPE.

    Args:
        head_size: Channels d_h, an even number.
        base: The longest wavelength is 2π · base median gaps.
        median_gap: m, in seconds.

    Raises:
        ValueError: If ``head_size`` is odd.
    """

    name = "time_rope"
    enters = "query_key"
    reads_time = True
    frequency: Tensor
    median_gap: Tensor

    def __init__(self, head_size: int, base: float = 10000.0, median_gap: float = 1.0) -> None:
        super().__init__()
        if head_size % 2:
            raise ValueError(f"head_size must be even, since channels are rotated in pairs, got {head_size}")
        self.register_buffer("frequency", frequencies(head_size, base), persistent=False)
        # Kept with the weights, which were learned for it
        self.register_buffer("median_gap", torch.tensor(median_gap, dtype=torch.float64))

    def of_batch(self, x: Tensor, times: Times | None) -> OfBatch:
        """See :meth:`PositionEncoding.of_batch`; without times, items are a median gap apart."""
        times = times or Times.evenly(x.shape[-2], self.median_gap, x.device)
        cos, sin = times.shared(
            ("time_rope", id(self), x.dtype),
            lambda: torch.stack([self._angle(times).cos(), self._angle(times).sin()]).to(x.dtype),
        )
        return OfBatch(self.enters, rotate=functools.partial(_turned, cos, sin))

    def _angle(self, times: Times) -> Tensor:
        """Of each item and pair of channels; float64, shape (b, 1, s, d_h / 2)."""
        return (times.seconds / self.median_gap)[:, None, :, None] * self.frequency

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        """See :meth:`PositionEncoding.rotate`, for items a median gap apart."""
        times = Times.evenly(first + x.shape[-2], self.median_gap, x.device)
        return self.of_batch(x.new_empty(1, first + x.shape[-2], 0), times).rotate(x, first)


def _turned(cos: Tensor, sin: Tensor, x: Tensor, first: int) -> Tensor:
    rows = slice(first, first + x.shape[-2])
    return rotated_halves(x, cos[:, :, rows], sin[:, :, rows])
