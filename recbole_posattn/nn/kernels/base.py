"""Learnable position-to-position kernels.

One attention block holds two kernels that live purely in position space: **U** (upper triangular) and **L** (lower
triangular). **C = U L** is the positional kernel of Nabiev & Frolov (arXiv 2602.21052). Keys are mixed by Uᵀ and
values by L, and both of these are lower triangular: row t mixes positions ≤ t only. Every class here therefore is a
lower-triangular matrix M that multiplies a sequence from the left; a U kernel is stored as M = Uᵀ.

Toeplitz, dilated, adaptive and exponential kernels have one weight per *lag* k for all positions, M[t, t − k] = g_k.
Full and low-rank kernels have a weight for each pair of positions. A new structure is a class here and a line in
:data:`STRUCTURES`.

Shape keys: b batch, s sequence length, d hidden size, h heads, d_h head size, g kernel groups, w bandwidth (lags),
m decays of a mixture, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn import products

Alignment = Literal["end", "start"]
Normalization = Literal["frobenius", "none"]

NORMALIZATIONS = ("frobenius", "none")
ALIGNMENTS = ("end", "start")

# Standard deviation of the half-normal start of the off-diagonal weights (the authors' released implementation).
INIT_STD = 0.02


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
        self._checked(x.shape[-2])
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

    def diagonal(self, length: int | None = None) -> Tensor:
        """What each position gives itself, M[t, t], shape (g, s); ``length`` as in :meth:`dense`."""
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

    def __init__(self, max_length: int, n_groups: int = 1) -> None:
        super().__init__(max_length, n_groups)
        self.register_buffer("one", torch.ones(()), persistent=False)  # follows the module's device and type

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return self.one.expand(self.n_groups, self._checked(length)).diag_embed()

    def _mix(self, x: Tensor) -> Tensor:
        return x


class LearnedKernel(PositionKernel):
    """Common part of the kernels with weights.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: ``frobenius`` divides the kernel by the norm of its weights at every forward pass (by the L2 norm
            of its weights by lag where all positions share them), ``none`` leaves it as it is.

    Raises:
        ValueError: If ``normalization`` is unknown.
    """

    def __init__(self, max_length: int, n_groups: int = 1, normalization: Normalization = "frobenius") -> None:
        super().__init__(max_length, n_groups)
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {NORMALIZATIONS}, got {normalization!r}")
        self.normalization = normalization

    def _normalized(self, weights: Tensor) -> Tensor:
        """Divide the weights of a group, shape (g, n), by their L2 norm if normalization is on."""
        if self.normalization == "none":
            return weights
        return weights / weights.norm(dim=-1, keepdim=True)

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, normalization={self.normalization}"


class LagKernel(LearnedKernel):
    """A kernel whose weights depend on the lag alone, M[t, t − k] = g_k; subclasses say what :meth:`taps` are."""

    def taps(self) -> Tensor:
        """The normalized weights g, shape (g, w), lag 0 first; the weights of longer lags are 0."""
        raise NotImplementedError

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return products.toeplitz_matrix(self.taps(), self._checked(length))

    def _mix(self, x: Tensor) -> Tensor:
        return products.toeplitz_product(self.taps(), x)


class ToeplitzKernel(LagKernel):
    """One free weight (tap) per lag (arXiv 2602.21052, the Toeplitz structure).

    Starts with g_0 = 1 and the other taps |N(0, 0.02²)|.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        bandwidth: Lags kept, 1 being the diagonal only; ``None`` keeps all ``max_length`` of them.
        unit_first_tap: Fix g_0 to 1 before normalization, as the authors do for U; L learns it.

    Raises:
        ValueError: If ``bandwidth`` is not in 1 … ``max_length``.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        bandwidth: int | None = None,
        unit_first_tap: bool = False,
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        self.bandwidth = _checked_bandwidth(bandwidth, max_length)
        self.unit_first_tap = unit_first_tap
        first = torch.ones(n_groups, 0 if unit_first_tap else 1)
        self.free = nn.Parameter(torch.cat([first, _half_normal(n_groups, self.bandwidth - 1)], dim=-1))

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        return self._normalized(self._unnormalized_taps())

    def _unnormalized_taps(self) -> Tensor:
        return F.pad(self.free, (1, 0), value=1.0) if self.unit_first_tap else self.free

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, bandwidth={self.bandwidth}"


