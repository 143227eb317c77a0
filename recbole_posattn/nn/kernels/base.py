"""Learnable position-to-position kernels.

One attention block holds two kernels that live purely in position space: **U** (upper triangular) and **L** (lower
triangular). **C = U L** is the positional kernel of Nabiev & Frolov (arXiv 2602.21052). Keys are mixed by Uᵀ and
values by L, and both of these are lower triangular: row t mixes positions ≤ t only. Every class here is therefore a
lower-triangular matrix M that multiplies a sequence from the left; a U kernel is stored as M = Uᵀ.

Toeplitz, dilated, adaptive and exponential kernels have one weight per *lag* k for all positions, M[t, t − k] = g_k.
Full and low-rank kernels have a weight for each pair of positions. A new structure needs a class and an entry in
:data:`STRUCTURES`.

Shape keys: b batch, s sequence length, d hidden size, h heads, d_h head size, g kernel groups, w bandwidth (lags),
m decays of a mixture, r rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

Alignment = Literal["end", "start"]
Normalization = Literal["frobenius", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = ("frobenius", "none")
ALIGNMENTS: tuple[Alignment, ...] = ("end", "start")
TapStart = Literal["identity", "half_normal"]
TAP_STARTS: tuple[TapStart, ...] = ("identity", "half_normal")

# Standard deviation of the off-diagonal weights' half-normal initialization (the authors' released implementation).
INIT_STD = 0.02


class KernelOptions(NamedTuple):
    """The options of all structures; each structure uses those it needs.

    Attributes:
        role: ``u`` for Uᵀ, which mixes the keys, or ``l`` for L, which mixes the values.
        max_length: The longest sequence, in positions.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        alignment: See :class:`FullKernel`.
        bandwidth: Lags that a banded structure keeps.
        n_decays: See :class:`ExponentialKernel` and :class:`TimeDecayKernel`.
        rank: See :class:`LowRankKernel`.
        normalization_eps: See :class:`LearnedKernel`.
        first_tap_start: See :class:`ToeplitzKernel`.
        median_gap: See :class:`TimeDecayKernel`.
    """

    role: Literal["u", "l"]
    max_length: int
    n_groups: int = 1
    normalization: Normalization = "frobenius"
    alignment: Alignment = "end"
    bandwidth: int | None = None
    n_decays: int = 4
    rank: int = 8
    normalization_eps: float = 0.0
    first_tap_start: TapStart = "identity"
    median_gap: float = 1.0

    @property
    def common(self) -> tuple[int, int, Normalization]:
        """The first arguments of every learned kernel."""
        return self.max_length, self.n_groups, self.normalization


class PositionKernel(nn.Module):
    """A lower-triangular matrix over positions, one for each group of feature channels.

    Args:
        max_length: The longest sequence, in positions.
        n_groups: Independent kernels over the feature channels: 1, the number of heads, or the hidden size.

    Attributes:
        lag_only: True if a weight depends on the lag t − s alone, so that it does not matter where the padding is.
        reads_time: True if a weight depends on the times of the items; ``forward`` and ``last_row`` then take them as
            their last argument, and ``dense`` is for items a median gap apart.
        causal: True if the matrix is lower triangular. Kernels of the attention are; a filter over the frequencies of
            a whole sequence is not.
    """

    lag_only = True
    causal = True
    reads_time = False

    def __init__(self, max_length: int, n_groups: int = 1) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"max_length must be a positive integer, got {max_length}")
        if n_groups < 1:
            raise ValueError(f"n_groups must be a positive integer, got {n_groups}")
        self.max_length = max_length
        self.n_groups = n_groups

    @classmethod
    def from_options(cls, options: KernelOptions) -> Self:
        """A kernel of this class from the options of a model, for :func:`recbole_posattn.register_kernel`."""
        return cls(options.max_length, options.n_groups)

    def start_near_zero(self) -> None:
        """Initialize the weights near 0, for a kernel beside a residual connection, which is already the identity.

        By default, kernels are initialized near the identity. A class that does not override this keeps its weights.
        """

    def dense(self, length: int | None = None) -> Tensor:
        """The matrix M for sequences of ``length`` positions (default: ``max_length``).

        Returns:
            Tensor of shape (g, s, s), lower triangular.

        Raises:
            ValueError: If ``length`` is not in 1 … ``max_length``.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Mix positions: y = M x, group by group.

        Args:
            x: Shape (b, s, d), or (b, h, s, d_h) for a sequence split into heads.

        Returns:
            Tensor of the same shape.

        Raises:
            ValueError: If the sequence is longer than ``max_length`` or its channels do not split into the groups.
        """
        return self._by_group(x, self._mix)

    def _by_group(self, x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        """A mix of x in groups, of the shapes of :meth:`_mix`, for x of the shapes of :meth:`forward`."""
        self._checked(x.shape[-2])
        if x.dim() == 3:
            return self._merge(self._by_group(self._split(x), mix))
        b, h, s, d_h = x.shape
        if self.n_groups in (1, h):
            return mix(x)
        if self.n_groups == h * d_h:
            by_channel = x.transpose(-1, -2).reshape(b, h * d_h, s, 1)
            return mix(by_channel).reshape(b, h, d_h, s).transpose(-1, -2)
        raise ValueError(f"n_groups is {self.n_groups}, but {h} heads of {d_h} channels allow 1, {h} or {h * d_h}")

    def _mix(self, x: Tensor) -> Tensor:
        """y = M x for x of shape (b, g, s, c), or (b, any, s, c) if there is one group."""
        raise NotImplementedError

    def last_row(self, length: int | None = None) -> Tensor:
        """What the last position takes from each, M[s − 1, :], shape (g, s); ``length`` as in :meth:`dense`."""
        return self.dense(length)[:, -1]

    def diagonal(self, length: int | None = None) -> Tensor:
        """The diagonal, M[t, t], shape (g, s); ``length`` as in :meth:`dense`."""
        return self.dense(length).diagonal(dim1=-2, dim2=-1)

    def _split(self, x: Tensor) -> Tensor:
        b, s, d = x.shape
        if d % self.n_groups:
            raise ValueError(f"n_groups is {self.n_groups}, which does not divide {d} channels")
        return x.view(b, s, self.n_groups, d // self.n_groups).transpose(1, 2)

    @staticmethod
    def _merge(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(-2)

    def _checked(self, length: int | None) -> int:
        length = self.max_length if length is None else length
        if not 1 <= length <= self.max_length:
            raise ValueError(f"length must be in 1 … {self.max_length} (max_length), got {length}")
        return length

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"max_length={self.max_length}, n_groups={self.n_groups}"


class IdentityKernel(PositionKernel):
    """M = I: positions are not mixed, which leaves plain causal attention without positions."""

    one: Tensor

    def __init__(self, max_length: int, n_groups: int = 1) -> None:
        super().__init__(max_length, n_groups)
        self.register_buffer("one", torch.ones(()), persistent=False)  # follows the module's device and type

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return self.one.expand(self.n_groups, self._checked(length)).diag_embed()

    def _mix(self, x: Tensor) -> Tensor:
        return x


class LearnedKernel(PositionKernel):
    """Base class of the kernels with weights.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: ``frobenius`` divides the kernel by the norm of its weights at every forward pass (by the L2 norm
            of its weights by lag if all positions share them); ``none`` does not change it.

    Attributes:
        normalization_eps: Added to the norm before the division (1e-10 in the authors' code).

    Raises:
        ValueError: If ``normalization`` is unknown.
    """

    normalization_eps: float = 0.0

    def __init__(self, max_length: int, n_groups: int = 1, normalization: Normalization = "frobenius") -> None:
        super().__init__(max_length, n_groups)
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")
        self.normalization = normalization

    @classmethod
    def from_options(cls, options: KernelOptions) -> Self:
        """See :meth:`PositionKernel.from_options`."""
        return cls(*options.common)

    def _normalized(self, weights: Tensor) -> Tensor:
        """Divide the weights of a group, shape (g, n), by their L2 norm if normalization is on."""
        if self.normalization == "none":
            return weights
        normalized: Tensor = weights / (weights.norm(dim=-1, keepdim=True) + self.normalization_eps)
        return normalized

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, normalization={self.normalization}"


def aligned(alignment: Alignment, length: int, max_length: int) -> slice:
    """The positions that a sequence of ``length`` takes of ``max_length``: the last ones (``end``) or the first."""
    return slice(length) if alignment == "start" else slice(max_length - length, max_length)


def checked_alignment(alignment: str) -> Alignment:
    """The alignment itself, or a :class:`ValueError` if it is unknown."""
    for known in ALIGNMENTS:
        if alignment == known:
            return known
    raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")


def checked_bandwidth(bandwidth: int | None, max_length: int) -> int:
    """The number of lags a kernel keeps, all of them by default; a :class:`ValueError` if it is out of range."""
    bandwidth = max_length if bandwidth is None else bandwidth
    if not 1 <= bandwidth <= max_length:
        raise ValueError(f"bandwidth must be in 1 … {max_length} (max_length), got {bandwidth}")
    return bandwidth


def half_normal(*shape: int) -> Tensor:
    """|N(0, 0.02²)|, the initial values of the weights off the diagonal."""
    return torch.empty(*shape).normal_(std=INIT_STD).abs_()
