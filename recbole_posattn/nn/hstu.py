"""HSTU's block: pointwise attention, without a softmax, and a gate in place of the feed-forward network.

    h = norm(x)    U, V, Q, K = SiLU(h W)    A = SiLU(Q Kᵀ + B) / N, causal    out = x + W_O dropout(norm(A V) ⊙ U)

Zhai et al., arXiv 2402.17152, eqs. 1 to 3, with the details of the authors' code: norm is a LayerNorm without weights,
N the longest sequence, and B the sum of a learned bias by distance in positions and one by time gap.

Shape keys: b batch, s sequence length, t queries, d hidden size, h heads, d_h head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn import attention as softmax_attention
from recbole_posattn.nn.backbone import Backbone, Block, BlockOptions
from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.encodings.of_time import INIT_STD, TimeBiasEncoding, weights_of
from recbole_posattn.nn.times import Times


class RelativeBias(nn.Module):
    """B: a learned bias for each head and distance in positions, and one for each head and bucket of time gaps.

    Args:
        n_heads: Heads h.
        max_length: The longest sequence, in positions.
        reads_time: Whether there is a bias by time gap.
    """

    def __init__(self, n_heads: int, max_length: int, reads_time: bool) -> None:
        super().__init__()
        self.position = nn.Parameter(INIT_STD * torch.randn(n_heads, max_length))
        self.time = TimeBiasEncoding(n_heads, max_length) if reads_time else None

    def forward(self, first: int, n_queries: int, n_keys: int, times: Times | None) -> Tensor:
        """B of the queries ``first``, ``first`` + 1, … and the keys 0, 1, …; shape (b or 1, h, t, s).

        Raises:
            ValueError: If there is a bias by time gap, and no times.
        """
        row = first + torch.arange(n_queries, device=self.position.device)
        lag = row[:, None] - torch.arange(n_keys, device=self.position.device)
        bias = self.position[:, lag.clamp(min=0)][None]
        if self.time is None:
            return bias
        if times is None:
            raise ValueError("the bias by time gap needs times, got none")
        bucket = times.shared_if(
            n_queries in (1, n_keys),
            ("time_bias", first, n_queries, n_keys),
            lambda: TimeBiasEncoding.bucket(times.gaps(first, n_queries, n_keys)),
        )
        return bias + weights_of(self.time.weight, bucket)


class PointwiseAttention(nn.Module):
    """W_O dropout(norm(A V) ⊙ U) + b_O of a normalized input.

    Args:
        hidden_size: Channels d.
        n_heads: Heads h; must divide ``hidden_size``.
        max_length: The longest sequence N, in positions.
        dropout: Probability of zeroing an element of norm(A V) ⊙ U during training.
        reads_time: See :class:`RelativeBias`.
        eps: Added to the variance in the norm.

    Raises:
        ValueError: If ``n_heads`` does not divide ``hidden_size``.
    """

    def __init__(
        self, hidden_size: int, n_heads: int, max_length: int, dropout: float, reads_time: bool, eps: float = 1e-6
    ) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size must be a multiple of n_heads, got {hidden_size} and {n_heads}")
        self.n_heads, self.max_length, self.eps = n_heads, max_length, eps
        self.uvqk = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.bias = RelativeBias(n_heads, max_length, reads_time)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, h: Tensor, valid: Tensor | None, last_only: bool, times: Times | None) -> Tensor:
        """Shape (b, s, d) to (b, s, d), or to (b, 1, d) if ``last_only``; ``valid`` as in ``causal_attention``."""
        u, value, query, key = F.silu(self.uvqk(h)).chunk(4, dim=-1)
        query, key, value = (x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in (query, key, value))
        if last_only:
            u, query = u[:, -1:], query[:, :, -1:]
        mixed = self._mixed(query, key, value, valid, times).transpose(1, 2).flatten(-2)
        y: Tensor = self.output(self.dropout(_normalized(mixed, self.eps) * u))
        return y

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None, times: Times | None) -> Tensor:
        """A V, shape (b, h, t, d_h), in blocks of queries, so that memory is linear in s."""

        def attend(query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
            logits = query @ key.mT
            logits = logits + self.bias(first, query.shape[-2], key.shape[-2], times).to(logits.dtype)
            mask = softmax_attention.attention_mask(query, key, first, valid)
            return (F.silu(logits) / self.max_length).masked_fill(~mask, 0.0) @ value

        return softmax_attention.by_blocks_of_queries(attend, query, key, value)


class HSTUBlock(Block):
    """The block of this module.

    Args:
        attention: Its attention.
        options: The rest of it, of which the epsilon of the norm is used.
    """

    def __init__(self, attention: PointwiseAttention, options: BlockOptions, branch: None = None) -> None:
        nn.Module.__init__(self)
        self.pointwise = attention
        self.attention = self.branch = None
        self.eps = options.layer_norm_eps

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """See :meth:`Block.forward`."""
        y: Tensor = self.pointwise(_normalized(x, self.eps), valid, last_only, times)
        return (x[:, -1:] if last_only else x) + y


class HSTUBackbone(Backbone):
    """√d-scaled item embeddings with positions, dropout, HSTU's blocks, without a LayerNorm outside them."""

    block_class = HSTUBlock
    normalizes = False

    def before_blocks(self, item_embedding: Tensor) -> Tensor:
        """See :meth:`Backbone.before_blocks`."""
        x: Tensor = self.dropout(self._with_positions(item_embedding * item_embedding.shape[-1] ** 0.5))
        return x


def _normalized(x: Tensor, eps: float) -> Tensor:
    """LayerNorm without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=eps)