class DilatedKernel(ToeplitzKernel):
    """Free taps at the lags 0, 1, 2, 4, 8, … below T and nowhere else.

    The arguments are those of :class:`ToeplitzKernel` without ``bandwidth``.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        unit_first_tap: bool = False,
    ) -> None:
        self.lags = [0] + [2**i for i in range((max_length - 1).bit_length())]
        super().__init__(max_length, n_groups, normalization, len(self.lags), unit_first_tap)

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        taps = self.free.new_zeros(self.n_groups, self.lags[-1] + 1)
        taps[:, self.lags] = super().taps()
        return taps


class AdaptiveBandKernel(ToeplitzKernel):
    """Taps times a soft window whose width is learned: M[t, t − k] = g_k clamp((z − k) / R + 1, 0, 1).

    The window is that of adaptive attention spans (Sukhbaatar et al., arXiv 1905.07799, §2): 1 up to lag z, then down
    to 0 over a ramp of R = T / 8 lags. z = T sigmoid(``width_logit``) starts at T / 2. Lags behind the window cost
    nothing. The arguments are those of :class:`ToeplitzKernel` without ``bandwidth``; each group has its own width.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        unit_first_tap: bool = False,
    ) -> None:
        super().__init__(max_length, n_groups, normalization, unit_first_tap=unit_first_tap)
        self.ramp = max(1.0, max_length / 8)
        self.width_logit = nn.Parameter(torch.zeros(n_groups))

    def width_share(self) -> Tensor:
        """The learned width z / T of each group, shape (g,), in (0, 1)."""
        return self.width_logit.sigmoid()

    def hard_width(self) -> Tensor:
        """The lags whose window is above 0, 1 … T; integers of shape (g,)."""
        return (self.window().detach() > 0).sum(dim=-1)

    def window(self) -> Tensor:
        """The window of each group at every lag, shape (g, T); 1 at lag 0."""
        lag = torch.arange(self.max_length, device=self.free.device)
        width = self.max_length * self.width_share()[:, None]
        return ((width - lag) / self.ramp + 1).clamp(0.0, 1.0)

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        taps = self._normalized(self._unnormalized_taps() * self.window())
        return taps[:, : int(self.hard_width().max())]


