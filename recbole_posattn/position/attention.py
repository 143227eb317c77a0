"""Causal self-attention whose logits and values go through a positional kernel.

    S = (Q Kᵀ / √d_h) U        P = softmax(S + causal mask)        Y = P (L V)

Since (Q Kᵀ) U = Q (Uᵀ K)ᵀ, this is ordinary causal attention of Q to the mixed keys Uᵀ K and values L V, and PyTorch's
fused kernels apply unchanged (arXiv 2602.21052).

Shape keys: b batch, s sequence length, d hidden size, h heads, d_h head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.position.kernels import PositionKernel


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(Q Kᵀ / √d_h + causal mask) V, padding keys never attended.

    Args:
        query: Shape (b, h, s, d_h).
        key: Shape (b, h, s, d_h).
        value: Shape (b, h, s, d_h).
        valid: Shape (b, s), False at padding. ``None`` where padding stands behind the items only: there the causal
            mask alone keeps every item from attending to it.
        dropout: Probability of zeroing an attention weight.

    Returns:
        Tensor of shape (b, h, s, d_h); rows at padding are zero where ``valid`` is given.
    """
    if valid is None:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
    s = query.shape[-2]
    causal = torch.ones(s, s, dtype=torch.bool, device=query.device).tril()
    itself = torch.eye(s, dtype=torch.bool, device=query.device)
    # A padding row has nothing to attend and would be softmax over nothing, NaN: it attends to itself and is zeroed.
    mask = (causal & valid[:, None, None, :]) | itself
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return attended.masked_fill(~valid[:, None, :, None], 0.0)


class PositionKernelAttention(nn.Module):
    """Multi-head self-attention with a positional kernel C = U L (arXiv 2602.21052).

    Q = X_q W_Q + b_Q, K̃ = Uᵀ (X W_K) + b_K, Ṽ = L (X W_V) + b_V. The biases are not mixed, as in the authors' code,
    which mixes X before the projection; with one kernel for all channels the two orders are equal. With a kernel per
    head or per channel it is the projected channels that are mixed.

    Args:
        hidden_size: Channels d.
        n_heads: Heads h.
        u_kernel: The kernel that holds Uᵀ.
        l_kernel: The kernel that holds L.
        dropout: Probability of zeroing an attention weight during training.

    Raises:
        ValueError: If ``n_heads`` does not divide ``hidden_size``.
    """

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        u_kernel: PositionKernel,
        l_kernel: PositionKernel,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size must be a multiple of n_heads, got {hidden_size} and {n_heads}")
        self.n_heads = n_heads
        self.dropout = dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.u_kernel = u_kernel
        self.l_kernel = l_kernel

    def forward(self, x_query: Tensor, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Attend from ``x_query`` to ``x``.

        Args:
            x_query: Input of the queries, shape (b, s, d).
            x: Input of the keys and values, shape (b, s, d).
            valid: See :func:`causal_attention`.

        Returns:
            Tensor of shape (b, s, d).
        """
        if valid is not None:
            x = x.masked_fill(~valid[:, :, None], 0.0)  # leading padding must not be mixed into the items
        query = self._split_heads(self.query(x_query))
        key = self._mixed(self.key, self.u_kernel, x)
        value = self._mixed(self.value, self.l_kernel, x)
        y = causal_attention(query, key, value, valid, self.dropout if self.training else 0.0)
        return y.transpose(1, 2).flatten(-2)

    def _mixed(self, projection: nn.Linear, kernel: PositionKernel, x: Tensor) -> Tensor:
        """M (X W) + b in heads, shape (b, h, s, d_h)."""
        mixed = kernel(self._split_heads(F.linear(x, projection.weight)))
        return mixed + projection.bias.view(self.n_heads, 1, -1)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
