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

    def start_near_zero(self) -> None:
        """N(0, 0.02²) for all weights; see :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.free, std=INIT_STD)

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

    def last_row(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`."""
        length = self._checked(length)
        by_lag = self.band(length)[:, -1, :length]
        return F.pad(by_lag.flip(-1), (length - by_lag.shape[-1], 0))

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_LENGTH or products.LENGTH_PER_LAG * self.bandwidth > length:
            return products.dense_product(self.dense(length), x)
        return products.blocked_band_product(self.band(length), x)

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, bandwidth={self.bandwidth}, alignment={self.alignment}"


def _triangle_norm(u: Tensor, v: Tensor) -> Tensor:
    """The Frobenius norm of the lower triangle of u vᵀ, without a T × T matrix.

    It is also the norm of the triangle whose entry at position t and lag k ≤ t is u_t · v_k, which has the same values.

    Args:
        u: Shape (g, T, r).
        v: Shape (g, T, r).

    Returns:
        Shape (g,).
    """
    gram = (v.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=1)  # Σ_{s ≤ t} v_s v_sᵀ
    return torch.einsum("gtr,gtrq,gtq->g", u, gram, u).sqrt()


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

    def start_near_zero(self) -> None:
        """N(0, 0.02²) for all u; v keeps the Fourier basis. See :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.u, std=INIT_STD)

    def factors(self, length: int) -> tuple[Tensor, Tensor]:
        """u (normalized) and v of the aligned positions, each of shape (g, s, r)."""
        u: Tensor = self.u
        v: Tensor = self.v
        if self.normalization == "frobenius":
            u = u / (_triangle_norm(u, v) + self.normalization_eps)[:, None, None]
        rows = aligned(self.alignment, length, self.max_length)
        return u[:, rows], v[:, rows]

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        u, v = self.factors(self._checked(length))
        return (u @ v.mT).tril()

    def last_row(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`."""
        u, v = self.factors(self._checked(length))
        return torch.einsum("gr,gsr->gs", u[:, -1], v)

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


class TimeVariantKernel(LearnedKernel):
    """A filter whose taps change with the position, by a basis of r filters: M[t, t − k] = Σ_m c_t[m] b_m[k] / ‖b_m‖.

    The time-variant filter of TV-Rec (Shin et al., arXiv 2510.25259, NeurIPS 2025), Σ_k diag(h_k) Aᵏ with the shift A
    of a directed graph of positions and H = C B̄, written without the Fourier transform of that graph: its taps H are
    of rank r over positions and lags. Starts near the identity: b_1 is a filter of lag 0, and c_t its weight 1.

    Args:
        max_length: T; see :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`; the norm is that of the whole triangle.
        rank: r, m in the paper.
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
        coefficient, basis = torch.randn(n_groups, max_length, rank), torch.randn(n_groups, rank, max_length)
        coefficient, basis = INIT_STD * coefficient, INIT_STD * basis
        coefficient[..., 0], basis[:, 0, 0] = 1.0, 1.0
        self.coefficient = nn.Parameter(coefficient)
        self.basis = nn.Parameter(basis)

    def start_near_zero(self) -> None:
        """N(0, 0.001²) for both, as the authors; see :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.coefficient, std=1e-3)
        nn.init.normal_(self.basis, std=1e-3)

    def factors(self, length: int) -> tuple[Tensor, Tensor]:
        """c (normalized) of the aligned positions, shape (g, s, r), and b̂ of the lags below s, shape (g, r, s)."""
        coefficient: Tensor = self.coefficient
        basis: Tensor = self.basis / self.basis.norm(dim=-1, keepdim=True)
        if self.normalization == "frobenius":
            norm = _triangle_norm(coefficient, basis.mT)
            coefficient = coefficient / (norm + self.normalization_eps)[:, None, None]
        rows = aligned(self.alignment, length, self.max_length)
        return coefficient[:, rows], basis[..., :length]

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        length = self._checked(length)
        coefficient, basis = self.factors(length)
        position = torch.arange(length, device=basis.device)
        lag = position[:, None] - position
        by_lag = coefficient @ basis
        return by_lag.gather(-1, lag.clamp(min=0).expand_as(by_lag)).masked_fill(lag < 0, 0.0)

    def last_row(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`."""
        coefficient, basis = self.factors(self._checked(length))
        return torch.einsum("gr,grk->gk", coefficient[:, -1], basis).flip(-1)

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_LENGTH:
            return products.dense_product(self.dense(length), x)
        coefficient, basis = self.factors(length)
        y = torch.zeros_like(x)
        for weight, taps in zip(coefficient.unbind(-1), basis.unbind(1), strict=True):
            y = y + weight.unsqueeze(-1) * products.toeplitz_product(taps, x)
        return y

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, rank={self.rank}, alignment={self.alignment}"
