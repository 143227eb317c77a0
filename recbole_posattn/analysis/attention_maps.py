"""Attention maps of a trained model, with its positional parts and without them.

Measured on the histories of held-out targets: average attention maps by history length, and the positional bias, the
change of the logits by lag. The bias is defined alike for kernels, biases, rotations and embeddings, so that these can
be compared.

Shape keys: b batch, h heads, s sequence length, w positions shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_posattn.analysis.attended import (
    Attended,
    counted_rows,
    first_positions,
    n_positions,
    split_for_attention,
    with_and_without,
)
from recbole_posattn.analysis.switches import attentions_of
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention
from recbole_posattn.nn.kernels.by_time import TimeDecayKernel

# Number of newest positions in a map.
MAP_POSITIONS = 32

KINDS = ("without positions", "attention", "attention · L")


@torch.no_grad()
def attention_maps(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str], times: Tensor | None = None
) -> pd.DataFrame:
    """The mean attention weights by history length, of the newest :data:`MAP_POSITIONS` positions.

    Args:
        model: A model of this package.
        items: Histories as ``SASRecBase.forward`` takes them, shape (n, s).
        lengths: Shape (n,); histories of a single item are ignored.
        parts: The positional parts, see :func:`recbole_posattn.analysis.switches.positional_parts`.
        times: Of the items, shape (n, s), if the model reads them.

    Returns:
        Columns ``history`` (its length, such as ``9–16``), ``histories`` (their number), ``layer``, ``head``
        (both from 1), ``kind``, ``query`` and ``key`` (positions before the newest, 0) and ``weight``, the mean over
        the histories that are long enough. The ``kind`` ``without positions`` is the attention with all
        positional parts of its layer switched off, and ``attention · L`` the share of each position in the output
        Y = (P L) V: |P L| over its sum in the row, where L is not the identity.
    """
    tables = []
    for name, index in history_buckets(lengths) if attentions_of(model) else ():
        table = _mean_maps(model, items[index], lengths[index], parts, None if times is None else times[index])
        tables.append(table.assign(history=name, histories=len(index)))
    columns = ["history", "histories", "layer", "head", "kind", "query", "key", "weight"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def history_buckets(lengths: Tensor) -> list[tuple[str, Tensor]]:
    """Histories of 2–8, 9–16, 17–32, … items: the name and the int64 indices of each non-empty bucket."""
    buckets = torch.log2(lengths.clamp(min=8)).ceil().int()
    named = []
    for bucket in buckets.unique().tolist():
        index = torch.nonzero((buckets == bucket) & (lengths > 1)).flatten()
        if len(index):
            longest = min(2**bucket, int(lengths.max()))
            named.append((f"{2 if bucket == 3 else 2 ** (bucket - 1) + 1}–{longest}", index))
    return named


def _mean_maps(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str], times: Tensor | None
) -> pd.DataFrame:
    shown = min(MAP_POSITIONS, int(lengths.max()))
    sums: dict[tuple[int, str], Tensor] = {}
    counts = torch.zeros(shown, shown)
    for batch, length, of_batch in split_for_attention(model, items, lengths, times):
        counts += _reaches(length, shown).sum(dim=0).cpu()
        pairs = with_and_without(model, batch, length, parts, of_batch)
        for layer, (attention, (attended, without)) in enumerate(zip(attentions_of(model), pairs), start=1):
            maps = {KINDS[0]: without.weights, KINDS[1]: attended.weights}
            if "L" in parts:
                held = counted_rows(model, length, n_before=0)
                maps[KINDS[2]] = _output_shares(attention, attended, held)
            for kind, weights in maps.items():
                newest = _newest_first(weights, first_positions(model, length), length, shown).sum(dim=0).cpu()
                sums[layer, kind] = sums.get((layer, kind), 0) + newest
    tables = []
    for (layer, kind), total in sums.items():
        head, query, key = np.indices(total.shape).reshape(3, -1)
        mean = (total / counts).flatten().numpy()
        places = {"head": head + 1, "kind": kind, "query": query, "key": key}
        tables.append(pd.DataFrame({"layer": layer, **places, "weight": mean}))
    return pd.concat(tables, ignore_index=True).dropna()


def _output_shares(attention: PositionKernelAttention, attended: Attended, held: Tensor) -> Tensor:
    """|P L| over its sum in each row, shape (b, h, s, s): the share of each position in an output.

    ``held`` says which positions hold an item, shape (b, s). L does not mix the values of the others, not even in a
    model whose queries attend to padding (``attend_padding``).
    """
    weights = attended.weights
    h, s = weights.shape[1], weights.shape[-1]
    kernel = attention.l_kernel
    if isinstance(kernel, TimeDecayKernel) and attended.times is not None:
        l_matrix = kernel.at(attended.times)
    else:
        l_matrix = kernel.dense(s)
    if l_matrix.shape[-3] > 1:  # one kernel per head, or per channel: the mean over the channels of a head
        l_matrix = l_matrix.unflatten(-3, (h, -1)).mean(dim=-3)
    shares = (weights @ l_matrix).abs() * (attended.mask & held[:, None, None, :])
    return shares / shares.sum(dim=-1, keepdim=True).clamp(min=1e-30)


def _reaches(length: Tensor, shown: int) -> Tensor:
    """Whether a history has the positions query and key, counted back, with no key after the query; shape (b, w, w)."""
    back = torch.arange(shown, device=length.device)
    inside = back < length[:, None]
    return inside[:, :, None] & inside[:, None, :] & (back[None, :] >= back[:, None])


def _newest_first(weights: Tensor, first: Tensor, length: Tensor, shown: int) -> Tensor:
    """Weights (b, h, s, s) by positions before the newest, 0 where the history is too short; shape (b, h, w, w)."""
    back = torch.arange(shown, device=length.device)
    position = (first + length - 1)[:, None] - back  # negative before the history, which is masked below
    rows = position.clamp(min=0)[:, None, :, None].expand(-1, weights.shape[1], -1, weights.shape[-1])
    columns = position.clamp(min=0)[:, None, None, :].expand(-1, weights.shape[1], shown, -1)
    return weights.gather(2, rows).gather(3, columns) * _reaches(length, shown)[:, None]


@torch.no_grad()
def positional_bias(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str], times: Tensor | None = None
) -> pd.DataFrame:
    """The change of a model's logits by its positional parts, by lag.

    In each layer, the logit of the key k positions back minus that of the query's own position, with all positional
    parts minus without them: for ALiBi exactly −m k, for T5 the difference of its learned biases, for kernels,
    rotations and embeddings the mean over these histories. The table also has the mean attention weights.

    Args:
        model: A model of this package.
        items: Histories as ``SASRecBase.forward`` takes them, shape (n, s).
        lengths: Shape (n,).
        parts: The positional parts, see :func:`recbole_posattn.analysis.switches.positional_parts`.
        times: See :func:`attention_maps`.

    Returns:
        Columns ``layer``, ``head`` (both from 1), ``lag``, ``bias`` (in logits), ``attention`` and
        ``attention_without`` (mean weights) and ``pairs`` (queries with a key at that lag; the means are over these).
    """
    attentions = attentions_of(model)
    if not attentions:
        return pd.DataFrame(columns=["layer", "head", "lag", "bias", "attention", "attention_without", "pairs"])
    n_layers, n_heads = len(attentions), attentions[0].n_heads
    longest = n_positions(model, lengths)
    sums = torch.zeros(3, n_layers, n_heads, longest, dtype=torch.float64)
    pairs = torch.zeros(longest, dtype=torch.float64)
    for batch, length, of_batch in split_for_attention(model, items, lengths, times):
        counted, held = counted_rows(model, length), counted_rows(model, length, n_before=0)
        for index, (attended, without) in enumerate(with_and_without(model, batch, length, parts, of_batch)):
            change = attended.logits - without.logits
            values = (from_itself(change), attended.weights, without.weights)
            mask = attended.mask & counted[:, None, :, None] & held[:, None, None, :]  # padding has no lag
            for number, value in enumerate(values):
                by_lag = _sum_by_lag(value * mask)
                sums[number, index, :, : by_lag.shape[-1]] += by_lag.cpu()
        by_lag = _sum_by_lag(mask)[0]
        pairs[: len(by_lag)] += by_lag.cpu()
    layer, head, lag = np.indices(sums.shape[1:]).reshape(3, -1)
    bias, attention, attention_without = (sums / pairs).flatten(1).numpy()
    table = {"layer": layer + 1, "head": head + 1, "lag": lag, "bias": bias}
    weights = {"attention": attention, "attention_without": attention_without}
    return pd.DataFrame({**table, **weights, "pairs": pairs.long().numpy()[lag]}).dropna(ignore_index=True)


def from_itself(logits: Tensor) -> Tensor:
    """Logits minus that of the query's own position, which does not change the softmax."""
    return logits - logits.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)


def _sum_by_lag(x: Tensor) -> Tensor:
    """Sums over the batch and the diagonals of (b, h, s, s) by lag t − s = 0, 1, …; float64, shape (h, s)."""
    total = x.sum(dim=0, dtype=torch.float64)
    lags = range(total.shape[-1])
    return torch.stack([total.diagonal(-lag, dim1=-2, dim2=-1).sum(dim=-1) for lag in lags], dim=-1)
