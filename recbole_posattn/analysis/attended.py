"""The attention of each layer on given sequences, with all parts of the model and without some of them.

Shape keys: b batch, h heads, s sequence length, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.analysis.switches import attentions_of, switched_off, switched_off_in
from recbole_posattn.data.fields import EXACT_TIME_FIELD
from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.errors import CheckpointError
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention, attention_mask
from recbole_posattn.nn.encodings.base import PositionEncoding
from recbole_posattn.nn.times import Times

# Number of logits in memory at a time: b · h · s².
MAX_LOGITS = 2**24


class Attended(NamedTuple):
    """The intermediate values of an attention.

    Attributes:
        logits: Minus the mean of their row, and 0 where ``mask`` is False; shape (b, h, s, s).
        mask: Which keys a query attends to, shape (b, 1, s, s).
        weights: Shape (b, h, s, s).
        output: Before the heads are joined, shape (b, h, s, d_h).
        times: Of the items; ``None`` if the model does not read them.
    """

    logits: Tensor
    mask: Tensor
    weights: Tensor
    output: Tensor
    times: Times | None = None


def require_positions(settings: Mapping[str, Any], checkpoint: str | Path) -> None:
    """Refuse a model that reads one item, where no position can be compared with another.

    Args:
        settings: Of the model.
        checkpoint: Its file or folder, for the message.

    Raises:
        CheckpointError: If ``MAX_ITEM_LIST_LENGTH`` is 1.
    """
    if settings["MAX_ITEM_LIST_LENGTH"] == 1:
        raise CheckpointError(
            f"checkpoint {checkpoint}: the model reads one item (MAX_ITEM_LIST_LENGTH 1), so no position can be "
            "compared with another; train with 2 or more"
        )


def split_for_attention(
    model: SASRecBase, items: Tensor, lengths: Tensor, times: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Sequences (n, s), lengths (n,) and times (n, s) in batches of at most :data:`MAX_LOGITS` logits.

    The batches are on the model's device, and their times relative to the newest item.
    """
    device = model.item_embedding.weight.device
    n_heads = max((attention.n_heads for attention in attentions_of(model)), default=1)
    batch_size = max(1, MAX_LOGITS // (n_heads * items.shape[1] ** 2))
    for rows in torch.arange(len(lengths)).split(batch_size):  # a column of histories is cut out row by row
        relative = None if times is None else relative_times(times[rows], lengths[rows]).to(device)
        yield items[rows].to(device), lengths[rows].to(device), relative


def times_of(model: SASRecBase, rows: Interaction) -> Tensor | None:
    """The exact times of the histories of rows, as a column of shape (n, s), if the model reads time."""
    suffix = model.ITEM_SEQ.removeprefix(model.ITEM_ID)
    times: Tensor | None = rows[EXACT_TIME_FIELD + suffix] if model.reads_time else None
    return times


def with_and_without(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str], times: Tensor | None = None
) -> list[tuple[Attended, Attended]]:
    """The attention of each layer, with all parts and with some parts switched off in that layer alone.

    An encoding at the input of the model reaches each layer through its input, so to switch it off the layer gets the
    input that it has in the model without that encoding.

    Args:
        model: A model of this package.
        items: As ``SASRecBase.forward`` takes them, shape (b, s).
        lengths: Shape (b,).
        parts: Names of :func:`positional_parts`.
        times: As ``SASRecBase.forward`` takes them, shape (b, s).
    """
    at_input = [
        encoding.name
        for encoding in model.backbone.input_encodings
        if isinstance(encoding, PositionEncoding) and encoding.name in parts
    ]
    inputs = inputs_without = _inputs_of(model, items, lengths, times)
    if at_input:
        with switched_off(model, at_input):
            inputs_without = _inputs_of(model, items, lengths, times)
    pairs = []
    for attention, own, without in zip(attentions_of(model), inputs, inputs_without):
        attended = _attend(attention, own)
        with switched_off_in(attention, parts):
            pairs.append((attended, _attend(attention, without)))
    return pairs


def first_positions(model: SASRecBase, lengths: Tensor) -> Tensor:
    """The first position of each sequence, aligned as in the model, of :func:`n_positions`; shape (b,)."""
    return n_positions(model, lengths) - lengths if model.newest_last else torch.zeros_like(lengths)


def n_positions(model: SASRecBase, lengths: Tensor) -> int:
    """The positions that a batch counts as having: those of its longest sequence, or all if padding takes part."""
    return int(lengths.max()) if model.padded_length is None else model.padded_length


def counted_rows(model: SASRecBase, lengths: Tensor, n_before: int = 1) -> Tensor:
    """The rows with an item and at least ``n_before`` items before it, shape (b, s)."""
    position = torch.arange(n_positions(model, lengths), device=lengths.device)
    first = first_positions(model, lengths)[:, None]
    return (position >= first + n_before) & (position < first + lengths[:, None])


class _Input(NamedTuple):
    """The input of an attention, the arguments of ``PositionKernelAttention.forward``."""

    x_query: Tensor
    x: Tensor
    valid: Tensor | None
    times: Times | None = None


def _inputs_of(model: SASRecBase, items: Tensor, lengths: Tensor, times: Tensor | None) -> list[_Input]:
    inputs: list[_Input] = []
    hooks = [
        attention.register_forward_pre_hook(lambda module, arguments: inputs.append(_Input(*arguments)))
        for attention in attentions_of(model)
    ]
    try:
        length = n_positions(model, lengths)  # padding that is cut off elsewhere has a share in the attention, too
        model.encode(model._align(items, lengths, length), times=model._align_times(times, lengths, length))
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _attend(attention: PositionKernelAttention, given: _Input) -> Attended:
    query, key, value, logit_bias = attention.project(*given)
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    if logit_bias is not None:
        logits = logits + logit_bias(query, key, 0)
    mask = attention_mask(query, key, valid=attention.attended(given.valid)).expand(len(query), 1, -1, -1)
    weights = logits.masked_fill(~mask, -math.inf).softmax(dim=-1)
    mean = logits.masked_fill(~mask, 0.0).sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True)
    return Attended((logits - mean).masked_fill(~mask, 0.0), mask, weights, weights @ value, given.times)
