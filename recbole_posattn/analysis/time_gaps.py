"""What a model has learned about the time between items: its weights, and its attention, by time gap.

Shape keys: b batch, h heads, s sequence length, g kernel groups, n gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_posattn.analysis.attended import counted_rows, n_positions, split_for_attention, with_and_without
from recbole_posattn.analysis.attention_maps import from_itself
from recbole_posattn.analysis.switches import BRANCH_PART, KERNEL_PARTS, attentions_of
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.branch import KernelBranch
from recbole_posattn.nn.encodings.of_time import TimeBiasEncoding
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel

# Gaps are shown by half powers of ten, in seconds: simultaneous items and those less than a second apart, then 1 s to
# 3.2 s, and so on; a century is the longest.
EDGES = np.concatenate([[0.0], 10.0 ** np.arange(0, 10, 0.5)])

_WEIGHT_COLUMNS = ["layer", "part", "group", "gap", "weight"]
_ATTENTION_COLUMNS = ["layer", "head", "gap", "bias", "attention", "attention_without", "pairs"]


@torch.no_grad()
def weights_by_gap(model: SASRecBase) -> pd.DataFrame:
    """The weights that a model has learned for times between items, at the gaps of :data:`EDGES`.

    Returns:
        Columns ``layer``, ``part`` (``U``, ``L`` and ``branch`` with the structure ``time_decay``, ``time_bias``),
        ``group`` (of channels, or head; both from 1), ``gap`` (in seconds) and ``weight``: of a kernel, that of an item
        that long ago (the branch with the mean γ of its channels); of ``time_bias``, what is added to the logit.
    """
    gap = torch.from_numpy(EDGES).to(model.item_embedding.weight.device)
    tables = []
    for layer, block in enumerate(model.backbone.blocks, start=1):
        for part, weights in _weights_of(block, gap).items():
            group, place = np.indices(weights.shape).reshape(2, -1)
            values = {"group": group + 1, "gap": EDGES[place], "weight": weights.flatten().cpu().numpy()}
            tables.append(pd.DataFrame({"layer": layer, "part": part, **values}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_WEIGHT_COLUMNS)


def _weights_of(block: Any, gap: Tensor) -> dict[str, Tensor]:
    """The weights of a block's parts that read time, each of shape (g or h, n)."""
    found: dict[str, Tensor] = {}
    if isinstance(block.attention, PositionKernelAttention):
        kernels = {part: getattr(block.attention, name) for part, name in KERNEL_PARTS.items()}
        found |= {
            part: kernel.weights_at(gap) for part, kernel in kernels.items() if isinstance(kernel, TimeDecayKernel)
        }
    for encoding in block.modules():  # HSTU's attention has one as well
        if isinstance(encoding, TimeBiasEncoding):
            found[encoding.name] = encoding.weight[:, encoding.bucket(gap).long()]
    branch = block.branch
    if isinstance(branch, KernelBranch) and isinstance(branch.kernel, TimeDecayKernel):
        weights = branch.kernel.weights_at(gap)
        gate = 1.0 if branch.gate is None else branch.gate.view(len(weights), -1).mean(dim=-1, keepdim=True)
        found[BRANCH_PART] = gate * weights
    return found


@torch.no_grad()
def attention_by_gap(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str], times: Tensor | None
) -> pd.DataFrame:
    """The attention of a model, and the change of its logits by its positional parts, by the time between two items.

    As :func:`recbole_posattn.analysis.attention_maps.positional_bias`, by time gap instead of lag; an item is
    not paired with itself.

    Args:
        model: A model of this package.
        items: Histories as ``SASRecBase.forward`` takes them, shape (n, s).
        lengths: Shape (n,).
        parts: The positional parts, see :func:`recbole_posattn.analysis.switches.positional_parts`.
        times: Of the items, shape (n, s); ``None`` if the model does not read them.

    Returns:
        Columns ``layer``, ``head`` (both from 1), ``gap`` (the shortest of its kind, in seconds, of :data:`EDGES`),
        ``bias``, ``attention`` and ``attention_without`` (means) and ``pairs`` (how many they are of).
    """
    attentions = attentions_of(model)
    if not attentions or times is None:
        return pd.DataFrame(columns=_ATTENTION_COLUMNS)
    edges = torch.from_numpy(EDGES[1:]).to(model.item_embedding.weight.device)
    sums = torch.zeros(3, len(attentions), attentions[0].n_heads, len(EDGES), dtype=torch.float64)
    pairs = torch.zeros(len(EDGES), dtype=torch.float64)
    for batch, length, of_batch in split_for_attention(model, items, lengths, times):
        held = counted_rows(model, length, n_before=0)
        earlier = (held[:, :, None] & held[:, None, :]).tril(-1)
        aligned = model._align_times(of_batch, length, n_positions(model, length))
        assert aligned is not None
        kind = torch.bucketize(aligned[:, :, None] - aligned[:, None, :], edges, right=True)[earlier]
        pairs += torch.bincount(kind, minlength=len(EDGES)).cpu()
        for index, (attended, without) in enumerate(with_and_without(model, batch, length, parts, of_batch)):
            change = from_itself(attended.logits - without.logits)
            for number, values in enumerate((change, attended.weights, without.weights)):
                for place, of_head in enumerate(values.double().unbind(1)):
                    total = torch.bincount(kind, weights=of_head[earlier], minlength=len(EDGES))
                    sums[number, index, place] += total.cpu()
    layer, head, gap = np.indices(sums.shape[1:]).reshape(3, -1)
    bias, attention, attention_without = (sums / pairs).flatten(1).numpy()
    table = {"layer": layer + 1, "head": head + 1, "gap": EDGES[gap], "bias": bias}
    weights = {"attention": attention, "attention_without": attention_without}
    return pd.DataFrame({**table, **weights, "pairs": pairs.long().numpy()[gap]}).dropna(ignore_index=True)
