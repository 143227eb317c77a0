"""What the kernels of a model have learned, for a log of its training.

Shape keys: g kernel groups, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.kernels.base import IdentityKernel, PositionKernel
from recbole_posattn.nn.kernels.by_frequency import CircularKernel


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
        parts: dict[str, tuple[PositionKernel, Tensor, Callable[[], Tensor]]] = {}
        for part, name in (("U", "u_kernel"), ("L", "l_kernel")):
            kernel = getattr(block.attention, name, None)
            if kernel is not None and not isinstance(kernel, IdentityKernel):
                parts[part] = kernel, kernel.last_row(), kernel.dense
        if isinstance(branch := block.branch, KernelBranch):
            parts["branch"] = branch.kernel, branch.effective_last_row(), branch.effective
        for part, (kernel, last_row, matrix) in parts.items():
            mass = _mass_of_lags(kernel, last_row) if _has_one_weight_per_lag(kernel) else _mass_by_lag(matrix())
            share = mass / mass.sum()
            mean_lag = float(share @ torch.arange(len(share), dtype=share.dtype, device=share.device))
            yield KernelSummary(f"layer_{layer}/{part}", last_row, mean_lag, float(share[0]))


def _has_one_weight_per_lag(kernel: PositionKernel) -> bool:
    return kernel.lag_only or isinstance(kernel, CircularKernel)


def _mass_of_lags(kernel: PositionKernel, last_row: Tensor) -> Tensor:
    """:func:`_mass_by_lag` from the last row alone: g matrices of T × T would be larger than all else in training."""
    mass = last_row.abs().mean(dim=0).flip(0)
    # A kernel that looks ahead is circular: its lag −k has the weight of the lag T − k.
    return mass if kernel.causal else torch.cat([mass[:1], mass[1:] + mass[1:].flip(0)])


def _mass_by_lag(matrix: Tensor) -> Tensor:
    """Mean magnitude of the entries of each lag, over all groups, of the lags ±k together; shape (T,)."""
    magnitude = matrix.abs().mean(dim=0)
    position = torch.arange(len(magnitude), device=matrix.device)
    lag = (position[:, None] - position).abs()
    sums = magnitude.new_zeros(len(magnitude)).index_add(0, lag.flatten(), magnitude.flatten())
    return sums / (len(magnitude) - position)
