"""Causal self-attention with a positional kernel on its logits and values, and optional positional encodings.

    S = (Q Kᵀ / √d_h) U + B        P = softmax(S + causal mask)        Y = P (L V)

Since (Q Kᵀ) U = Q (Uᵀ K)ᵀ, this is ordinary causal attention of Q to the mixed keys Uᵀ K and values L V, and PyTorch's
fused kernels apply unchanged (arXiv 2602.21052). Encodings enter at the inputs of Q, K and V, as a rotation R of Q and
of the mixed keys, S = R(Q) R(Uᵀ K)ᵀ / √d_h + B, or as a bias B of the logits. R follows the mixing, as it does in the
authors' code, where U mixes the block's input. In the opposite order, the logits would not depend on distances alone,
since a rotation couples pairs of channels, which kernels per channel mix separately.

Shape keys: b batch, s sequence length, t queries, d hidden size, h heads, d_h head size.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recbole_posattn.nn import padding_key
from recbole_posattn.nn.blocked_attention import blocked_attention
from recbole_posattn.nn.dropout import dropout as drop
from recbole_posattn.nn.encodings.base import OfBatch, PositionEncoding
from recbole_posattn.nn.gemm import Linear, linear
from recbole_posattn.nn.kernels.base import IdentityKernel, PositionKernel
from recbole_posattn.nn.products import DENSE_LENGTH
from recbole_posattn.nn.times import Times

# Queries whose logits are in memory at once where the fused kernels cannot be used (results/kernel_products.md).
ROWS = 256

# Positions from which :func:`blocked_attention` has several blocks, and is faster than all weights at once.
BLOCKED_FROM = 65

LogitBias = Callable[[Tensor, Tensor, int], Tensor]


def causal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor | None = None,
    dropout: float = 0.0,
    logit_bias: LogitBias | None = None,
    n_padding: Tensor | None = None,
) -> Tensor:
    """softmax(Q Kᵀ / √d_h + B + causal mask) V without attention to padding keys, in memory that is linear in s.

    Without a mask and a bias, this is PyTorch's fused attention, whose kernel for a CPU has no dropout: there,
    :data:`BLOCKED_FROM` to :data:`ROWS` positions without a bias are left to :func:`blocked_attention`. Otherwise,
    blocks of :data:`ROWS` queries are computed one by one, and recomputed for the gradients.

    Args:
        query: Of the last t ≤ s positions, shape (b, h, t, d_h).
        key: Shape (b, h, s, d_h).
        value: Shape (b, h, s, d_h).
        valid: Shape (b, s), False at padding. ``None`` if all padding follows the items: the causal mask alone then
            keeps items from attending to it.
        dropout: Probability of zeroing an attention weight.
        logit_bias: Computes B, shape (b or 1, h, t, s), from consecutive queries (b, h, t, d_h), the keys (b, h, s,
            d_h) up to the last of them, and the row of the first query.
        n_padding: How many keys the first one stands for, see ``padding_key.py``; shape (b,); with ``valid``, no bias.

    Returns:
        Tensor of shape (b, h, t, d_h); rows at padding are zero where ``valid`` is given.
    """
    assert n_padding is None or (logit_bias is None and valid is not None)
    t, s = query.shape[-2], key.shape[-2]
    fused = dropout == 0.0 or (query.is_cuda and n_padding is None)
    whole = t + (n_padding is not None) == s and logit_bias is None
    if whole and not fused and BLOCKED_FROM <= t <= ROWS and _is_plain(query):
        attended = blocked_attention(query, key, value, valid, dropout, n_padding)
        return attended if valid is None else attended.masked_fill(~valid[:, None, s - t :, None], 0.0)
    logit_bias = logit_bias if n_padding is None else functools.partial(padding_key.padding_bias, n_padding)
    if valid is None and logit_bias is None and fused and t in (1, s):  # the last position attends to all
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=t > 1)

    def attend(query: Tensor, key: Tensor, value: Tensor, first: int) -> Tensor:
        mask = attention_mask(query, key, first, valid)
        bias = None if logit_bias is None else logit_bias(query, key, first).to(query.dtype)
        if fused:
            mask = mask if bias is None else bias.masked_fill(~mask, -math.inf)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        logits = (query / math.sqrt(query.shape[-1])) @ key.mT
        logits = logits if bias is None else logits + bias
        with torch.no_grad():  # the gradient is 0 where the softmax is 0, and needs no mask
            logits.masked_fill_(~mask, -math.inf)
        weights = torch.softmax(logits, dim=-1)
        return (drop(weights, dropout) if n_padding is None else padding_key.drop(weights, n_padding, dropout)) @ value

    attended = by_blocks_of_queries(attend, query, key, value)
    return attended if valid is None else attended.masked_fill(~valid[:, None, s - t :, None], 0.0)


def by_blocks_of_queries(
    attend: Callable[[Tensor, Tensor, Tensor, int], Tensor], query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """Causal attention, :data:`ROWS` queries at a time, recomputed for the gradients: memory is linear in s.

    Args:
        attend: Computes the outputs of consecutive queries, shape (b, h, r, d_h), from these, the keys and values up to
            the last of them, and the row of the first.
        query: Of the last t ≤ s positions, shape (b, h, t, d_h).
        key: Shape (b, h, s, d_h).
        value: Shape (b, h, s, d_h).

    Returns:
        Tensor of shape (b, h, t, d_h).
    """
    t, s = query.shape[-2], key.shape[-2]
    at_once = t <= ROWS or not torch.is_grad_enabled()
    rows = []
    for first, queries in zip(range(s - t, s, ROWS), query.split(ROWS, dim=-2)):
        last = first + queries.shape[-2]
        block = (queries, key[..., :last, :], value[..., :last, :], first)
        rows.append(attend(*block) if at_once else checkpoint(attend, *block, use_reentrant=False))
    return torch.cat(rows, dim=-2)


def _is_plain(x: Tensor) -> bool:
    """Whether operations on a tensor of a CPU are neither compiled nor in mixed precision."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")


