"""Positional encodings once more, slowly and straight from their papers, to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.encodings.logit_bias import ALiBiEncoding, CAPEEncoding, ForgettingEncoding, T5BiasEncoding
from recbole_posattn.nn.encodings.of_time import TimeBiasEncoding, TimeRotaryEncoding
from recbole_posattn.nn.encodings.rotary import RotaryEncoding
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel


def rotated(x: Tensor, base: float) -> Tensor:
    """RoPE as complex rotation: pair i of position t times exp(i t base^(−2i / d)), for x of shape (…, s, d)."""
    half = x.shape[-1] // 2
    position = torch.arange(x.shape[-2], dtype=torch.float64)
    frequency = torch.tensor([base ** (-2 * i / x.shape[-1]) for i in range(half)], dtype=torch.float64)
    turn = torch.polar(torch.ones(len(position), half, dtype=torch.float64), position[:, None] * frequency)
    pairs = torch.complex(x[..., :half].double(), x[..., half:].double()) * turn
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def alibi_bias(n_heads: int, exponent: float, length: int) -> Tensor:
    """−m (t − s), m = 2^(−E i / h) in head i = 1 … h; shape (h, s, s)."""
    bias = torch.zeros(n_heads, length, length, dtype=torch.float64)
    for i in range(n_heads):
        for t in range(length):
            for s in range(t + 1):
                bias[i, t, s] = -(2 ** (-exponent * (i + 1) / n_heads)) * (t - s)
    return bias


def t5_bucket(lag: int, n_buckets: int, max_distance: int) -> int:
    """The bucket of a distance to an earlier position (unidirectional)."""
    exact = n_buckets // 2
    if lag < exact:
        return lag
    # by integers: the largest j with exact · (max_distance / exact)^(j / (n_buckets − exact)) ≤ lag
    for j in reversed(range(n_buckets - exact)):
        if (lag / exact) ** (n_buckets - exact) >= (max_distance / exact) ** j * (1 - 1e-9):
            return exact + j
    raise AssertionError("j = 0 always holds")


def t5_bias(table: Tensor, n_buckets: int, max_distance: int, length: int) -> Tensor:
    """The learned bias of each distance's bucket; shape (h, s, s)."""
    bias = torch.zeros(table.shape[1], length, length, dtype=table.dtype)
    for t in range(length):
        for s in range(t + 1):
            bias[:, t, s] = table[t5_bucket(t - s, n_buckets, max_distance)]
    return bias


def cape_bias(position_table: Tensor, query: Tensor, logits: Tensor) -> Tensor:
    """CAPE by loops, for one head: query (s, d_h), logits (s, s); shape (s, s)."""
    length, last = len(query), position_table.shape[1] - 1
    bias = torch.zeros(length, length, dtype=query.dtype)
    for t in range(length):
        at_integers = [float(query[t] @ position_table[:, p]) for p in range(last + 1)]
        for j in range(t + 1):
            position = sum(1 - 1 / (1 + math.exp(-float(logits[t, i]))) for i in range(j, t + 1))
            position = min(position, last)
            below = math.floor(position)
            above = min(below + 1, last)
            share = position - below
            bias[t, j] = (1 - share) * at_integers[below] + share * at_integers[above]
    return bias


def time_bucket(gap: float) -> int:
    """HSTU's bucket of a gap in seconds."""
    return min(math.floor(math.log(max(1.0, gap)) / 0.301), 128)


def time_bias(weight: Tensor, position: Tensor | None, times: Sequence[float]) -> Tensor:
    """The learned bias of the bucket of each gap, and of each distance if there are any; shape (h, s, s)."""
    length = len(times)
    bias = torch.zeros(len(weight), length, length, dtype=weight.dtype)
    for t in range(length):
        for s in range(t + 1):
            bias[:, t, s] = weight[:, time_bucket(times[t] - times[s])]
            if position is not None:
                bias[:, t, s] += position[:, t - s]
    return bias


def forgetting_bias(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Σ log f_l of the items after the key up to the query, for one sequence x (s, d); shape (h, s, s)."""
    length = len(x)
    decay = torch.zeros(len(weight), length, length, dtype=x.dtype)
    for head in range(len(weight)):
        gates = [1 / (1 + math.exp(-float(weight[head] @ x[l] + bias[head]))) for l in range(length)]  # noqa: E741
        for t in range(length):
            for s in range(t + 1):
                decay[head, t, s] = math.log(math.prod(gates[s + 1 : t + 1]))
    return decay


def time_rotated(x: Tensor, times: Sequence[float], base: float, median_gap: float) -> Tensor:
    """Rotation by time as complex rotation, for x of shape (…, s, d)."""
    half = x.shape[-1] // 2
    angle = torch.tensor(
        [[time / median_gap / base ** (2 * i / x.shape[-1]) for i in range(half)] for time in times],
        dtype=torch.float64,
    )
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def time_decay(kernel: TimeDecayKernel, times: Sequence[float]) -> Tensor:
    """The matrix of one sequence, entry by entry; shape (g, s, s)."""

    def weight(group: int, gap: float, itself: bool) -> float:
        constants = [math.exp(log) * float(kernel.median_gap) for log in kernel.log_time_constant[group].tolist()]
        mixture = sum(a * math.exp(-gap / c) for a, c in zip(kernel.amplitude[group].tolist(), constants))
        return mixture + kernel.itself[group].item() * itself

    length, groups = len(times), range(kernel.n_groups)
    matrix = torch.zeros(len(groups), length, length, dtype=torch.float64)
    for group in groups:
        norm = 1.0
        if kernel.normalization == "frobenius":
            taps = (weight(group, lag * float(kernel.median_gap), lag == 0) for lag in range(kernel.max_length))
            norm = math.sqrt(sum(tap**2 for tap in taps))
        for t in range(length):
            for s in range(t + 1):
                matrix[group, t, s] = weight(group, times[t] - times[s], t == s) / norm
    return matrix


@torch.no_grad()
def logit_bias(
    encoding: PositionEncoding, query: Tensor, logits: Tensor, x: Tensor, times: Sequence[float] | None = None
) -> Tensor:
    """The bias of one sequence.

    Queries before any rotation (h, s, d_h), logits before any bias (h, s, s), the block's input x (s, d), and the times
    of the items; without times, they are a second apart.
    """
    length = query.shape[-2]
    if isinstance(encoding, TimeBiasEncoding):
        return time_bias(encoding.weight, encoding.position, times or [float(t) for t in range(length)])
    if isinstance(encoding, ForgettingEncoding):
        return forgetting_bias(encoding.weight, encoding.bias, x)
    if isinstance(encoding, ALiBiEncoding):
        exponent = -math.log2(float(encoding.slope[-1]))
        return alibi_bias(len(query), exponent, length)
    if isinstance(encoding, T5BiasEncoding):
        return t5_bias(encoding.bias.weight, encoding.n_buckets, encoding.max_distance, length)
    if isinstance(encoding, CAPEEncoding):
        return torch.stack([cape_bias(encoding.position, q, s) for q, s in zip(query, logits)])
    return torch.zeros_like(logits)


def rotate(encoding: PositionEncoding, x: Tensor, base: float, times: Sequence[float] | None = None) -> Tensor:
    """Queries or keys with rotary positions or times, if that is the encoding."""
    if isinstance(encoding, TimeRotaryEncoding):
        gap = float(encoding.median_gap)
        return time_rotated(x, times or [gap * t for t in range(x.shape[-2])], base, gap)
    return rotated(x, base) if isinstance(encoding, RotaryEncoding) else x
