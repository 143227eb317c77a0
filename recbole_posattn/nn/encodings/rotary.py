"""Rotary positions: queries and keys are rotated by their position."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_posattn.nn.encodings.base import PositionEncoding, angles


class RotaryEncoding(PositionEncoding):
    """Rotary positions, RoPE (Su et al., arXiv 2104.09864, §3.2), in the rotate-half convention.

    Channels i and i + d_h / 2 of position t are rotated by the angle t / base^(2i / d_h), so that the product of a
    query and a key depends on the distance of their positions alone.

    Args:
        max_length: The longest sequence, in positions.
        head_size: Channels d_h, an even number.
        base: The longest wavelength is 2π · base.

    Raises:
        ValueError: If ``head_size`` is odd.
    """

    name = "rope"
    enters = "query_key"
    cos: Tensor
    sin: Tensor

    def __init__(self, max_length: int, head_size: int, base: float = 10000.0) -> None:
        super().__init__()
        if head_size % 2:
            raise ValueError(f"head_size must be even, since channels are rotated in pairs, got {head_size}")
        angle = angles(max_length, head_size, base)
        self.register_buffer("cos", angle.cos(), persistent=False)  # float64; cast to the type of x when used
        self.register_buffer("sin", angle.sin(), persistent=False)

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        """See :meth:`PositionEncoding.rotate`."""
        cos, sin = (table[first : first + x.shape[-2]].to(x.dtype) for table in (self.cos, self.sin))
        return rotated_halves(x, cos, sin)


def rotated_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (…, d_h) with channels i and i + d_h / 2 rotated by angles of cosines and sines (…, d_h / 2)."""
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], dim=-1)
