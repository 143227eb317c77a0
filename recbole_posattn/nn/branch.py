"""A kernel over positions as a path of its own beside the attention, or in its place.

    y = γ ⊙ dropout(M x)

M mixes the positions of a block's normalized input, group by group of channels, and γ weighs each channel; both are
learned. Filters over positions such as FMLP-Rec's (arXiv 2202.13556) are this branch without an attention.

Shape keys: b batch, s sequence length, d hidden size, g kernel groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_posattn.nn.dropout import Dropout
from recbole_posattn.nn.kernels.base import PositionKernel
from recbole_posattn.nn.times import Times


class KernelBranch(nn.Module):
    """γ ⊙ dropout(M x).

    Args:
        kernel: M.
        hidden_size: Channels d; a multiple of the kernel's groups.
        dropout: Probability of zeroing an element of M x during training.
        gated: Whether there is a γ, which starts at 1; without it γ = 1 for good.
        mixes_padding: Whether the rows at padding are mixed into the items; otherwise they count as 0.

    Raises:
        ValueError: If the kernel's groups do not divide ``hidden_size``.
    """

    def __init__(
        self,
        kernel: PositionKernel,
        hidden_size: int,
        dropout: float = 0.0,
        gated: bool = True,
        mixes_padding: bool = False,
    ) -> None:
        super().__init__()
        if hidden_size % kernel.n_groups:
            raise ValueError(f"n_groups is {kernel.n_groups}, which does not divide {hidden_size} channels")
        self.kernel = kernel
        self.dropout = Dropout(dropout)
        self.gate = nn.Parameter(torch.ones(hidden_size)) if gated else None
        self.mixes_padding = mixes_padding

    def forward(
        self, x: Tensor, valid: Tensor | None = None, last_only: bool = False, times: Times | None = None
    ) -> Tensor:
        """Mix positions.

        Args:
            x: Shape (b, s, d).
            valid: Shape (b, s), False at padding; ``None`` where padding cannot reach the items.
            last_only: Whether only the last position is needed.
            times: Times of the items; ``None`` if the kernel does not read them, or for items at equal distances.

        Returns:
            Tensor of shape (b, s, d), or (b, 1, d) if ``last_only``.
        """
        if valid is not None and not self.mixes_padding:
            x = x.masked_fill(~valid[:, :, None], 0.0)
        timed = (times,) if self.kernel.reads_time else ()
        mixed: Tensor = self.dropout(self._last(x, *timed) if last_only else self.kernel(x, *timed))
        return mixed if self.gate is None else self.gate * mixed

    def _last(self, x: Tensor, *timed: Times | None) -> Tensor:
        row = self.kernel.last_row(x.shape[1], *timed)
        if row.shape[-2] == 1:
            return row @ x
        by_group = x.unflatten(-1, (row.shape[-2], -1))
        return torch.einsum("bgs,bsgc->bgc", row.expand(x.shape[0], -1, -1), by_group).flatten(1).unsqueeze(1)

    def effective(self, length: int | None = None) -> Tensor:
        """γ M, with the mean of γ over the channels of a group; shape (g, s, s), see :meth:`PositionKernel.dense`."""
        matrix = self.kernel.dense(length)
        return matrix if self.gate is None else self._gate_of_groups(self.gate)[..., None] * matrix

    def effective_last_row(self, length: int | None = None) -> Tensor:
        """The last row of :meth:`effective`, shape (g, s), without the matrix."""
        row = self.kernel.last_row(length)
        return row if self.gate is None else self._gate_of_groups(self.gate) * row

    def _gate_of_groups(self, gate: Tensor) -> Tensor:
        return gate.view(self.kernel.n_groups, -1).mean(dim=-1, keepdim=True)
