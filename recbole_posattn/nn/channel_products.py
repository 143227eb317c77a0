"""Products of many small matrices over positions with a sequence, one matrix for each channel.

A sequence of shape (b, s, d) is laid out anew, channel by channel, so that the products are those of whole matrices.
The gradients are written out for the same reason.

Shape keys: b batch, g channels, s sequence length, w lags, n positions of a Fourier transform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def channel_product(matrix: Tensor, x: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
    """M_c x_c for each channel c.

    Args:
        matrix: M, shape (g, s, s).
        x: Shape (b, g, s, 1).
        blocks: Rows (first, last) of M that need no column behind ``last``; [(0, s)] if M is not triangular.

    Returns:
        Tensor of the shape of ``x``.
    """
    product: Callable[..., Tensor] = _ChannelProduct.apply
    return product(matrix, x, blocks)


def channel_convolution(taps: Tensor, x: Tensor, n: int) -> Tensor:
    """Σ_k taps_c[k] x_c[(t − k) mod n] for each channel c by the Fourier transform over n positions.

    Args:
        taps: Weights by lag, shape (g, w), w ≤ n.
        x: Shape (b, g, s, 1), s ≤ n; the positions behind s are zeros. With n ≥ s + w − 1 nothing wraps around.
        n: Positions of the transform, see :func:`fast_length`.

    Returns:
        Tensor of the shape of ``x``.
    """
    convolution: Callable[..., Tensor] = _ChannelConvolution.apply
    return convolution(taps, x, n)


class _ChannelProduct(torch.autograd.Function):
    """See :func:`channel_product`."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor, blocks: list[tuple[int, int]]) -> Tensor:
        """Shapes as above."""
        columns = _by_channel(x)
        y = torch.empty_like(columns)
        for first, last in blocks:
            y[..., first:last] = columns[..., :last] @ matrix[:, first:last, :last].mT
        ctx.save_for_backward(matrix, columns)
        ctx.blocks = blocks
        return _by_position(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Σ g xᵀ over the batch, and Mᵀ g."""
        matrix, x = ctx.saved_tensors
        columns = _by_channel(grad)
        grad_matrix = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_matrix = torch.zeros_like(matrix)
            for first, last in ctx.blocks:
                grad_matrix[:, first:last, :last] = columns[..., first:last].mT @ x[..., :last]
        if ctx.needs_input_grad[1]:
            grad_x = torch.empty_like(x)
            for first, last in ctx.blocks:
                behind = first if len(ctx.blocks) > 1 else 0
                grad_x[..., first:last] = columns[..., behind:] @ matrix[:, behind:, first:last]
            grad_x = _by_position(grad_x)
        return grad_matrix, grad_x, None


class _ChannelConvolution(torch.autograd.Function):
    """See :func:`channel_convolution`."""

    @staticmethod
    def forward(ctx: Any, taps: Tensor, x: Tensor, n: int) -> Tensor:
        """Shapes as above."""
        length = x.shape[-2]
        of_taps = torch.fft.rfft(taps, n=n)
        of_x = torch.fft.rfft(x.squeeze(-1).contiguous(), n=n)
        ctx.save_for_backward(of_taps, of_x)
        ctx.shape = n, taps.shape[-1]
        return _laid_out(torch.fft.irfft(of_x * of_taps, n=n)[..., :length])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The correlations of the gradient with x, and with the taps."""
        of_taps, of_x = ctx.saved_tensors
        n, width = ctx.shape
        of_grad = torch.fft.rfft(grad.squeeze(-1).contiguous(), n=n)
        grad_taps = grad_x = None
        if ctx.needs_input_grad[0]:
            grad_taps = torch.fft.irfft((of_grad * of_x.conj()).sum(dim=0), n=n)[:, :width]
        if ctx.needs_input_grad[1]:
            grad_x = _laid_out(torch.fft.irfft(of_grad * of_taps.conj(), n=n)[..., : grad.shape[-2]])
        return grad_taps, grad_x, None


def fast_length(n: int) -> int:
    """The smallest number from n on whose only prime factors are 2, 3 and 5: Fourier transforms of it are fast."""
    while not _is_smooth(n):
        n += 1
    return n


def _is_smooth(n: int) -> bool:
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _by_channel(x: Tensor) -> Tensor:
    """(b, g, s, 1) to (g, b, s), contiguous."""
    return x.squeeze(-1).transpose(0, 1).contiguous()


def _by_position(y: Tensor) -> Tensor:
    """(g, b, s) to (b, g, s, 1) whose memory is that of (b, s, g)."""
    return _laid_out(y.transpose(0, 1))


def _laid_out(y: Tensor) -> Tensor:
    """(b, g, s) as (b, g, s, 1) whose memory is that of (b, s, g)."""
    return y.transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(-1)
