"""A kernel whose weights depend on the time between items.

Shape keys: b batch, s sequence length, d hidden size, h heads, g kernel groups, c channels of a group, m decays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.kernels.base import INIT_STD, LearnedKernel, Normalization, half_normal
from recbole_posattn.nn.times import Times

# Longest sequence whose matrix is computed as a whole, and positions of a block of longer ones: results/time_cost.md.
DENSE_LENGTH, BLOCK_SIZE = 64, 32


class TimeDecayKernel(LearnedKernel):
    """A learned mixture of exponential decays in time: M[t, s] = e [t = s] + Σ_m a_m exp(−(τ_t − τ_s) / θ_m), s ≤ t.

    τ is the time of an item, and θ_m = exp(``log_time_constant``) a time constant in median gaps of the training data.
    Applied as the linear recurrence h_t = exp(−(τ_t − τ_{t−1}) / θ) h_{t−1} + x_t, y_t = e x_t + Σ_m a_m h_t, in memory
    linear in T: over all positions with a kernel per channel, otherwise over blocks, in which M is a matrix. Starts
    near the identity, with e = 1, a = |N(0, 0.02²)| and time constants in a geometric series from 1 to T. Simultaneous
    items have the same weight, but for e.

    Args:
        max_length: T; see :class:`PositionKernel`.
        n_groups: See :class:`PositionKernel`.
        normalization: See :class:`LearnedKernel`. The weights differ from sequence to sequence; the norm is that of the
            weights of T items a median gap apart.
        n_decays: Decays of the mixture.
        median_gap: Median gap of the training data, in seconds; above 0.

    Raises:
        ValueError: If ``n_decays`` is below 1.
    """

    reads_time = True
    median_gap: Tensor

    def __init__(
        self,
        max_length: int,
        n_groups: int = 1,
        normalization: Normalization = "frobenius",
        n_decays: int = 4,
        median_gap: float = 1.0,
    ) -> None:
        super().__init__(max_length, n_groups, normalization)
        if n_decays < 1:
            raise ValueError(f"n_decays must be a positive integer, got {n_decays}")
        self.n_decays = n_decays
        log_time_constant = torch.linspace(0.0, math.log(max_length), n_decays) if n_decays > 1 else torch.zeros(1)
        self.log_time_constant = nn.Parameter(log_time_constant.repeat(n_groups, 1))
        self.amplitude = nn.Parameter(half_normal(n_groups, n_decays))
        self.itself = nn.Parameter(torch.ones(n_groups, 1))
        # Kept with the weights, which were learned for it
        self.register_buffer("median_gap", torch.tensor(median_gap, dtype=torch.float64))

    def start_near_zero(self) -> None:
        """N(0, 0.02²) for e and all a; see :meth:`PositionKernel.start_near_zero`."""
        nn.init.normal_(self.itself, std=INIT_STD)
        nn.init.normal_(self.amplitude, std=INIT_STD)

    def forward(self, x: Tensor, times: Times | None = None) -> Tensor:
        """See :meth:`PositionKernel.forward`; without times, items are a median gap apart."""
        given = self._times(x.shape[-2], times)
        return self._by_group(x, lambda x: self._mixed(x, given))

    def _mixed(self, x: Tensor, times: Times) -> Tensor:
        """M x for x of shape (b, g, s, c), or (b, any, s, c) if there is one group."""
        if self.n_groups > 1 and x.shape[-1] == 1:  # a matrix per channel would be larger than the states
            return self._recurred(x, times)
        if x.shape[-2] <= DENSE_LENGTH:
            return self.at(times).to(x.dtype) @ x
        return self._in_blocks(x, times)

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`; for items a median gap apart."""
        return self.at(self._times(self._checked(length), None))[0]

    def at(self, times: Times) -> Tensor:
        """The matrix M of each sequence, shape (b, g, s, s), lower triangular."""
        length = times.seconds.shape[-1]
        # The same for all layers; gaps to later items are cut off, since their weights would overflow.
        gap = times.shared("gaps", lambda: times.gaps(0, length, length).clamp(min=0.0))
        itself, amplitude = self._normalized_weights()
        matrix = self._mixture(self._in_median_gaps(gap), amplitude).tril()
        return matrix + torch.diag_embed(itself.expand(-1, length))

    def last_row(self, length: int | None = None, times: Times | None = None) -> Tensor:
        """See :meth:`PositionKernel.last_row`; with times, shape (b, g, s)."""
        length = self._checked(length)
        itself, amplitude = self._normalized_weights()
        gap = self._times(length, times).gaps(length - 1, 1, length).squeeze(1)
        row = self._mixture(self._in_median_gaps(gap), amplitude)
        row = torch.cat([row[..., :-1], row[..., -1:] + itself], dim=-1)
        return row[0] if times is None else row

    def diagonal(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.diagonal`; it is the same at all times."""
        itself, amplitude = self._normalized_weights()
        return (itself + amplitude.sum(dim=-1, keepdim=True)).expand(-1, self._checked(length))

    def weights_at(self, gap: Tensor) -> Tensor:
        """The weight of an earlier item by the time since it, in seconds of shape (n,); shape (g, n)."""
        return self._mixture(self._in_median_gaps(gap)[None], self._normalized_weights()[1])[0]

    def _times(self, length: int, times: Times | None) -> Times:
        return times or Times.evenly(length, self.median_gap, self.itself.device)

    def _in_median_gaps(self, seconds: Tensor) -> Tensor:
        return (seconds / self.median_gap).to(self.itself.dtype)

    def _rates(self) -> Tensor:
        """1 / θ, per median gap, shape (g, m)."""
        rates: Tensor = torch.exp(-self.log_time_constant)
        return rates

    def _mixture(self, gap: Tensor, amplitude: Tensor) -> Tensor:
        """Σ_m a_m exp(−gap / θ_m), shape (b, g, …), of gaps of shape (b, …) and a of shape (g, m)."""
        gap = gap.unsqueeze(1)
        per_group = (-1, *(1,) * (gap.dim() - 2))
        decays = zip(amplitude.unbind(-1), self._rates().unbind(-1), strict=True)
        return functools.reduce(
            torch.add, (a.view(per_group) * torch.exp(-rate.view(per_group) * gap) for a, rate in decays)
        )

    def _normalized_weights(self) -> tuple[Tensor, Tensor]:
        """e, shape (g, 1), and a, shape (g, m), divided by the norm of the weights of T items a median gap apart."""
        if self.normalization == "none":
            return self.itself, self.amplitude
        lag = torch.arange(self.max_length, dtype=self.itself.dtype, device=self.itself.device)
        taps = self._mixture(lag[None], self.amplitude)[0]
        taps = torch.cat([taps[:, :1] + self.itself, taps[:, 1:]], dim=-1)
        norm = taps.norm(dim=-1, keepdim=True) + self.normalization_eps
        return self.itself / norm, self.amplitude / norm

    def _recurred(self, x: Tensor, times: Times) -> Tensor:
        """M x by the recurrence over all positions, with a state of the size of x for each decay."""
        itself, amplitude = self._normalized_weights()
        steps = self._in_median_gaps(times.steps())[:, :, None]  # (b, s, 1)
        y = itself[..., None] * x
        for a, rate in zip(amplitude.unbind(-1), self._rates().unbind(-1), strict=True):
            decay = torch.exp(-rate * steps).mT  # (b, g, s), in memory as the channels of x are
            y = y + a[:, None, None] * decayed_sums(decay, x.to(decay.dtype))
        return y.to(x.dtype)

    def _in_blocks(self, x: Tensor, times: Times) -> Tensor:
        """M x by the matrix of each block of p positions, and a recurrence of states of shape (m, c) between blocks."""
        length, n_blocks = x.shape[-2], math.ceil(x.shape[-2] / BLOCK_SIZE)
        filled = n_blocks * BLOCK_SIZE - length
        seconds = torch.cat([times.seconds, times.seconds[:, -1:].expand(-1, filled)], dim=1)
        at = seconds.unflatten(1, (n_blocks, -1))  # (b, n, p)
        itself, amplitude = self._normalized_weights()
        blocks = F.pad(x.to(itself.dtype), (0, 0, 0, filled)).unflatten(-2, (n_blocks, -1))  # (b, g, n, p, c)

        gap = (at[..., :, None] - at[..., None, :]).clamp(min=0.0)
        within = self._mixture(self._in_median_gaps(gap), amplitude).tril()
        y = within @ blocks + itself.view(-1, 1, 1, 1) * blocks

        rate = self._rates()[:, :, None, None]  # (g, m, 1, 1)
        end = at[..., -1:]  # of each block, and of the one before, where the first one has its own first item
        end_before = torch.cat([at[:, :1, :1], end[:, :-1]], dim=1)
        write = torch.exp(-rate * self._in_median_gaps(end - at)[:, None, None])  # (b, g, m, n, p)
        read = amplitude[..., None, None] * torch.exp(-rate * self._in_median_gaps(at - end_before)[:, None, None])
        carry = torch.exp(-rate * self._in_median_gaps(end - end_before)[:, None, None]).squeeze(-1)  # (b, g, m, n)
        written = (write.transpose(2, 3) @ blocks).transpose(2, 3)  # (b, g, m, n, c)
        state = decayed_sums(carry, written)
        before = F.pad(state[..., :-1, :], (0, 0, 1, 0)).transpose(2, 3)  # (b, g, n, m, c)
        y = y + read.permute(0, 1, 3, 4, 2) @ before
        mixed: Tensor = y.flatten(-3, -2)[..., :length, :].to(x.dtype)
        return mixed

    def extra_repr(self) -> str:
        """The sizes and options, for ``print(model)``."""
        return f"{super().extra_repr()}, n_decays={self.n_decays}, median_gap={float(self.median_gap):g}"


def decayed_sums(decay: Tensor, x: Tensor) -> Tensor:
    """h_t = decay_t h_{t−1} + x_t, in about 2 √s steps over blocks of √s positions, and in O(s) memory.

    Args:
        decay: In [0, 1], shape (…, s), where … broadcasts with that of ``x``; the first one has no effect.
        x: Shape (…, s, c).

    Returns:
        Tensor of the shape of ``x``.
    """
    if not torch.is_grad_enabled():
        return _scan(decay, x)
    apply: Callable[..., Tensor] = _DecayedSums.apply
    return apply(decay, x)


def _scan(decay: Tensor, x: Tensor) -> Tensor:
    """:func:`decayed_sums`: place by place in all blocks at once, then block by block."""
    h, decay = x.clone(), decay.unsqueeze(-1).clone()
    length = x.shape[-2]
    p = math.isqrt(length - 1) + 1
    for place in range(1, p):
        at, before = slice(place, None, p), slice(place - 1, length - 1, p)
        h[..., at, :] += decay[..., at, :] * h[..., before, :]
        decay[..., at, :] *= decay[..., before, :]  # since the end of the block before
    for first in range(p, length, p):
        block = slice(first, first + p)
        h[..., block, :] += decay[..., block, :] * h[..., first - 1 : first, :]
    return h


class _DecayedSums(torch.autograd.Function):
    """See :func:`decayed_sums`; the gradient is the same recurrence backwards."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, x: Tensor) -> Tensor:
        """Shapes as above."""
        h = _scan(decay, x)
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """G_t = g_t + decay_{t+1} G_{t+1}; that of x is G, that of decay_t is the sum of G_t ⊙ h_{t−1}."""
        decay, h = ctx.saved_tensors
        grad_x = _scan(decay.flip(-1).roll(1, dims=-1), grad.flip(-2)).flip(-2)
        of_decay = (grad_x[..., 1:, :] * h[..., :-1, :]).sum(dim=-1)
        return F.pad(of_decay, (1, 0)).sum_to_size(decay.shape), grad_x
