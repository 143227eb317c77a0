"""The kernels of a model as tables: their matrices, their weights by lag, and how far they reach.

U mixes the keys, L the values, and C = U L is the positional kernel (arXiv 2602.21052). Position 0 is the oldest of the
T = ``MAX_ITEM_LIST_LENGTH`` positions. The *branch* is γ M, what is added beside the attention or in its place;
γ is the mean over the channels of a group. A *lag* is how many positions back a weight reaches: L[t, t − k] and
(Uᵀ)[t, t − k] have lag k ≥ 0. C is not triangular: C[i, j] has lag i − j, of either sign, as have filters over
frequencies.

Shape keys: g kernel groups, T positions.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_posattn.analysis.switches import BRANCH_PART, KERNEL_PARTS
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.kernels.base import IdentityKernel

# The names of the matrices, in the order in which they are shown.
MATRICES = ("U", "L", "C", BRANCH_PART)

# Kernels with more groups than this are shown as the mean of them all, group 0.
MAX_GROUPS = 8


@torch.no_grad()
def kernel_matrices(model: SASRecBase) -> dict[tuple[int, str], Tensor]:
    """The matrices of each layer, by layer (from 1) and name: ``U``, ``L``, ``C``, ``branch``.

    A kernel that is the identity is left out, and so is C if it equals the other kernel.

    Returns:
        Tensors of shape (g, T, T).
    """
    matrices: dict[tuple[int, str], Tensor] = {}
    for layer, block in enumerate(model.backbone.blocks, start=1):
        attention = block.attention
        has_kernels = isinstance(attention, PositionKernelAttention)
        learned = {name: getattr(attention, of) for name, of in KERNEL_PARTS.items()} if has_kernels else {}
        dense = {name: kernel.dense() for name, kernel in learned.items() if not isinstance(kernel, IdentityKernel)}
        if "U" in dense:
            dense["U"] = dense["U"].mT  # the module holds Uᵀ
        if len(dense) == 2:
            dense["C"] = dense["U"] @ dense["L"]
        if isinstance(block.branch, KernelBranch):
            dense[BRANCH_PART] = block.branch.effective()
        matrices |= {(layer, name): matrix.cpu() for name, matrix in dense.items()}
    return matrices


def kernel_table(model: SASRecBase) -> pd.DataFrame:
    """Every entry of :func:`kernel_matrices`.

    Returns:
        Columns ``layer`` (from 1), ``kernel``, ``group`` (from 1; 0 is the mean of more than :data:`MAX_GROUPS`),
        ``row`` and ``column`` (positions from 0, the oldest) and ``weight``.
    """
    tables = []
    for (layer, kernel), matrix in kernel_matrices(model).items():
        shown, groups = shown_groups(matrix)
        group, row, column = np.indices(shown.shape).reshape(3, -1)
        entries = {"group": np.array(groups)[group], "row": row, "column": column, "weight": shown.flatten().numpy()}
        tables.append(pd.DataFrame({"layer": layer, "kernel": kernel, **entries}))
    columns = ["layer", "kernel", "group", "row", "column", "weight"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def shown_groups(matrix: Tensor) -> tuple[Tensor, list[int]]:
    """The groups of a kernel (g, T, T) to show, and their numbers from 1; 0 for the mean of many groups."""
    if len(matrix) > MAX_GROUPS:
        return matrix.mean(dim=0, keepdim=True), [0]
    return matrix, list(range(1, len(matrix) + 1))


def lag_profiles(model: SASRecBase) -> pd.DataFrame:
    """The weights of each kernel by lag, as the mean over all positions.

    Returns:
        Columns ``layer``, ``kernel``, ``group`` (all from 1), ``lag``, ``weight`` (mean of the entries of that lag)
        and ``magnitude`` (mean of their absolute values).
    """
    tables = []
    for (layer, kernel), matrix in kernel_matrices(model).items():
        size, towards = matrix.shape[-1], 1 if kernel == "U" else -1  # torch counts diagonals to the right
        both_ways = kernel == "C" or (kernel == BRANCH_PART and not torch.equal(matrix, matrix.tril()))
        for lag in range(1 - size if both_ways else 0, size):
            entries = matrix.diagonal(towards * lag, dim1=-2, dim2=-1)
            weights = {"weight": entries.mean(dim=-1).numpy(), "magnitude": entries.abs().mean(dim=-1).numpy()}
            groups = {"group": range(1, len(matrix) + 1), "lag": lag}
            tables.append(pd.DataFrame({"layer": layer, "kernel": kernel, **groups, **weights}))
    columns = ["layer", "kernel", "group", "lag", "weight", "magnitude"]
    if not tables:
        return pd.DataFrame(columns=columns)
    by_group = ["layer", "kernel", "group"]
    profiles = [rows for _, rows in pd.concat(tables).groupby(by_group, sort=False)]  # in the order U, L, C, branch
    return pd.concat(profiles, ignore_index=True)


def kernel_reach(profiles: pd.DataFrame) -> pd.DataFrame:
    """How far each kernel reaches, from its mass by distance: the magnitudes of the lags ±k together, over all groups.

    Args:
        profiles: See :func:`lag_profiles`.

    Returns:
        Columns ``layer``, ``kernel``, ``lag_0_share`` (of the mass, at distance 0), ``half_life`` (the distance at
        which the mass first falls to half of what it is at distance 0, linear between distances; missing if it never
        does), ``mean_lag`` (mean distance of the mass) and ``bandwidth_90`` (the nearest distances, 0 included, that
        hold 90 % of the mass).
    """
    rows = []
    for (layer, kernel), profile in profiles.groupby(["layer", "kernel"], sort=False):
        mass = profile.groupby(profile["lag"].abs())["magnitude"].sum().to_numpy()  # by distance 0, 1, …
        share = mass / mass.sum()
        rows.append(
            {
                "layer": layer,
                "kernel": kernel,
                "lag_0_share": share[0],
                "half_life": half_life(mass),
                "mean_lag": share @ np.arange(len(share)),
                "bandwidth_90": 1 + int(np.argmax(share.cumsum() >= 0.9 - 1e-12)),
            }
        )
    return pd.DataFrame(rows, columns=["layer", "kernel", "lag_0_share", "half_life", "mean_lag", "bandwidth_90"])


def half_life(mass: np.ndarray) -> float:
    """The distance at which the mass by distance, 0 first, falls to half of its first value; NaN if it never does."""
    half = mass[0] / 2
    below = np.flatnonzero(mass <= half)
    if not len(below) or not below[0]:
        return float("nan")
    after, before = mass[below[0]], mass[below[0] - 1]
    return float(below[0] - (half - after) / (before - after))