def attention_mask(query: Tensor, key: Tensor, first: int = 0, valid: Tensor | None = None) -> Tensor:
    """Which keys 0, 1, … the queries ``first``, ``first`` + 1, … attend to.

    Args:
        query: Shape (b, h, t, d_h).
        key: Shape (b, h, s, d_h).
        first: Row of the first query.
        valid: See :func:`causal_attention`.

    Returns:
        Boolean tensor of shape (t, s), or (b, 1, t, s) if ``valid`` is given. A softmax over no keys would be NaN, so
        a padding row attends to itself; the caller must zero its output.
    """
    t, s = query.shape[-2], key.shape[-2]
    causal = torch.ones(t, s, dtype=torch.bool, device=query.device).tril(first)
    if valid is None:
        return causal
    itself = causal ^ causal.tril(first - 1)
    return (causal & valid[:, None, None, :s]) | itself


class PositionKernelAttention(nn.Module):
    """Multi-head self-attention with a positional kernel C = U L (arXiv 2602.21052).

    Q = X_q W_Q + b_Q, K̃ = Uᵀ (X W_K) + b_K, Ṽ = L (X W_V) + b_V. The biases are not mixed, as in the authors' code,
    which mixes X before the projection; with one kernel for all channels the two orders are equal. With a kernel per
    head or per channel, the projected channels are mixed.

    Args:
        hidden_size: Channels d.
        n_heads: Heads h.
        u_kernel: The kernel that holds Uᵀ.
        l_kernel: The kernel that holds L.
        dropout: Probability of zeroing an attention weight during training.
        encodings: Positional encodings that act inside the block.
        output_projection: Whether a projection follows that mixes the heads, Y W_O + b_O (the authors' code).
        attend_padding: Whether padding in front of the items is attended, with key b_K and value b_V (the authors'
            code), instead of masked. The output then depends on how much of it there is.

    Attributes:
        padded_length: Positions up to which attended padding counts, even where it is cut off; ``None``: those of x.

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
        encodings: Sequence[PositionEncoding] = (),
        output_projection: bool = False,
        attend_padding: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size must be a multiple of n_heads, got {hidden_size} and {n_heads}")
        self.n_heads = n_heads
        self.dropout = dropout
        self.query = Linear(hidden_size, hidden_size)
        self.key = Linear(hidden_size, hidden_size)
        self.value = Linear(hidden_size, hidden_size)
        self.u_kernel = u_kernel
        self.l_kernel = l_kernel
        self.encodings = nn.ModuleList(encodings)
        self.output = Linear(hidden_size, hidden_size) if output_projection else nn.Identity()
        self.attend_padding = attend_padding
        self.padded_length: int | None = None

    def forward(self, x_query: Tensor, x: Tensor, valid: Tensor | None = None, times: Times | None = None) -> Tensor:
        """Attend from ``x_query`` to ``x``.

        Args:
            x_query: Input of the queries, those of the last t positions; shape (b, t, d).
            x: Input of the keys and values, shape (b, s, d).
            valid: See :func:`causal_attention`.
            times: Times of the items; ``None`` if nothing reads them, or for items at equal distances.

        Returns:
            Tensor of shape (b, t, d).
        """
        if x_query.shape[1] == 1 and self._folds(x.shape[1]):
            return self._folded(x_query, x, valid)
        query, key, value, logit_bias = self.project(x_query, x, valid, times)
        dropout = self.dropout if self.training else 0.0
        n_padding, attended = self._n_padding(x, valid), self.attended(valid)
        if n_padding is not None:
            key, value = padding_key.prepend(key, self.key.bias), padding_key.prepend(value, self.value.bias)
            attended = padding_key.prepend_valid(valid, n_padding, x.shape[1])
        return self._output(causal_attention(query, key, value, attended, dropout, logit_bias, n_padding))

    def tells_padding_apart(self) -> bool:
        """Whether encodings give padding keys different logits, so that one key cannot stand for all."""
        return any(encoding.enters != "attention_input" for encoding in self._encodings())

    def _n_padding(self, x: Tensor, valid: Tensor | None) -> Tensor | None:
        """The padding that one key stands for, shape (b,), or ``None``; arguments as in :meth:`forward`."""
        length = self.padded_length or x.shape[1]
        fused = x.is_cuda and self.training and length == x.shape[1]  # a fused kernel with dropout is faster
        if not self.attend_padding or fused or self.tells_padding_apart():
            return None
        if valid is not None:
            return length - valid.sum(dim=1)
        return x.new_full(x.shape[:1], length - x.shape[1], dtype=torch.int64) if length > x.shape[1] else None

    def attended(self, valid: Tensor | None) -> Tensor | None:
        """Which keys may be attended, the ``valid`` of :func:`causal_attention`; argument as in :meth:`forward`."""
        return None if self.attend_padding else valid

    def _output(self, y: Tensor) -> Tensor:
        """The heads (b, h, t, d_h) put together, shape (b, t, d)."""
        output: Tensor = self.output(y.transpose(1, 2).flatten(-2))
        return output

    def project(
        self, x_query: Tensor, x: Tensor, valid: Tensor | None = None, times: Times | None = None
    ) -> tuple[Tensor, Tensor, Tensor, LogitBias | None]:
        """Queries, mixed keys and values, and the bias of the logits; arguments as in :meth:`forward`.

        Returns:
            Q of shape (b, h, t, d_h), K̃ and Ṽ of shape (b, h, s, d_h), and B, or ``None`` if no encoding has a bias.
        """
        first = x.shape[1] - x_query.shape[1]
        x_query, x = self._with_positions(x_query, x, valid)
        encodings = [encoding.of_batch(x, times) for encoding in self._encodings()]
        query = self._split_heads(self.query(x_query))
        key = self._mixed(self.key, self.u_kernel, x, times)
        value = self._mixed(self.value, self.l_kernel, x, times)
        rotated_query, rotated_key = query, key
        for encoding in encodings:
            rotated_query, rotated_key = encoding.rotate(rotated_query, first), encoding.rotate(rotated_key, 0)
        return rotated_query, rotated_key, value, _logit_bias(encodings, query, first)

    def _encodings(self) -> Iterator[PositionEncoding]:
        return (encoding for encoding in self.encodings if isinstance(encoding, PositionEncoding))

    def _folds(self, length: int) -> bool:
        """Whether :meth:`_folded` applies and costs less; never in training, which drops attention weights."""
        inside = self.tells_padding_apart()  # such encodings need K̃ itself
        groups = {self.u_kernel.n_groups, self.l_kernel.n_groups}
        timed = self.u_kernel.reads_time or self.l_kernel.reads_time
        inference = not (self.training or torch.is_grad_enabled())
        return inference and not (inside or timed) and groups <= {1, self.n_heads} and length <= DENSE_LENGTH

    def _folded(self, x_query: Tensor, x: Tensor, valid: Tensor | None) -> Tensor:
        """:meth:`forward` for the last position alone, with the products in the cheapest order for one query.

        q (Uᵀ X W + 1 b)ᵀ = (q Wᵀ) Xᵀ U + q b, where the softmax cancels q b, and p (L X W + 1 b) =
        ((p L) X) W + b, since p adds up to 1: no position is projected or mixed.
        """
        x_query, x = self._with_positions(x_query, x, valid)
        in_heads = (self.n_heads, -1, x.shape[-1])
        query = self._split_heads(self.query(x_query)) @ self.key.weight.view(in_heads)  # (b, h, 1, d)
        logits = query @ x.unsqueeze(1).mT / math.sqrt(x.shape[-1] // self.n_heads) @ self.u_kernel.dense(x.shape[1]).mT
        if valid is not None:
            logits = logits.masked_fill(~valid[:, None, None], -math.inf)
        if (n_padding := self._n_padding(x, valid)) is not None:
            logits = padding_key.prepend_logit(logits, n_padding)
        weights = torch.softmax(logits, dim=-1)[..., -x.shape[1] :] @ self.l_kernel.dense(x.shape[1])
        y = weights @ x.unsqueeze(1) @ self.value.weight.view(in_heads).mT
        return self._output(y + self.value.bias.view(self.n_heads, 1, -1))

    def _with_positions(self, x_query: Tensor, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both inputs with the encodings that enter before the projections; arguments as in :meth:`forward`."""
        first = x.shape[1] - x_query.shape[1]
        for encoding in self._encodings():
            x_query, x = encoding.at_attention_input(x_query, first), encoding.at_attention_input(x)
        if valid is not None:
            x = x.masked_fill(~valid[:, :, None], 0.0)  # leading padding must not be mixed into the items
        return x_query, x

    def _mixed(self, projection: nn.Linear, kernel: PositionKernel, x: Tensor, times: Times | None) -> Tensor:
        """M (X W) + b in heads, shape (b, h, s, d_h)."""
        if isinstance(kernel, IdentityKernel):  # the same in one product
            return self._split_heads(projection(x))
        projected = self._split_heads(linear(x, projection.weight))
        mixed: Tensor = kernel(projected, times) if kernel.reads_time else kernel(projected)
        return mixed + projection.bias.view(self.n_heads, 1, -1)

    def _split_heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.n_heads, -1))
        return heads.transpose(1, 2)


def _logit_bias(
    encodings: Sequence[PositionEncoding | OfBatch], unrotated: Tensor, unrotated_first: int
) -> LogitBias | None:
    """The sum of the biases of encodings, of which ``unrotated`` has the queries from ``unrotated_first`` on."""
    biases = [encoding.logit_bias for encoding in encodings if encoding.enters == "logits"]
    if not biases:
        return None

    def logit_bias(query: Tensor, key: Tensor, first: int) -> Tensor:
        rows = unrotated.narrow(-2, first - unrotated_first, query.shape[-2])
        return functools.reduce(torch.add, [bias(query, key, rows, first) for bias in biases])

    return logit_bias
