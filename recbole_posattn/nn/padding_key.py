"""Attention to the padding in front of a short sequence, by one key for all of it.

Padding is 0 before it is projected, and kernels mix only earlier positions into it. So all of it has the key b_K and
the value b_V, and n equal keys weigh as much as one whose logit is larger by log n:

    P = softmax([q · b_K / √d_h + log n, Q K̃ᵀ / √d_h])        Y = P [b_V; Ṽ]

Dropout zeroes each of the n weights with probability p. Their sum is then multiplied by k / (n (1 − p)), where k
follows the binomial distribution of n trials with probability 1 − p. So a sequence need not be padded to its full
length.

Shape keys: b batch, s sequence length, t queries, h heads, d_h head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_posattn.nn.dropout import dropout


def prepend(x: Tensor, bias: Tensor) -> Tensor:
    """Put the padding's key or value in front of the others.

    Args:
        x: Shape (b, h, s, d_h).
        bias: b_K or b_V, shape (h · d_h,).

    Returns:
        Tensor of shape (b, h, s + 1, d_h).
    """
    return torch.cat([bias.view(-1, 1, x.shape[-1]).expand(x.shape[0], -1, -1, -1), x], dim=-2)


def prepend_valid(valid: Tensor | None, n_padding: Tensor, length: int) -> Tensor:
    """Which keys count behind :func:`prepend`: items, and the padding key where there is padding.

    Args:
        valid: Shape (b, s), True at items; ``None`` if there are items only.
        n_padding: Padding of each sequence, shape (b,).
        length: s.

    Returns:
        Boolean tensor of shape (b, s + 1).
    """
    items = n_padding.new_ones(n_padding.shape[0], length, dtype=torch.bool) if valid is None else valid
    return torch.cat([(n_padding > 0)[:, None], items], dim=1)


def prepend_logit(logits: Tensor, n_padding: Tensor) -> Tensor:
    """Put the padding's logit in front of the others, where these lack the part q · b_K that all keys share.

    Args:
        logits: Shape (b, h, t, s).
        n_padding: n of each sequence, shape (b,).

    Returns:
        Tensor of shape (b, h, t, s + 1).
    """
    log_n = n_padding.to(logits.dtype).log()[:, None, None, None]
    return torch.cat([log_n.expand(*logits.shape[:-1], 1), logits], dim=-1)


def padding_bias(n_padding: Tensor, query: Tensor, key: Tensor, first: int) -> Tensor:
    """What is added to the logits: log n for the first key, −∞ without padding, and 0 for the others.

    Args:
        n_padding: n of each sequence, shape (b,).
        query: Shape (b, h, t, d_h).
        key: The padding's and those of items, shape (b, h, s + 1, d_h).
        first: Row of the first query; not used.

    Returns:
        Tensor of shape (b, 1, 1, s + 1).
    """
    bias = query.new_zeros(query.shape[0], 1, 1, key.shape[-2])
    bias[..., 0] = n_padding.to(query.dtype).log()[:, None, None]
    return bias


def drop(weights: Tensor, n_padding: Tensor, p: float) -> Tensor:
    """Dropout of attention weights, of which the first is the sum of n equal ones.

    Args:
        weights: Shape (b, h, t, s + 1).
        n_padding: n of each sequence, shape (b,).
        p: Probability of zeroing a weight, in [0, 1).
    """
    if p == 0.0:
        return weights
    factor = padding_factor(n_padding[:, None, None].expand(weights.shape[:-1]), p, weights.dtype)
    return torch.cat([weights[..., :1] * factor.unsqueeze(-1), dropout(weights, p)[..., 1:]], dim=-1)


@torch.no_grad()
def padding_factor(n_padding: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """What dropout multiplies the sum of n equal weights by: k / (n (1 − p)) with k of n kept, and 1 for n = 0.

    Args:
        n_padding: n, of any shape.
        p: Probability of zeroing a weight, in [0, 1).
        dtype: Of the result.
    """
    n = n_padding.to(torch.float32)
    kept = torch.binomial(n, torch.full_like(n, 1 - p))
    return torch.where(n > 0, kept / (n.clamp(min=1) * (1 - p)), 1.0).to(dtype)
