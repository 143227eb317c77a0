"""Filters over the frequencies of a whole sequence: circular convolutions of T = ``max_length`` positions.

Unlike the kernels of the attention they look ahead: position t takes from position s with the weight of the lag
(t − s) mod T. Read *causally* (``causal``), the same weights apply to the lags t − s ≥ 0 only, so that there can be a
loss at every position. The last position has the same weights in both readings: there is nothing ahead of it.
A sequence of s < T positions takes the last s of the T rows and columns.

Shape keys: b batch, s sequence length, d hidden size, g kernel groups, T positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recbole_posattn.nn import products
from recbole_posattn.nn.kernels.base import INIT_STD, PositionKernel


class CircularKernel(PositionKernel):
    """M[t, s] = g[(t − s) mod T]; subclasses say what the :meth:`taps` g are.

    Args:
        max_length: T; see :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        causal: Whether only the lags t − s ≥ 0 count.
    """

    def __init__(self, max_length: int, n_groups: int = 1, causal: bool = False) -> None:
        super().__init__(max_length, n_groups)
        self.causal = self.lag_only = causal

    def taps(self) -> Tensor:
        """g, shape (g, T), lag 0 first."""
        raise NotImplementedError

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return self._matrix(self.taps(), self._checked(length))

    def last_row(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`."""
        return self.taps()[:, : self._checked(length)].flip(-1)

    def _matrix(self, taps: Tensor, length: int) -> Tensor:
        of_lags = products.toeplitz_matrix if self.causal else products.circulant_matrix
        return of_lags(taps, length)

    def _mix(self, x: Tensor) -> Tensor:
        if self.causal:
            return products.toeplitz_product(self.taps(), x)
        return products.circular_product(self.taps(), x)

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, causal={self.causal}"


class SpectralKernel(CircularKernel):
    """The learnable filter of FMLP-Rec: y = F⁻¹(W ⊙ F(x)), with a complex weight per frequency and group.

    Zhou et al., arXiv 2202.13556, eqs. 3 to 5. F is the real Fourier transform over T positions; the taps are F⁻¹(W).
    W starts at N(0, 0.02²), real and imaginary part. The arguments are those of :class:`CircularKernel`.
    """

    def __init__(self, max_length: int, n_groups: int = 1, causal: bool = False) -> None:
        super().__init__(max_length, n_groups, causal)
        self.spectrum = nn.Parameter(INIT_STD * torch.randn(n_groups, max_length // 2 + 1, 2))

    def taps(self) -> Tensor:
        """See :meth:`CircularKernel.taps`."""
        taps: Tensor = torch.fft.irfft(torch.view_as_complex(self.spectrum), n=self.max_length)
        return taps


class FrequencyRescaler(CircularKernel):
    """The frequency rescaler of BSARec: y = LP(x) + β² (x − LP(x)), with a learned β for each channel.

    Shin et al., arXiv 2312.10325, eqs. 8 to 10. LP keeps the lowest ``cutoff`` components of the Fourier transform over
    T positions: the mean, and the sine and cosine of ⌊``cutoff`` / 2⌋ frequencies. β starts at N(0, 1).

    Args:
        max_length: See :class:`CircularKernel`.
        hidden_size: Channels d, each of which is a group.
        cutoff: c in the paper, at least 1; from T on, LP keeps everything.
        causal: See :class:`CircularKernel`.

    Raises:
        ValueError: If ``cutoff`` is below 1.
    """

    def __init__(self, max_length: int, hidden_size: int, cutoff: int, causal: bool = False) -> None:
        super().__init__(max_length, hidden_size, causal)
        if cutoff < 1:
            raise ValueError(f"cutoff must be a positive integer, got {cutoff}")
        self.cutoff = cutoff
        self.beta = nn.Parameter(torch.randn(hidden_size))

    def low_pass(self) -> Tensor:
        """The taps of LP, shape (1, T)."""
        t, device = self.max_length, self.beta.device
        lag = torch.arange(t, dtype=torch.float64, device=device)
        frequency = torch.arange(1, min(self.cutoff, t) // 2 + 1, dtype=torch.float64, device=device)
        twice = torch.where(2 * frequency == t, 1.0, 2.0)  # with its conjugate, except for the Nyquist frequency
        waves = twice[:, None] * torch.cos(2 * math.pi / t * torch.outer(frequency, lag))
        return ((1 + waves.sum(dim=0, keepdim=True)) / t).to(self.beta.dtype)

    def taps(self) -> Tensor:
        """See :meth:`CircularKernel.taps`."""
        low, high = self.low_pass(), self.beta.square()[:, None]
        itself = torch.zeros_like(low)
        itself[:, 0] = 1.0
        return (1 - high) * low + high * itself

    def forward(self, x: Tensor) -> Tensor:
        """See :meth:`PositionKernel.forward`; one product for all channels. ``x`` of shape (b, s, d)."""
        matrix = self._matrix(self.low_pass().to(x.dtype), self._checked(x.shape[-2]))
        low = products.dense_product(matrix, x.unsqueeze(1)).squeeze(1) if self.causal else matrix @ x
        return torch.lerp(low.to(x.dtype), x, self.beta.square().to(x.dtype))  # low is smaller in mixed precision

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, cutoff={self.cutoff}"
