"""Positional encodings that can stand beside, or instead of, a positional kernel.

Shape keys: b batch, s sequence length, d hidden size.
"""

from __future__ import annotations

from torch import Tensor, nn

from recbole_posattn.position.kernels import ALIGNMENTS, Alignment

POSITION_ENCODINGS = ("absolute",)


class AbsolutePositionEncoding(nn.Module):
    """A learned embedding of each position, added to the input (the classic SASRec, arXiv 1808.09781, §III-A).

    Args:
        max_length: The longest sequence, in positions.
        hidden_size: Channels d.
        alignment: Whether a shorter sequence takes the last positions (``end``) or the first (``start``).

    Raises:
        ValueError: If ``alignment`` is unknown.
    """

    lag_only = False

    def __init__(self, max_length: int, hidden_size: int, alignment: Alignment = "end") -> None:
        super().__init__()
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {ALIGNMENTS}, got {alignment!r}")
        self.alignment = alignment
        self.embedding = nn.Embedding(max_length, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x + E for x of shape (b, s, d).

        Raises:
            ValueError: If the sequence is longer than ``max_length``.
        """
        length, max_length = x.shape[-2], self.embedding.num_embeddings
        if length > max_length:
            raise ValueError(f"length must be at most {max_length} (max_length), got {length}")
        weight = self.embedding.weight
        return x + (weight[:length] if self.alignment == "start" else weight[max_length - length :])
