"""TiSASRec's attention: positions, and the intervals between items, in keys and values.

    s_ij = q_i · (k_j + e^K_{r_ij} + p^K_j) / √d_h        y_i = Σ_j softmax(s)_ij (v_j + e^V_{r_ij} + p^V_j)
    r_ij = min(κ, ⌊(t_i − t_j) / m_i⌋)

Li, Wang & McAuley, WSDM 2020, eqs. 3 to 8. m is the shortest interval of the user above 0, which makes intervals
personal. The authors take that of the whole sequence; here m_i is that of the items up to i, so that no position looks
ahead.

Shape keys: b batch, s sequence length, t queries, d hidden size, h heads, d_h head size, κ the largest interval.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from recbole_posattn.nn import attention as softmax_attention
from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.dropout import dropout as drop
from recbole_posattn.nn.kernels.base import Alignment, aligned
from recbole_posattn.nn.times import Times


class IntervalTables(nn.Module):
    """The embeddings e^K, e^V of intervals and p^K, p^V of positions, which all layers share.

    Attributes:
        lag_only: False: it matters where the padding is.

    Args:
        hidden_size: Channels d.
        max_length: The longest sequence, in positions.
        max_interval: κ; 0 for no intervals.
        dropout: Probability of zeroing an element of an embedding during training.
        alignment: Whether a shorter sequence takes the last positions (``end``) or the first (``start``).
    """

    lag_only = False

    def __init__(
        self, hidden_size: int, max_length: int, max_interval: int, dropout: float, alignment: Alignment = "end"
    ) -> None:
        super().__init__()
        self.max_length, self.max_interval, self.alignment = max_length, max_interval, alignment
        self.position_key = nn.Embedding(max_length, hidden_size)
        self.position_value = nn.Embedding(max_length, hidden_size)
        self.interval_key = nn.Embedding(max_interval + 1, hidden_size) if max_interval else None
        self.interval_value = nn.Embedding(max_interval + 1, hidden_size) if max_interval else None
        self.dropout = Dropout(dropout)

    def positions(self, length: int) -> tuple[Tensor, Tensor]:
        """p^K and p^V of a sequence, each of shape (s, d)."""
        rows = aligned(self.alignment, length, self.max_length)
        return self.dropout(self.position_key.weight[rows]), self.dropout(self.position_value.weight[rows])

    def intervals(self) -> tuple[Tensor, Tensor] | None:
        """e^K and e^V, each of shape (κ + 1, d), if there are any."""
        if self.interval_key is None or self.interval_value is None:
            return None
        return self.dropout(self.interval_key.weight), self.dropout(self.interval_value.weight)

    def penalty(self) -> Tensor:
        """The sum of the squares of all embeddings, a scalar."""
        return torch.stack([weight.square().sum() for weight in self.parameters()]).sum()


def personal_intervals(times: Times, first: int, n_queries: int, n_keys: int, max_interval: int) -> Tensor:
    """r_ij of the queries ``first``, ``first`` + 1, … and the keys 0, 1, …; int64, shape (b, t, s), 0 to κ."""
    steps = times.steps()[:, None, :n_keys]
    row = first + torch.arange(n_queries, device=steps.device)
    later = torch.arange(n_keys, device=steps.device) > row[:, None]
    shortest = steps.masked_fill((steps <= 0) | later, math.inf).amin(dim=-1, keepdim=True)  # ONNX has no cummin
    return (times.gaps(first, n_queries, n_keys) / shortest).floor().clamp(min=0, max=max_interval).long()


class IntervalAttention(nn.Module):
    """The attention of this module; its interface is that of ``PositionKernelAttention``.

    Args:
        hidden_size: Channels d.
        n_heads: Heads h; must divide ``hidden_size``.
        tables: The embeddings.
        dropout: Probability of zeroing an attention weight during training.

    Raises:
        ValueError: If ``n_heads`` does not divide ``hidden_size``.
    """

    def __init__(self, hidden_size: int, n_heads: int, tables: IntervalTables, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"hidden_size must be a multiple of n_heads, got {hidden_size} and {n_heads}")
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.tables = tables

    def forward(self, x_query: Tensor, x: Tensor, valid: Tensor | None = None, times: Times | None = None) -> Tensor:
        """See ``PositionKernelAttention.forward``.

        Raises:
            ValueError: If there are intervals, and no times.
        """
        position_key, position_value = self.tables.positions(x.shape[1])
        query = self._split(self.query(x_query))
        key, value = self._split(self.key(x) + position_key), self._split(self.value(x) + position_value)
        intervals = self.tables.intervals()
        if intervals is not None and times is None:
            raise ValueError("the intervals between items need times, got none")
        attend = functools.partial(self._attend, valid=valid, times=times, tables=intervals)
        attended = softmax_attention.by_blocks_of_queries(attend, query, key, value)
        if valid is not None:
            attended = attended.masked_fill(~valid[:, None, -query.shape[-2] :, None], 0.0)
        return attended.transpose(1, 2).flatten(-2)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        first: int,
        valid: Tensor | None,
        times: Times | None,
        tables: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """y of some queries, shape (b, h, t, d_h)."""
        t, s, n_intervals = query.shape[-2], key.shape[-2], self.tables.max_interval
        logits = query @ key.mT
        if tables is not None and times is not None:
            # q · e of all intervals, of which each pair takes its own: no embedding of a pair is ever made.
            interval_key, interval_value = (self._split(table[None]) for table in tables)
            interval = times.shared_if(
                t in (1, s),
                ("intervals", first, t, s),
                lambda: personal_intervals(times, first, t, s, n_intervals),
            )
            interval = interval[:, None].expand(-1, self.n_heads, -1, -1)
            logits = logits + (query @ interval_key.mT).expand(interval.shape[0], -1, -1, -1).gather(-1, interval)
        mask = softmax_attention.attention_mask(query, key, first, valid)
        weights = torch.softmax((logits / math.sqrt(query.shape[-1])).masked_fill(~mask, -math.inf), dim=-1)
        weights = drop(weights, self.dropout) if self.training else weights
        y = weights @ value
        if tables is not None and times is not None:
            of_intervals = weights.new_zeros(*weights.shape[:-1], n_intervals + 1).scatter_add(-1, interval, weights)
            y = y + of_intervals @ interval_value
        return y

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.n_heads, -1))
        return heads.transpose(1, 2)
