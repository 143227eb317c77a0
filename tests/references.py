"""Positional encodings once more, slowly and straight from their papers, to compare with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.encodings.logit_bias import ALiBiEncoding, CAPEEncoding, T5BiasEncoding
from recbole_posattn.nn.encodings.rotary import RotaryEncoding


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


@torch.no_grad()
def logit_bias(encoding: PositionEncoding, query: Tensor, logits: Tensor) -> Tensor:
    """The bias of one sequence: queries before any rotation (h, s, d_h), logits before any bias (h, s, s)."""
    length = query.shape[-2]
    if isinstance(encoding, ALiBiEncoding):
        exponent = -math.log2(float(encoding.slope[-1]))
        return alibi_bias(len(query), exponent, length)
    if isinstance(encoding, T5BiasEncoding):
        return t5_bias(encoding.bias.weight, encoding.n_buckets, encoding.max_distance, length)
    if isinstance(encoding, CAPEEncoding):
        return torch.stack([cape_bias(encoding.position, q, s) for q, s in zip(query, logits)])
    return torch.zeros_like(logits)


def rotate(encoding: PositionEncoding, x: Tensor, base: float) -> Tensor:
    """Queries or keys with rotary positions, if that is the encoding."""
    return rotated(x, base) if isinstance(encoding, RotaryEncoding) else x
