"""Kernels whose weights depend on the lag alone.

Shape keys: g groups, w lags, m decays, T = ``max_length``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.nn import products
from recbole_posattn.nn.kernels.base import (
    INIT_STD,
    LearnedKernel,
    Normalization,
    TapStart,
    checked_bandwidth,
    half_normal,
)


class LagKernel(LearnedKernel):
    """A kernel whose weights depend on the lag alone, M[t, t − k] = g_k; subclasses define :meth:`taps`."""

    def taps(self) -> Tensor:
        """The normalized weights g, shape (g, w), lag 0 first; the weights of longer lags are 0."""
        raise NotImplementedError

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return products.toeplitz_matrix(self.taps(), self._checked(length))

    def last_row(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`."""
        length = self._checked(length)
        taps = self.taps()[:, :length]
        return F.pad(taps.flip(-1), (length - taps.shape[-1], 0))

    def _mix(self, x: Tensor) -> Tensor:
        return products.toeplitz_product(self.taps(), x)


class ToeplitzKernel(LagKernel):
    """One free weight (tap) per lag (arXiv 2602.21052, the Toeplitz structure).

    Initialized with g_0 = 1, unless ``first_tap_start`` says otherwise, and |N(0, 0.02²)| for the other taps.

    Args:
        max_length: See :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`.
        bandwidth: Lags kept, 1 being the diagonal only; ``None`` keeps all ``max_length`` of them.
        unit_first_tap: Fix g_0 to 1 before normalization, as the authors do for U; L learns it.
        first_tap_start: Where a learned g_0 starts: at 1 (``identity``), or like the other taps (``half_normal``), as
            in the authors' code.

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
        first_tap_start: TapStart = "identity",
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        self.bandwidth = checked_bandwidth(bandwidth, max_length)
        self.unit_first_tap = unit_first_tap
        n_first = 0 if unit_first_tap else 1
        first = torch.ones(n_groups, n_first) if first_tap_start == "identity" else half_normal(n_groups, n_first)
        self.free = nn.Parameter(torch.cat([first, half_normal(n_groups, self.bandwidth - 1)], dim=-1))

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        return self._normalized(self._unnormalized_taps())

    def start_near_zero(self) -> None:
        """N(0, 0.02²) for all taps; see :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.free, std=INIT_STD)

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
        first_tap_start: TapStart = "identity",
    ) -> None:
        self.lags = [0] + [2**i for i in range((max_length - 1).bit_length())]
        super().__init__(max_length, n_groups, normalization, len(self.lags), unit_first_tap, first_tap_start)

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        taps = self.free.new_zeros(self.n_groups, self.lags[-1] + 1)
        taps[:, torch.tensor(self.lags, device=taps.device)] = super().taps()
        return taps


class AdaptiveBandKernel(ToeplitzKernel):
    """Taps times a soft window whose width is learned: M[t, t − k] = g_k clamp((z − k) / R + 1, 0, 1).

    The window is that of adaptive attention spans (Sukhbaatar et al., arXiv 1905.07799, §2): 1 up to lag z, then down
    to 0 over a ramp of R = T / 8 lags. z = T sigmoid(``width_logit``) starts at T / 2. Lags beyond the window cost
    nothing. The arguments are those of :class:`ToeplitzKernel` without ``bandwidth``; each group has its own width.
    """

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        unit_first_tap: bool = False,
        first_tap_start: TapStart = "identity",
    ) -> None:
        super().__init__(max_length, n_groups, normalization, None, unit_first_tap, first_tap_start)
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
    close to the identity (a = 1, λ = 0.05), the others with a = |N(0, 0.02²)| and the time constants −1 / ln λ in a
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
        amplitude = torch.cat([torch.ones(n_groups, 1), half_normal(n_groups, n_decays - 1)], dim=-1)
        self.amplitude = nn.Parameter(amplitude)

    def taps(self) -> Tensor:
        """See :meth:`LagKernel.taps`."""
        return (self._normalized_amplitude()[..., None] * self._decayed(self.max_length)).sum(dim=1)

    def start_near_zero(self) -> None:
        """N(0, 0.02²) for all amplitudes; see :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.amplitude, std=INIT_STD)

    def _decayed(self, length: int, stride: int = 1) -> Tensor:
        """λ_m^(k · stride) for k < ``length``, shape (g, m, k)."""
        steps = stride * torch.arange(length, device=self.decay_logit.device)
        return torch.exp(F.logsigmoid(self.decay_logit)[..., None] * steps)

    def _normalized_amplitude(self) -> Tensor:
        """a_m divided by the norm of all T taps, the square root of Σ_k (Σ_m a_m λ_m^k)²."""
        if self.normalization == "none":
            return self.amplitude
        taps = (self.amplitude[..., None] * self._decayed(self.max_length)).sum(dim=1)
        normalized: Tensor = self.amplitude / (taps.norm(dim=-1, keepdim=True) + self.normalization_eps)
        return normalized

    def _mix(self, x: Tensor) -> Tensor:
        length = x.shape[-2]
        if length <= products.DENSE_RECURRENCE_LENGTH:
            return super()._mix(x)
        n_blocks, p = products.square_root_blocks(length)
        amplitude, decayed = self._normalized_amplitude()[..., None], self._decayed(p + 1)
        across = F.pad(self._decayed(n_blocks, stride=p), (1, 0))  # by blocks between: λ^0, λ^p, …
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
