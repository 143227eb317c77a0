"""What the kernels of a model have learned, for a log of its training.

Shape keys: g kernel groups, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.kernels.base import IdentityKernel


class KernelSummary(NamedTuple):
    """A kernel at some time of its training.

    Attributes:
        name: Its layer, from 1, and its part, such as ``layer_1/U``.
        last_row: Weights of all positions at the newest one, the last row of Uᵀ, L or γ M; shape (g, T).
        mean_lag: The mean distance of its weights, by magnitude, from the position that they are added to.
        lag_0_share: The share of the magnitudes at that position itself.
    """

    name: str
    last_row: Tensor
    mean_lag: float
    lag_0_share: float


@torch.no_grad()
def kernel_summaries(model: SASRecBase) -> Iterator[KernelSummary]:
    """Summaries of the kernels and branches of each layer, except for those that are the identity."""
    for layer, block in enumerate(model.backbone.blocks, start=1):
        matrices = {}
        for part, kernel in (("U", "u_kernel"), ("L", "l_kernel")):
            found = getattr(block.attention, kernel, None)
            if found is not None and not isinstance(found, IdentityKernel):
                matrices[part] = found.dense()
        if isinstance(block.branch, KernelBranch):
            matrices["branch"] = block.branch.effective()
        for part, matrix in matrices.items():
            mass = _mass_by_lag(matrix)
            share = mass / mass.sum()
            mean_lag = float(share @ torch.arange(len(share), dtype=share.dtype, device=share.device))
            yield KernelSummary(f"layer_{layer}/{part}", matrix[:, -1], mean_lag, float(share[0]))


def _mass_by_lag(matrix: Tensor) -> Tensor:
    """Mean magnitude of the entries of each lag, over all groups, of the lags ±k together; shape (T,)."""
    magnitude = matrix.abs().mean(dim=0)
    position = torch.arange(len(magnitude), device=matrix.device)
    lag = (position[:, None] - position).abs()
    sums = magnitude.new_zeros(len(magnitude)).index_add(0, lag.flatten(), magnitude.flatten())
    return sums / (len(magnitude) - position)
