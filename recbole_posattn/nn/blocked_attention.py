"""Causal attention on a CPU with dropout, for which PyTorch has no fused kernel.

Sequences are computed in groups and queries in blocks, so that intermediate results fit into the cache. A block of
queries attends only to the keys up to its last query: with four blocks, that is 5/8 of the work. The backward pass is
written by hand for the same reasons. With the dropout factors D, 0 or 1 / (1 − p):

    P = softmax(Q Kᵀ + mask)      Y = (P ⊙ D) V
    dP = dY Vᵀ                    dS = (P ⊙ D) ⊙ dP − P ⊙ rowsum(dY ⊙ Y)

Shape keys: n sequences times heads, s sequence length, d_h head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_posattn.nn.dropout import dropout_factor
from recbole_posattn.nn.padding_key import padding_factor

# Attention weights of a group of sequences; 4 MiB in float32.
GROUP_ELEMENTS = 2**20

# Most queries of a block.
BLOCK_SIZE = 64

# Added to the logits of padding. It is finite: a softmax over no keys, at padding, would be NaN.
_MASKED = -1e30


def blocked_attention(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, dropout: float, n_padding: Tensor | None = None
) -> Tensor:
    """softmax(Q Kᵀ / √d_h + causal mask) with dropout, times V.

    The random numbers are those of :func:`recbole_posattn.nn.dropout.dropout` for all weights of the attention.

    Args:
        query: Shape (b, h, s, d_h).
        key: Shape (b, h, s, d_h), or (b, h, s + 1, d_h) with ``n_padding``.
        value: The shape of ``key``.
        valid: Of the keys, False at padding, which is not attended; ``None`` if no padding precedes an item.
        dropout: Probability of zeroing an attention weight, in (0, 1).
        n_padding: How many keys the first one stands for, see ``padding_key.py``; shape (b,); with ``valid``.

    Returns:
        Tensor of shape (b, h, s, d_h); rows at padding have no meaning.
    """
    n_heads = query.shape[1]
    mask = None
    if valid is not None:
        mask = query.new_zeros(valid.shape).masked_fill_(~valid, _MASKED).repeat_interleave(n_heads, dim=0)
    first_factor = None
    if n_padding is not None:
        assert mask is not None
        n_padding = n_padding.repeat_interleave(n_heads)
        mask[:, 0] = n_padding.to(query.dtype).log().clamp(min=_MASKED)
        first_factor = padding_factor(n_padding[:, None].expand(-1, query.shape[-2]), dropout, query.dtype)
    attend: Callable[..., Tensor] = _BlockedAttention.apply
    scaled = query / math.sqrt(query.shape[-1])
    attended = attend(*(x.reshape(-1, *x.shape[-2:]) for x in (scaled, key, value)), mask, dropout, first_factor)
    return attended.view(query.shape)


class _BlockedAttention(torch.autograd.Function):
    """See :func:`blocked_attention`; Q, K and V of shape (n, s, d_h), the mask of the keys of shape (n, s).

    ``first_factor``, shape (n, s), are the dropout factors of the first key, if it stands for others. K, V and the mask
    then have s + 1 keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        dropout: float,
        first_factor: Tensor | None,
    ) -> Tensor:
        """Shapes as above."""
        length, n_keys = query.shape[1], key.shape[1]
        before = n_keys - length  # keys in front of all queries
        future = query.new_full((length, n_keys), -math.inf).triu_(1 + before)
        wants_gradients = any(ctx.needs_input_grad)  # outside; in here gradients are always off
        attended, weights = torch.empty_like(query), []
        for group in _groups(len(query), length):
            factor = dropout_factor((group.stop - group.start, length, n_keys), dropout, query.dtype)
            if first_factor is not None:
                factor[..., 0] = first_factor[group]
            for rows in _blocks(length):
                seen = slice(rows.stop + before)
                logits = torch.bmm(query[group, rows], key[group, seen].mT).add_(future[rows, seen])
                if mask is not None:
                    logits.add_(mask[group, None, seen])
                probability = torch.softmax(logits, dim=-1, out=logits)
                dropped = probability * factor[:, rows, seen]
                attended[group, rows] = torch.bmm(dropped, value[group, seen])
                if wants_gradients:
                    weights += [probability, dropped]
        ctx.save_for_backward(query, key, value, attended, *weights)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of Q, K and V."""
        query, key, value, attended, *saved = ctx.saved_tensors
        weights = iter(saved)
        length, before, grad = query.shape[1], key.shape[1] - query.shape[1], grad.contiguous()
        row_sums = (grad * attended).sum(dim=-1, keepdim=True)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for group in _groups(len(query), length):
            for rows in _blocks(length):
                seen = slice(rows.stop + before)
                probability, dropped, of_rows = next(weights), next(weights), grad[group, rows]
                grad_logits = torch.bmm(of_rows, value[group, seen].mT).mul_(dropped)
                grad_logits.addcmul_(probability, row_sums[group, rows], value=-1)
                grad_query[group, rows] = torch.bmm(grad_logits, key[group, seen])
                grad_key[group, seen] += torch.bmm(grad_logits.mT, query[group, rows])
                grad_value[group, seen] += torch.bmm(dropped.mT, of_rows)
        return grad_query, grad_key, grad_value, None, None, None


def _groups(n: int, length: int) -> Iterator[slice]:
    """Groups of sequences. Four sequences take whole draws of dropout, so that groups change no random number."""
    size = max(4, GROUP_ELEMENTS // length**2 // 4 * 4)
    return (slice(first, min(first + size, n)) for first in range(0, n, size))


def _blocks(length: int) -> Iterator[slice]:
    """Blocks of queries, of about equal length."""
    size = math.ceil(length / math.ceil(length / BLOCK_SIZE))
    return (slice(first, min(first + size, length)) for first in range(0, length, size))
