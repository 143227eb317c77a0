"""Exact products of a lower-triangular matrix over positions with a sequence, each computed in the fastest way.

Up to :data:`DENSE_LENGTH` positions the plain product with the dense matrix is fastest. Longer sequences use the
structure of the matrix, in less than O(s²) time and without an s × s matrix.

Shape keys: b batch, g kernel groups, s sequence length, c channels of a group, w bandwidth (lags), r size of the
state of a recurrence, n blocks, p positions of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbole_posattn.nn.channel_products import channel_convolution, channel_product, fast_length

# Measured on two CPU cores, forward and backward, d = 64, float32: results/kernel_products.md.
DENSE_LENGTH = 384  # longest sequence for which the dense product is fastest
CHANNEL_DENSE_LENGTH = 128  # the same, for a matrix per channel against the FFT
DENSE_RECURRENCE_LENGTH = 96  # the same, against the blocks of a recurrence
BLOCKED_LAGS = 64  # widest band of lags for which blocks are faster than the FFT
LENGTH_PER_LAG = 4  # positions per lag from which blocks are faster for a band of position-dependent weights
BLOCK_SIZE = 64  # positions of a block, unless the band is wider


def toeplitz_matrix(taps: Tensor, length: int) -> Tensor:
    """M[t, t − k] = taps[k], shape (g, s, s), of taps of shape (g, w); weights beyond the last tap are 0."""
    lags = F.pad(taps[:, :length].flip(-1), (length - min(taps.shape[-1], length), length - 1))
    return _matrix_of_lags(lags, length)


def circulant_matrix(taps: Tensor, length: int) -> Tensor:
    """M[t, s] = taps[(t − s) mod T], shape (g, s, s), of taps of shape (g, T): the last s rows of a circulant."""
    earlier, later = taps[:, :length], taps[:, taps.shape[-1] - length + 1 :]
    return _matrix_of_lags(torch.cat([earlier.flip(-1), later.flip(-1)], dim=-1), length)


def _matrix_of_lags(lags: Tensor, length: int) -> Tensor:
    """M[t, u] by the lag t − u, from the weights of the lags s − 1, …, 0, …, 1 − s, shape (g, 2 s − 1)."""
    return lags.unfold(-1, length, 1).flip(-2)


def toeplitz_product(taps: Tensor, x: Tensor) -> Tensor:
    """y_t = Σ_k taps[k] x_{t−k}, a causal convolution.

    Args:
        taps: Weights by lag, shape (g, w).
        x: Shape (b, g, s, c), or (b, any, s, c) if g is 1.

    Returns:
        Tensor of the shape of ``x``.
    """
    length = x.shape[-2]
    taps = taps[:, :length]
    if _is_per_channel(taps, x) and length > CHANNEL_DENSE_LENGTH:
        n = fast_length(length + taps.shape[-1] - 1)
        return channel_convolution(taps, x.to(taps.dtype), n).to(x.dtype)
    if length <= DENSE_LENGTH:
        return dense_product(toeplitz_matrix(taps, length), x)
    if taps.shape[-1] <= BLOCKED_LAGS:
        return blocked_band_product(taps.unsqueeze(1), x)
    return fft_product(taps, x)


def dense_product(matrix: Tensor, x: Tensor) -> Tensor:
    """M x for lower-triangular M of shape (g, s, s) and x of shape (b, g, s, c), or (b, any, s, c) if g is 1."""
    if len(matrix) == 1:
        product: Callable[..., Tensor] = _TriangularProduct.apply
        return product(matrix[0].to(x.dtype), x)
    if _is_per_channel(matrix, x):
        return channel_product(matrix.to(x.dtype), x, _blocks(matrix.shape[-1]))
    # Folding the batch into the columns keeps the product from copying every matrix once per sequence.
    return torch.einsum("gts,bgsc->bgtc", matrix, x)


class _TriangularProduct(torch.autograd.Function):
    """M x for one matrix M of shape (s, s) and x of shape (b, any, s, c), which skips most of the zeros.

    A block of rows needs the columns of M up to its last row only: with four blocks, 5/8 of the products of a square
    matrix. The same holds for the gradients.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        """Shapes as above."""
        flat = x.reshape(-1, *x.shape[-2:])
        y = torch.empty_like(flat)
        for first, last in _blocks(len(matrix)):
            y[:, first:last] = matrix[first:last, :last].expand(len(flat), -1, -1) @ flat[:, :last]
        ctx.save_for_backward(matrix, flat)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Mᵀ g, and Σ g xᵀ over all sequences and channels."""
        matrix, x = ctx.saved_tensors
        flat = grad.reshape(x.shape)
        grad_matrix = grad_x = None
        if ctx.needs_input_grad[0]:
            rows, columns = (part.transpose(0, 1).reshape(len(matrix), -1) for part in (flat, x))
            grad_matrix = torch.zeros_like(matrix)
            for first, last in _blocks(len(matrix)):
                grad_matrix[first:last, :last] = rows[first:last] @ columns[:last].T
        if ctx.needs_input_grad[1]:
            grad_x = torch.empty_like(x)
            for first, last in _blocks(len(matrix)):
                grad_x[:, first:last] = matrix[first:, first:last].T.expand(len(x), -1, -1) @ flat[:, first:]
            grad_x = grad_x.view(grad.shape)
        return grad_matrix, grad_x


def _blocks(length: int) -> list[tuple[int, int]]:
    """Blocks of at most :data:`BLOCK_SIZE` positions, of about equal length."""
    size = math.ceil(length / math.ceil(length / BLOCK_SIZE))
    return [(first, min(first + size, length)) for first in range(0, length, size)]


def fft_product(taps: Tensor, x: Tensor) -> Tensor:
    """:func:`toeplitz_product` by the FFT: O(s log s) time and O(s) memory for any number of taps."""
    length = x.shape[-2]
    size = 2 * 64 * math.ceil(length / 64)  # room for the tail of the convolution; without large prime factors
    return _circular_convolution(taps, x, size)


def _circular_convolution(taps: Tensor, x: Tensor, size: int) -> Tensor:
    """The first s rows of the circular convolution of ``size`` positions, by the FFT."""
    spectrum = torch.fft.rfft(x.mT.to(taps.dtype), n=size) * torch.fft.rfft(taps, n=size).unsqueeze(1)
    y: Tensor = torch.fft.irfft(spectrum, n=size)
    return y[..., : x.shape[-2]].mT.to(x.dtype).contiguous()


def circular_product(taps: Tensor, x: Tensor) -> Tensor:
    """y_t = Σ_s taps[(t − s) mod T] x_s, a circular convolution of T ≥ s positions, of which those behind x are 0.

    Args:
        taps: Weights by lag, shape (g, T).
        x: Shape (b, g, s, c), or (b, any, s, c) if g is 1.

    Returns:
        Tensor of the shape of ``x``.
    """
    length, size = x.shape[-2], taps.shape[-1]
    if _is_per_channel(taps, x):
        if length <= CHANNEL_DENSE_LENGTH:
            return channel_product(circulant_matrix(taps, length).to(x.dtype), x, [(0, length)])
        return channel_convolution(taps, x.to(taps.dtype), size).to(x.dtype)
    if length <= DENSE_LENGTH:
        return torch.einsum("gts,bgsc->bgtc", circulant_matrix(taps, length), x)
    return _circular_convolution(taps, x, size)


def _is_per_channel(weights: Tensor, x: Tensor) -> bool:
    """Whether there are many kernels, one for each channel."""
    return len(weights) > 1 and x.shape[-1] == 1


def blocked_band_product(band: Tensor, x: Tensor) -> Tensor:
    """y_t = Σ_k band[t, k] x_{t−k} block by block: O(s (w + p)) time and memory.

    A block of p ≥ w positions depends on itself and on the block before it.

    Args:
        band: Weights by position and lag, shape (g, s, w), or (g, 1, w) where all positions share their weights.
        x: Shape (b, g, s, c), or (b, any, s, c) if g is 1.

    Returns:
        Tensor of the shape of ``x``.
    """
    length, (n_groups, rows, width) = x.shape[-2], band.shape
    p = max(BLOCK_SIZE, width)
    n_blocks = math.ceil(length / p)
    filled = n_blocks * p - length
    band = F.pad(band, (0, 0, 0, filled)).view(n_groups, n_blocks, p, width) if rows > 1 else band.unsqueeze(1)
    lag = p + torch.arange(p, device=x.device)[:, None] - torch.arange(2 * p, device=x.device)
    index = lag.clamp(0, width - 1).expand(*band.shape[:2], -1, -1)
    weights = band.expand(-1, -1, p, -1).gather(-1, index).masked_fill((lag < 0) | (lag >= width), 0.0)
    two_blocks = F.pad(x, (0, 0, p, filled)).unfold(-2, 2 * p, p).mT  # (b, g, n, 2p, c)
    return (weights @ two_blocks).flatten(-3, -2)[..., :length, :]


def recurrent_product(within: Tensor, write: Tensor, carry: Tensor, read: Tensor, x: Tensor) -> Tensor:
    """A linear recurrence, block by block: dense inside a block, with a state of shape (r, c) between blocks.

    y_n = within_n x_n + read_n Σ_{m < n} carry[n, m] ⊙ (write_m x_m) for block n. With p = :func:`square_root_blocks`
    positions a block, the four matrices have O(s) entries where the blocks share them.

    Args:
        within: From a block to itself, shape (g, n, p, p), or (g, 1, p, p) if all blocks share it.
        write: From a block to the state, shape (g, n, r, p) or (g, 1, r, p).
        carry: From the state of block m to block n, shape (g, r, n, n), strictly lower triangular.
        read: From the state to a block, shape (g, n, p, r) or (g, 1, p, r).
        x: Shape (b, g, s, c), or (b, any, s, c) if g is 1.

    Returns:
        Tensor of the shape of ``x``.
    """
    length, p, n_blocks = x.shape[-2], within.shape[-1], carry.shape[-1]
    blocks: Tensor = F.pad(x, (0, 0, 0, n_blocks * p - length)).unflatten(-2, (n_blocks, p))  # (b, g, n, p, c)
    written = (write @ blocks).transpose(-3, -2)  # (b, g, r, n, c)
    state = (carry @ written).transpose(-3, -2)
    return (within @ blocks + read @ state).flatten(-3, -2)[..., :length, :]


def square_root_blocks(length: int) -> tuple[int, int]:
    """Blocks of √s positions for :func:`recurrent_product`: their number n and their size p, n p ≥ s."""
    p = math.isqrt(length - 1) + 1
    return math.ceil(length / p), p
