"""Learnable position-to-position kernels.

One attention block holds two kernels that live purely in position space: **U** (upper triangular) and **L** (lower
triangular). **C = U L** is the positional kernel of Nabiev & Frolov (arXiv 2602.21052). Keys are mixed by Uᵀ and
values by L, and both of these are lower triangular: row t mixes positions ≤ t only. Every class here therefore is a
lower-triangular matrix M that multiplies a sequence from the left; a U kernel is stored as M = Uᵀ.

A kernel is described by its *band*: band[t, k] = M[t, t − k] is the weight that position t gives to the position k
steps before it. Toeplitz kernels have one weight per lag for all positions; full kernels have one per entry.

Shape keys: b batch, s sequence length, d hidden size, h heads, d_h head size, g kernel groups, w bandwidth (lags).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Alignment = Literal["end", "start"]
Normalization = Literal["frobenius", "none"]

STRUCTURES = ("identity", "toeplitz", "banded_toeplitz", "full", "banded")
BANDED_STRUCTURES = ("banded_toeplitz", "banded")
NORMALIZATIONS = ("frobenius", "none")
ALIGNMENTS = ("end", "start")

# Standard deviation of the half-normal start of the off-diagonal weights (the authors' released implementation).
INIT_STD = 0.02

# A band of w lags costs w element-wise passes over the sequence, a dense kernel one matrix product. On two CPU cores,
# forward and backward, the passes were faster up to w = 2 for s = 50 and up to w = 5 for s = 200 (d = 64).
POSITIONS_PER_LAG = 40


class PositionKernel(nn.Module):
    """A lower-triangular matrix over positions, one for each group of feature channels.

    Args:
        max_length: The longest sequence the kernel serves, in positions.
        n_groups: Independent kernels over the feature channels: 1, the number of heads, or the hidden size.

    Attributes:
        lag_only: True if a weight depends on the lag t − s alone, so that it does not matter where padding stands.
    """

    lag_only = True

    def __init__(self, max_length: int, n_groups: int = 1) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"max_length must be a positive integer, got {max_length}")
        if n_groups < 1:
            raise ValueError(f"n_groups must be a positive integer, got {n_groups}")
        self.max_length = max_length
        self.n_groups = n_groups

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
        self._check_length(x.shape[-2])
        if x.dim() == 3:
            return self._merge(self.forward(self._split(x)))
        b, h, s, d_h = x.shape
        if self.n_groups in (1, h):
            return self._mix(x)
        if self.n_groups == h * d_h:
            by_channel = x.transpose(-1, -2).reshape(b, h * d_h, s, 1)
            return self._mix(by_channel).reshape(b, h, d_h, s).transpose(-1, -2)
        raise ValueError(f"n_groups is {self.n_groups}, but {h} heads of {d_h} channels allow 1, {h} or {h * d_h}")

    def _mix(self, x: Tensor) -> Tensor:
        """y = M x for x of shape (b, g, s, c), or (b, any, s, c) where there is one group."""
        raise NotImplementedError

    def _split(self, x: Tensor) -> Tensor:
        b, s, d = x.shape
        if d % self.n_groups:
            raise ValueError(f"n_groups is {self.n_groups}, which does not divide {d} channels")
        return x.view(b, s, self.n_groups, d // self.n_groups).transpose(1, 2)

    @staticmethod
    def _merge(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(-2)

    def _check_length(self, length: int) -> None:
        if not 1 <= length <= self.max_length:
            raise ValueError(f"length must be in 1 … {self.max_length} (max_length), got {length}")

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"max_length={self.max_length}, n_groups={self.n_groups}"


class IdentityKernel(PositionKernel):
    """M = I: positions are not mixed, which leaves plain causal attention without positions."""

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        length = self.max_length if length is None else length
        self._check_length(length)
        return torch.eye(length).expand(self.n_groups, -1, -1)

    def _mix(self, x: Tensor) -> Tensor:
        return x


class BandKernel(PositionKernel):
    """Common part of the learned kernels: a band of weights, its dense matrix, and its product with a sequence.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        bandwidth: Lags kept, 1 being the diagonal only; ``None`` keeps all ``max_length`` of them.
        normalization: ``frobenius`` divides the kernel by the norm of its free weights at every forward pass (the L2
            norm of the taps of a Toeplitz kernel), ``none`` leaves it as it is.

    Raises:
        ValueError: If ``bandwidth`` is not in 1 … ``max_length``, or ``normalization`` is unknown.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        bandwidth: int | None = None,
        normalization: Normalization = "frobenius",
    ) -> None:
        super().__init__(max_length, n_groups)
        bandwidth = max_length if bandwidth is None else bandwidth
        if not 1 <= bandwidth <= max_length:
            raise ValueError(f"bandwidth must be in 1 … {max_length} (max_length), got {bandwidth}")
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")
        self.bandwidth = bandwidth
        self.normalization = normalization

    def band(self, length: int) -> Tensor:
        """The weights by lag, band[t, k] = M[t, t − k].

        Returns:
            Tensor of shape (g, s, w), or (g, 1, w) where all positions share their weights. Lags k > t reach before
            the sequence and have no meaning.
        """
        raise NotImplementedError

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        length = self.max_length if length is None else length
        self._check_length(length)
        position = torch.arange(length, device=self.free.device)
        lag = position[:, None] - position[None, :]
        in_band = (lag >= 0) & (lag < self.bandwidth)
        weights = self.band(length).expand(-1, length, -1)
        index = lag.clamp(0, self.bandwidth - 1).expand(self.n_groups, -1, -1)
        return weights.gather(-1, index).masked_fill(~in_band, 0.0)

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if self.bandwidth > max(2, length // POSITIONS_PER_LAG):
            return self._mix_dense(x)
        weights = self.band(length).unsqueeze(-1)  # (g, s or 1, w, 1)
        y = weights[:, :, 0] * x
        for lag in range(1, min(self.bandwidth, length)):
            delayed = F.pad(x[..., :-lag, :], (0, 0, lag, 0))
            y = y + weights[:, :, lag] * delayed
        return y

    def _mix_dense(self, x: Tensor) -> Tensor:
        matrix = self.dense(x.shape[-2])
        if self.n_groups == 1:
            return matrix[0] @ x
        # Folding the batch into the columns keeps the product from copying every matrix once a sequence.
        return torch.einsum("gts,bgsc->bgtc", matrix, x)

    def _normalized(self, weights: Tensor) -> Tensor:
        """Divide the weights of a group, shape (g, n), by their L2 norm if normalization is on."""
        if self.normalization == "none":
            return weights
        return weights / weights.norm(dim=-1, keepdim=True)

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, bandwidth={self.bandwidth}, normalization={self.normalization}"


class ToeplitzKernel(BandKernel):
    """One weight (tap) per lag: M[t, t − k] = g_k (arXiv 2602.21052, the Toeplitz structure).

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        bandwidth: See :class:`BandKernel`.
        normalization: See :class:`BandKernel`.
        unit_first_tap: Fix g_0 to 1 before normalization, as the authors do for U; L learns it.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        bandwidth: int | None = None,
        normalization: Normalization = "frobenius",
        unit_first_tap: bool = False,
    ) -> None:
        super().__init__(max_length, n_groups, bandwidth, normalization)
        self.unit_first_tap = unit_first_tap
        self.free = nn.Parameter(torch.empty(n_groups, self.bandwidth - unit_first_tap))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """g_0 = 1 and the other taps |N(0, 0.02²)|."""
        with torch.no_grad():
            self.free.normal_(std=INIT_STD).abs_()
            if not self.unit_first_tap:
                self.free[:, 0] = 1.0

    def taps(self) -> Tensor:
        """The normalized weights g of shape (g, w), lag 0 first."""
        taps = F.pad(self.free, (1, 0), value=1.0) if self.unit_first_tap else self.free
        return self._normalized(taps)

    def band(self, length: int) -> Tensor:
        """See :meth:`BandKernel.band`."""
        return self.taps().unsqueeze(1)


class FullKernel(BandKernel):
    """One weight per entry of the (banded) lower triangle (arXiv 2602.21052, the Full structure).

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        bandwidth: See :class:`BandKernel`.
        normalization: See :class:`BandKernel`.
        alignment: Which positions a sequence shorter than ``max_length`` takes: the last ones (``end``, its newest
            item at the last position) or the first ones (``start``).

    Raises:
        ValueError: If ``alignment`` is unknown.
    """

    lag_only = False

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        bandwidth: int | None = None,
        normalization: Normalization = "frobenius",
        alignment: Alignment = "end",
    ) -> None:
        super().__init__(max_length, n_groups, bandwidth, normalization)
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")
        self.alignment = alignment
        position, lag = torch.meshgrid(torch.arange(max_length), torch.arange(self.bandwidth), indexing="ij")
        inside = lag <= position
        self.register_buffer("entry", torch.stack([position[inside], lag[inside]]), persistent=False)
        self.free = nn.Parameter(torch.empty(n_groups, self.entry.shape[1]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Identity, plus |N(0, 0.02²)| strictly below the diagonal."""
        with torch.no_grad():
            self.free.normal_(std=INIT_STD).abs_()
            self.free[:, self.entry[1] == 0] = 1.0

    def band(self, length: int) -> Tensor:
        """See :meth:`BandKernel.band`."""
        position, lag = self.entry
        weights = self.free.new_zeros(self.n_groups, self.max_length, self.bandwidth)
        weights[:, position, lag] = self._normalized(self.free)
        return weights[:, :length] if self.alignment == "start" else weights[:, self.max_length - length :]

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, alignment={self.alignment}"


def parse_kernel_structure(kernel_structure: str) -> tuple[str, str]:
    """Split ``<U>-<L>``, such as ``toeplitz-full``, into the structures of U and L.

    Raises:
        ValueError: If it is not two names of :data:`STRUCTURES` with a dash between.
    """
    parts = str(kernel_structure).split("-")
    if len(parts) != 2 or not set(parts) <= set(STRUCTURES):
        raise ValueError(
            f"kernel_structure must be <U>-<L>, each one of {', '.join(STRUCTURES)}, got {kernel_structure!r}"
        )
    return parts[0], parts[1]


def build_kernel(
    role: Literal["u", "l"],
    structure: str,
    max_length: int,
    *,
    n_groups: int = 1,
    bandwidth: int | None = None,
    normalization: Normalization = "frobenius",
    alignment: Alignment = "end",
) -> PositionKernel:
    """The kernel of one role in an attention block.

    Args:
        role: ``u`` for Uᵀ, which mixes the keys, or ``l`` for L, which mixes the values.
        structure: One of :data:`STRUCTURES`.
        max_length: The longest sequence, in positions.
        n_groups: See :class:`PositionKernel`.
        bandwidth: Lags a banded structure keeps; the others take no notice of it.
        normalization: See :class:`BandKernel`.
        alignment: See :class:`FullKernel`.

    Raises:
        ValueError: If the structure is unknown, or a banded one comes without a bandwidth.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, got {structure!r}")
    if structure == "identity":
        return IdentityKernel(max_length, n_groups)
    if structure not in BANDED_STRUCTURES:
        bandwidth = None
    elif bandwidth is None:
        raise ValueError(f"structure {structure} needs a bandwidth, the number of lags it keeps")
    if structure in ("toeplitz", "banded_toeplitz"):
        return ToeplitzKernel(max_length, n_groups, bandwidth, normalization, unit_first_tap=role == "u")
    return FullKernel(max_length, n_groups, bandwidth, normalization, alignment)


def positional_kernel(u_kernel: PositionKernel, l_kernel: PositionKernel, length: int | None = None) -> Tensor:
    """The dense positional kernel C = U L.

    Args:
        u_kernel: The kernel that stores Uᵀ.
        l_kernel: The kernel that stores L.
        length: Positions, ``max_length`` by default.

    Returns:
        Tensor of shape (g, s, s).
    """
    return u_kernel.dense(length).mT @ l_kernel.dense(length)