class ExponentialKernel(LagKernel):
    """A learned mixture of M causal decays: the weight of lag k is Σ_m a_m λ_m^k, λ_m = sigmoid(``decay_logit``).

    Applied as the linear recurrence h_t = λ h_{t−1} + x_t, y_t = Σ_m a_m h_t, block by block. The first decay starts
    as next to the identity (a = 1, λ = 0.05), the others with a = |N(0, 0.02²)| and the time constants −1 / ln λ in a
    geometric series up to T.

    Args:
        max_length: T; see :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        n_decays: M.

    Raises:
        ValueError: If ``n_decays`` is below 1.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        n_decays: int = 4,
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        if n_decays < 1:
            raise ValueError(f"n_decays must be a positive integer, got {n_decays}")
        self.n_decays = n_decays
        time_constant = torch.logspace(math.log10(-1 / math.log(0.05)), math.log10(max_length), n_decays)
        self.decay_logit = nn.Parameter(torch.exp(-1 / time_constant).logit().repeat(n_groups, 1))
        amplitude = torch.cat([torch.ones(n_groups, 1), _half_normal(n_groups, n_decays - 1)], dim=-1)
        self.amplitude = nn.Parameter(amplitude)

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        return (self._normalized_amplitude()[..., None] * self._decayed(self.max_length)).sum(dim=1)

    def _decayed(self, length: int, stride: int = 1) -> Tensor:
        """λ_m^(k · stride) for k < ``length``, shape (g, m, k)."""
        steps = stride * torch.arange(length, device=self.decay_logit.device)
        return torch.exp(F.logsigmoid(self.decay_logit)[..., None] * steps)

    def _normalized_amplitude(self) -> Tensor:
        """a_m over the norm of all T taps, in which Σ_k (Σ_m a_m λ_m^k)² is taken as it stands."""
        if self.normalization == "none":
            return self.amplitude
        taps = (self.amplitude[..., None] * self._decayed(self.max_length)).sum(dim=1)
        return self.amplitude / taps.norm(dim=-1, keepdim=True)

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_RECURRENCE_LENGTH:
            return super()._mix(x)
        n_blocks, p = products.block_of_root(length)
        amplitude, decayed = self._normalized_amplitude()[..., None], self._decayed(p + 1)
        across = F.pad(self._decayed(n_blocks, stride=p), (1, 0))  # from a block to the next: λ^0, and so on
        return products.recurrent_product(
            within=products.toeplitz_matrix((amplitude * decayed[..., :p]).sum(dim=1), p).unsqueeze(1),
            write=(amplitude * decayed[..., :p].flip(-1)).unsqueeze(1),
            carry=products.toeplitz_matrix(across.flatten(0, 1), n_blocks).unflatten(0, (self.n_groups, -1)),
            read=decayed[..., 1:].mT.unsqueeze(1),
            x=x,
        )

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, n_decays={self.n_decays}"


class FullKernel(LearnedKernel):
    """One weight per entry of the (banded) lower triangle (arXiv 2602.21052, the Full structure).

    Starts as the identity plus |N(0, 0.02²)| strictly below the diagonal.

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

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        bandwidth: int | None = None,
        alignment: Alignment = "end",
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        self.bandwidth = _checked_bandwidth(bandwidth, max_length)
        self.alignment = checked_alignment(alignment)
        position, lag = torch.meshgrid(torch.arange(max_length), torch.arange(self.bandwidth), indexing="ij")
        inside = lag <= position
        self.register_buffer("entry", torch.stack([position[inside], lag[inside]]), persistent=False)
        free = _half_normal(n_groups, self.entry.shape[1])
        free[:, self.entry[1] == 0] = 1.0
        self.free = nn.Parameter(free)

    def band(self, length: int) -> Tensor:
        """The weights by position and lag, band[t, k] = M[t, t − k], shape (g, s, w).

        Lags k > t, which reach before the first of all positions, have the weight 0.
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

    Both start as the first r functions of the real Fourier basis over the positions, which gives the best band of
    weights around the diagonal that r functions can give (about T / r lags wide), plus N(0, 0.02²).

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
        u, v = self.u, self.v
        if self.normalization == "frobenius":
            gram = (v.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=1)  # Σ_{s ≤ t} v_s v_sᵀ: no T × T matrix
            squared = torch.einsum("gtr,gtrq,gtq->g", u, gram, u)
            u = u / squared.sqrt()[:, None, None]
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
        n_blocks, p = products.block_of_root(length)
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


def aligned(alignment: Alignment, length: int, max_length: int) -> slice:
    """The positions that a sequence of ``length`` takes of ``max_length``: the last ones (``end``) or the first."""
    return slice(length) if alignment == "start" else slice(max_length - length, max_length)


def checked_alignment(alignment: str) -> Alignment:
    """The alignment itself, or a :class:`ValueError` if it is unknown."""
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")
    return alignment


def _checked_bandwidth(bandwidth: int | None, max_length: int) -> int:
    bandwidth = max_length if bandwidth is None else bandwidth
    if not 1 <= bandwidth <= max_length:
        raise ValueError(f"bandwidth must be in 1 … {max_length} (max_length), got {bandwidth}")
    return bandwidth


def _half_normal(*shape: int) -> Tensor:
    """|N(0, 0.02²)|, the start of the weights off the diagonal."""
    return torch.empty(*shape).normal_(std=INIT_STD).abs_()


class KernelOptions(NamedTuple):
    """What the structures are built from; each takes what concerns it.

    Args:
        role: ``u`` for Uᵀ, which mixes the keys, or ``l`` for L, which mixes the values.
        max_length: The longest sequence, in positions.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        alignment: See :class:`FullKernel`.
        bandwidth: Lags that a banded structure keeps.
        n_decays: See :class:`ExponentialKernel`.
        rank: See :class:`LowRankKernel`.
    """

    role: Literal["u", "l"]
    max_length: int
    n_groups: int = 1
    normalization: Normalization = "frobenius"
    alignment: Alignment = "end"
    bandwidth: int | None = None
    n_decays: int = 4
    rank: int = 8

    @property
    def common(self) -> tuple[int, int, Normalization]:
        """The first arguments of every learned kernel."""
        return self.max_length, self.n_groups, self.normalization


STRUCTURES: dict[str, Callable[[KernelOptions], PositionKernel]] = {
    "identity": lambda o: IdentityKernel(o.max_length, o.n_groups),
    "toeplitz": lambda o: ToeplitzKernel(*o.common, unit_first_tap=o.role == "u"),
    "banded_toeplitz": lambda o: ToeplitzKernel(*o.common, bandwidth=o.bandwidth, unit_first_tap=o.role == "u"),
    "full": lambda o: FullKernel(*o.common, alignment=o.alignment),
    "banded": lambda o: FullKernel(*o.common, bandwidth=o.bandwidth, alignment=o.alignment),
    "exponential": lambda o: ExponentialKernel(*o.common, n_decays=o.n_decays),
    "lowrank": lambda o: LowRankKernel(*o.common, rank=o.rank, alignment=o.alignment),
    "adaptive_band": lambda o: AdaptiveBandKernel(*o.common, unit_first_tap=o.role == "u"),
    "dilated": lambda o: DilatedKernel(*o.common, unit_first_tap=o.role == "u"),
}

# The structures that need a bandwidth.
BANDED_STRUCTURES = ("banded_toeplitz", "banded")


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


def build_kernel(structure: str, options: KernelOptions) -> PositionKernel:
    """The kernel of one role in an attention block.

    Args:
        structure: A name of :data:`STRUCTURES`.
        options: Role, sizes and what the structure needs beside them.

    Raises:
        ValueError: If the structure is unknown, a banded one comes without a bandwidth, or an option is out of range.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}, got {structure!r}")
    if structure in BANDED_STRUCTURES and options.bandwidth is None:
        raise ValueError(f"structure {structure} needs a bandwidth, the number of lags it keeps")
    return STRUCTURES[structure](options)


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
