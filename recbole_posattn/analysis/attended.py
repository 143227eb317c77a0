"""What the attention of each layer makes of sequences, as the model is and with some of its parts switched off.

Shape keys: b batch, h heads, s sequence length, d hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_posattn.analysis.switches import switched_off, switched_off_in
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.attention import PositionKernelAttention, attention_mask

# Logits in memory at a time: b · h · s².
MAX_LOGITS = 2**24


class Attended(NamedTuple):
    """What an attention makes of its input.

    Attributes:
        logits: About the mean of their row, and 0 where ``mask`` is False; shape (b, h, s, s).
        mask: Which keys a query attends to, shape (b, 1, s, s).
        weights: Shape (b, h, s, s).
        output: Before the heads join, shape (b, h, s, d_h).
    """

    logits: Tensor
    mask: Tensor
    weights: Tensor
    output: Tensor


def split_for_attention(model: SASRecBase, items: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Sequences (n, s) and their lengths (n,) on the model's device, as many at a time as have room for all logits."""
    device = model.item_embedding.weight.device
    n_heads = model.backbone.blocks[0].attention.n_heads
    batch_size = max(1, MAX_LOGITS // (n_heads * items.shape[1] ** 2))
    for batch in zip(items.split(batch_size), lengths.split(batch_size)):
        yield tuple(each.to(device) for each in batch)


def with_and_without(
    model: SASRecBase, items: Tensor, lengths: Tensor, parts: Sequence[str]
) -> list[tuple[Attended, Attended]]:
    """What each layer's attention makes of sequences, as it is and with some parts switched off in that layer alone.

    What enters at the input reaches a layer through its input, so that is the one of the model without it.

    Args:
        model: One of ours.
        items: As ``SASRecBase.forward`` takes them, shape (b, s).
        lengths: Shape (b,).
        parts: Names of :func:`positional_parts`.
    """
    at_input = [encoding.name for encoding in model.backbone.input_encodings if encoding.name in parts]
    seen = seen_without = _inputs_of(model, items, lengths)
    if at_input:
        with switched_off(model, at_input):
            seen_without = _inputs_of(model, items, lengths)
    pairs = []
    for block, given, given_without in zip(model.backbone.blocks, seen, seen_without):
        attended = _attend(block.attention, given)
        with switched_off_in(block.attention, parts):
            pairs.append((attended, _attend(block.attention, given_without)))
    return pairs


def first_positions(model: SASRecBase, lengths: Tensor) -> Tensor:
    """Where each sequence begins, aligned as the model does and cut to the longest; shape (b,)."""
    return lengths.max() - lengths if model.newest_last else torch.zeros_like(lengths)


def counted_rows(model: SASRecBase, lengths: Tensor) -> Tensor:
    """The rows with an item and at least one before it, shape (b, s)."""
    position = torch.arange(int(lengths.max()), device=lengths.device)
    first = first_positions(model, lengths)[:, None]
    return (position > first) & (position < first + lengths[:, None])


class _Seen(NamedTuple):
    """What an attention was given: its arguments, see ``PositionKernelAttention.forward``."""

    x_query: Tensor
    x: Tensor
    valid: Tensor | None


def _inputs_of(model: SASRecBase, items: Tensor, lengths: Tensor) -> list[_Seen]:
    seen: list[_Seen] = []
    hooks = [
        block.attention.register_forward_pre_hook(lambda module, arguments: seen.append(_Seen(*arguments)))
        for block in model.backbone.blocks
    ]
    try:
        model.encode(model._align(items, lengths))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _attend(attention: PositionKernelAttention, seen: _Seen) -> Attended:
    query, key, value, logit_bias = attention.project(*seen)
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    if logit_bias is not None:
        logits = logits + logit_bias(query, key, 0)
    mask = attention_mask(query, key, valid=seen.valid).expand(len(query), 1, -1, -1)
    weights = logits.masked_fill(~mask, -math.inf).softmax(dim=-1)
    mean = logits.masked_fill(~mask, 0.0).sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True)
    return Attended((logits - mean).masked_fill(~mask, 0.0), mask, weights, weights @ value)
