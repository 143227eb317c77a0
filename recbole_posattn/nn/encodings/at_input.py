"""Encodings that are added to embeddings: at the input of the model, or of each attention."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from recbole_posattn.nn.encodings.base import Place, PositionEncoding, angles
from recbole_posattn.nn.kernels.base import Alignment, aligned, checked_alignment


class AddedPositions(PositionEncoding):
    """Base class of the encodings that add a vector to each position, x + E, where ``enters`` says.

    Args:
        max_length: The longest sequence, in positions.
        alignment: Whether a shorter sequence takes the last positions (``end``) or the first (``start``).

    Raises:
        ValueError: If ``alignment`` is unknown.
    """

    lag_only = False

    def __init__(self, max_length: int, alignment: Alignment = "end") -> None:
        super().__init__()
        self.max_length = max_length
        self.alignment = checked_alignment(alignment)

    def table(self) -> Tensor:
        """E, shape (``max_length``, d)."""
        raise NotImplementedError

    def at_input(self, x: Tensor) -> Tensor:
        """See :meth:`PositionEncoding.at_input`."""
        return self._add(x) if self.enters == "input" else x

    def at_attention_input(self, x: Tensor, first: int = 0) -> Tensor:
        """See :meth:`PositionEncoding.at_attention_input`."""
        return self._add(x, first) if self.enters == "attention_input" else x

    def _add(self, x: Tensor, first: int = 0) -> Tensor:
        length = first + x.shape[-2]
        if length > self.max_length:
            raise ValueError(f"length must be at most {self.max_length} (max_length), got {length}")
        return x + self.table()[aligned(self.alignment, length, self.max_length)][first:]


class AbsoluteEncoding(AddedPositions):
    """A learned embedding of each position, added to the input (the classic SASRec, arXiv 1808.09781, §III-A).

    Args:
        max_length: See :class:`AddedPositions`.
        hidden_size: Channels d.
        alignment: See :class:`AddedPositions`.
    """

    name = "absolute"
    enters: ClassVar[Place] = "input"

    def __init__(self, max_length: int, hidden_size: int, alignment: Alignment = "end") -> None:
        super().__init__(max_length, alignment)
        self.embedding = nn.Embedding(max_length, hidden_size)

    def table(self) -> Tensor:
        """See :meth:`AddedPositions.table`."""
        return self.embedding.weight


class AllAbsoluteEncoding(AbsoluteEncoding):
    """A learned embedding of each position, added to the inputs of Q, K and V inside every block (ALL-APE of
    arXiv 2602.21052): softmax((X_q + E) W_Q ((X + E) W_K)ᵀ / √d_h) (X + E) W_V.
    """

    name = "all_absolute"
    enters = "attention_input"


class SinusoidalEncoding(AddedPositions):
    """Fixed sines and cosines added to the input (Vaswani et al., arXiv 1706.03762, §3.5).

    E[t, 2i] = sin(t / base^(2i / d)), E[t, 2i + 1] = cos(t / base^(2i / d)).

    Args:
        max_length: See :class:`AddedPositions`.
        hidden_size: Channels d.
        alignment: See :class:`AddedPositions`.
        base: The longest wavelength is 2π · base.
    """

    name = "sinusoidal"
    enters = "input"
    waves: Tensor

    def __init__(self, max_length: int, hidden_size: int, alignment: Alignment = "end", base: float = 10000.0) -> None:
        super().__init__(max_length, alignment)
        angle = angles(max_length, hidden_size, base)
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[:, :hidden_size]
        self.register_buffer("waves", waves.to(torch.get_default_dtype()), persistent=False)

    def table(self) -> Tensor:
        """See :meth:`AddedPositions.table`."""
        return self.waves
