"""Kernels with a weight for each pair of positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn import products
from recbole_posattn.nn.kernels.base import (
    INIT_STD,
    Alignment,
    LearnedKernel,
    Normalization,
    aligned,
    checked_alignment,
    checked_bandwidth,
    half_normal,
)


class FullKernel(LearnedKernel):
    """One weight per entry of the (banded) lower triangle (arXiv 2602.21052, the Full structure).

    Initialized as the identity plus |N(0, 0.02²)| strictly below the diagonal.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        bandwidth: Lags kept, 1 being the diagonal only; ``None`` keeps all ``max_length`` of them.
        alignment: Which positions a sequence shorter than ``max_length`` takes: the last ones (``end``, its newest
            item at the last position) or the first ones (``start``).

    Raises:
        ValueError: If ``bandwidth`` is not in 1 … ``max_length``, or ``alignment`` is unknown.
    """

    lag_only = False
    entry: Tensor

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        bandwidth: int | None = None,
        alignment: Alignment = "end",
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        self.bandwidth = checked_bandwidth(bandwidth, max_length)
        self.alignment = checked_alignment(alignment)
        position, lag = torch.meshgrid(torch.arange(max_length), torch.arange(self.bandwidth), indexing="ij")
        inside = lag <= position
        self.register_buffer("entry", torch.stack([position[inside], lag[inside]]), persistent=False)
        free = half_normal(n_groups, self.entry.shape[1])
        free[:, self.entry[1] == 0] = 1.0
        self.free = nn.Parameter(free)

    def band(self, length: int) -> Tensor:
        """The weights by position and lag, band[t, k] = M[t, t − k], shape (g, s, w).

        Lags k > t, which reach before the first position, have the weight 0.
        """
        position, lag = self.entry
        weights = self.free.new_zeros(self.n_groups, self.max_length, self.bandwidth)
        weights[:, position, lag] = self._normalized(self.free)
        return weights[:, aligned(self.alignment, length, self.max_length)]

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        rows = aligned(self.alignment, self._checked(length), self.max_length)
        position, lag = self.entry
        matrix = self.free.new_zeros(self.n_groups, self.max_length, self.max_length)
        matrix[:, position, position - lag] = self._normalized(self.free)
        return matrix[:, rows, rows]

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_LENGTH or products.LENGTH_PER_LAG * self.bandwidth > length:
            return products.dense_product(self.dense(length), x)
        return products.blocked_band_product(self.band(length), x)

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, bandwidth={self.bandwidth}, alignment={self.alignment}"


class LowRankKernel(LearnedKernel):
    """The lower triangle of a matrix of rank r: M[t, s] = u_t · v_s for s ≤ t.

    Both are initialized as the first r functions of the real Fourier basis over the positions, plus N(0, 0.02²). With r
    functions, these come closest to a band around the diagonal (about T / r lags wide).

    Args:
        max_length: T; see :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`; the norm is that of the whole triangle.
        rank: r.
        alignment: See :class:`FullKernel`.

    Raises:
        ValueError: If ``rank`` is below 1 or ``alignment`` is unknown.
    """

    lag_only = False

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        rank: int = 8,
        alignment: Alignment = "end",
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        if rank < 1:
            raise ValueError(f"rank must be a positive integer, got {rank}")
        self.rank = rank
        self.alignment = checked_alignment(alignment)
        order = torch.arange(rank)  # 1, sin, cos, sin of the double frequency, …
        angle = 2 * math.pi / max_length * torch.outer(torch.arange(max_length), (order + 1) // 2)
        fourier = torch.where(order % 2 == 1, angle.sin(), angle.cos()) * torch.where(order == 0, 1.0, math.sqrt(2))
        start = fourier / math.sqrt(rank)
        self.u = nn.Parameter(start + INIT_STD * torch.randn(n_groups, max_length, rank))
        self.v = nn.Parameter(start + INIT_STD * torch.randn(n_groups, max_length, rank))

    def factors(self, length: int) -> tuple[Tensor, Tensor]:
        """u (normalized) and v of the aligned positions, each of shape (g, s, r)."""
        u: Tensor = self.u
        v: Tensor = self.v
        if self.normalization == "frobenius":
            gram = (v.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=1)  # Σ_{s ≤ t} v_s v_sᵀ: no T × T matrix
            squared = torch.einsum("gtr,gtrq,gtq->g", u, gram, u)
            u = u / (squared.sqrt() + self.normalization_eps)[:, None, None]
        rows = aligned(self.alignment, length, self.max_length)
        return u[:, rows], v[:, rows]

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        u, v = self.factors(self._checked(length))
        return (u @ v.mT).tril()

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_RECURRENCE_LENGTH:
            return products.dense_product(self.dense(length), x)
        n_blocks, p = products.square_root_blocks(length)
        u, v = (
            F.pad(factor, (0, 0, 0, n_blocks * p - length)).unflatten(1, (n_blocks, p))
            for factor in self.factors(length)
        )
        earlier = torch.ones(n_blocks, n_blocks, device=x.device, dtype=u.dtype).tril(-1)
        return products.recurrent_product(
            within=(u @ v.mT).tril(), write=v.mT, carry=earlier.expand(self.n_groups, self.rank, -1, -1), read=u, x=x
        )

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, rank={self.rank}, alignment={self.alignment}"
