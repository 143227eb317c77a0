"""How much each positional part of a trained model contributes, and whether the parts get in each other's way.

The parts are the kernels U and L and the encodings. Two measurements, on the validation or the test rows:

- The *metrics* with a part switched off, with all others switched off, and with all of them off. The weights stay as
  they were trained.
- Part by part and layer by layer, what the part does to the attention: to its logits, to the entropy of its weights,
  and to its output.

A kernel is switched off by leaving its diagonal alone: nothing is mixed any more, and what a position takes from itself
keeps its size. An encoding is switched off by leaving it out.

Shape keys: b batch, h heads, s sequence length, d hidden size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
import torch
from recbole.data.dataloader import AbstractDataLoader
from torch import Tensor, nn
from tqdm import tqdm

from recbole_posattn.compat import without_tensorboard
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.model.sequential_recommender.base import SASRecBase
from recbole_posattn.position.attention import PositionKernelAttention, attention_mask
from recbole_posattn.position.kernels import IdentityKernel, PositionKernel
from recbole_posattn.quick_start import Loaded, load
from recbole_posattn.trainer import trainer_class

Split = Literal["valid", "test"]
KERNEL_PARTS = {"U": "u_kernel", "L": "l_kernel"}

# Logits in memory at a time: b · h · s².
MAX_LOGITS = 2**24


class Interference(NamedTuple):
    """What :func:`interference` measures.

    Attributes:
        metrics: A row for ``all``, for each part ``without`` it and with it ``alone``, and for ``none``; columns
            ``parts`` (which of these), ``part``, and a metric each.
        layers: A row for each layer and part; columns ``layer`` (from 1), ``part``, ``logit_rms`` (root mean square of
            what the part adds to the logits), ``logit_share`` (that over the logits' own root mean square),
            ``entropy`` and ``entropy_without`` (of the attention weights, in nats), and ``output_change`` (norm of the
            change of the attention's output over its norm). Logits are taken about the mean of their row, which the
            softmax does not see; rows with a single key do not count.
        valid_metric: The column of ``metrics`` that early stopping watched.
    """

    metrics: pd.DataFrame
    layers: pd.DataFrame
    valid_metric: str


def interference(checkpoint: str | Path, split: Split = "valid", show_progress: bool = False) -> Interference:
    """Measure what each positional part of a trained model contributes.

    Args:
        checkpoint: A file written by :func:`recbole_posattn.run`, of one of our models.
        split: The rows to measure on. Nothing is chosen here, but take ``valid`` if you will choose by it.
        show_progress: Whether to show a progress bar.

    Returns:
        Two tables, see :class:`Interference`.

    Raises:
        SettingError: If ``split`` is unknown.
        CheckpointError: If the checkpoint cannot be read, or its model has no positional part.
        DataError: If the data set cannot be read, or the split has no rows.
    """
    if split not in ("valid", "test"):
        raise SettingError(f"split must be valid or test; got {split!r}.")
    loaded = load(checkpoint)
    parts = positional_parts(loaded.model) if isinstance(loaded.model, SASRecBase) else []
    if not parts:
        raise CheckpointError(
            f"checkpoint {checkpoint}: {loaded.config['model']} has no positional kernel or encoding to switch off"
        )
    if not len(_loader(loaded, split)):
        raise DataError(f"data set {loaded.config['dataset']!r}: the {split} split has no rows to measure on")
    return Interference(
        metrics=_metrics(loaded, parts, split, show_progress),
        layers=_effects_by_layer(loaded, parts, split),
        valid_metric=loaded.config["valid_metric"].lower(),
    )


def _loader(loaded: Loaded, split: Split) -> AbstractDataLoader:
    return loaded.valid_data if split == "valid" else loaded.test_data


def positional_parts(model: SASRecBase) -> list[str]:
    """The parts of a model: ``U`` and ``L`` unless they are the identity, then the names of its encodings."""
    attention = model.backbone.blocks[0].attention
    kernels = [part for part, name in KERNEL_PARTS.items() if not isinstance(getattr(attention, name), IdentityKernel)]
    return kernels + [encoding.name for encoding in (*model.backbone.input_encodings, *attention.encodings)]


@contextmanager
def switched_off(model: SASRecBase, parts: Sequence[str]) -> Iterator[None]:
    """The model without some of its parts, in all layers, for as long as the context lasts."""
    with ExitStack() as stack:
        stack.enter_context(_without_encodings(model.backbone, "input_encodings", parts))
        for block in model.backbone.blocks:
            stack.enter_context(_switched_off_in(block.attention, parts))
        yield


@contextmanager
def _switched_off_in(attention: PositionKernelAttention, parts: Sequence[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for part in set(KERNEL_PARTS) & set(parts):
            name = KERNEL_PARTS[part]
            kernel = getattr(attention, name)
            if not isinstance(kernel, IdentityKernel):
                stack.callback(setattr, attention, name, kernel)
                setattr(attention, name, DiagonalKernel(kernel))
        stack.enter_context(_without_encodings(attention, "encodings", parts))
        yield


@contextmanager
def _without_encodings(module: nn.Module, name: str, parts: Sequence[str]) -> Iterator[None]:
    encodings = getattr(module, name)
    setattr(module, name, nn.ModuleList(encoding for encoding in encodings if encoding.name not in parts))
    try:
        yield
    finally:
        setattr(module, name, encodings)


class DiagonalKernel(PositionKernel):
    """The diagonal of another kernel: what is left of it when nothing is mixed.

    Args:
        kernel: The other kernel.
    """

    def __init__(self, kernel: PositionKernel) -> None:
        super().__init__(kernel.max_length, kernel.n_groups)
        self.kernel = kernel
        self.lag_only = kernel.lag_only

    def dense(self, length: int | None = None) -> Tensor:
        """See :meth:`PositionKernel.dense`."""
        return torch.diag_embed(self.kernel.diagonal(length))

    def _mix(self, x: Tensor) -> Tensor:
        return self.kernel.diagonal(x.shape[-2]).unsqueeze(-1) * x


# -- metrics ---------------------------------------------------------------------------------------------------------


def _metrics(loaded: Loaded, parts: Sequence[str], split: Split, show_progress: bool) -> pd.DataFrame:
    with without_tensorboard():
        trainer = trainer_class(loaded.config)(loaded.config, loaded.model)
    trainer.eval_collector.data_collect(loaded.train_data)
    settings = [("all", "", [])]
    settings += [("without", part, [part]) for part in parts]
    if len(parts) > 1:
        settings += [("alone", part, [other for other in parts if other != part]) for part in parts]
        settings += [("none", "", parts)]
    rows = []
    for name, part, off in tqdm(settings, desc="switching parts off", disable=not show_progress):
        with switched_off(loaded.model, off):
            result = trainer.evaluate(_loader(loaded, split), load_best_model=False)
        rows.append({"parts": name, "part": part, **result})
    return pd.DataFrame(rows)


# -- effects on the attention ----------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What an attention was given: its arguments, see ``PositionKernelAttention.forward``."""

    x_query: Tensor
    x: Tensor
    valid: Tensor | None


class _Attended(NamedTuple):
    """What an attention makes of its input.

    Attributes:
        logits: About the mean of their row, and 0 where ``mask`` is False; shape (b, h, s, s).
        mask: Which keys a query attends to, shape (b or 1, 1, s, s).
        weights: Shape (b, h, s, s).
        output: Before the heads join, shape (b, h, s, d_h).
    """

    logits: Tensor
    mask: Tensor
    weights: Tensor
    output: Tensor


@torch.no_grad()
def _effects_by_layer(loaded: Loaded, parts: Sequence[str], split: Split) -> pd.DataFrame:
    model = loaded.model
    model.length_bucketing = False  # one call of each attention has the whole batch
    rows = _loader(loaded, split)._dataset.inter_feat
    item_seq, length = rows[model.ITEM_SEQ], rows[model.ITEM_SEQ_LEN]
    attentions = [block.attention for block in model.backbone.blocks]
    at_input = {encoding.name for encoding in model.backbone.input_encodings}
    batch_size = max(1, MAX_LOGITS // (attentions[0].n_heads * item_seq.shape[1] ** 2))
    sums = {key: torch.zeros(8, dtype=torch.float64) for key in itertools.product(range(len(attentions)), parts)}
    for items, lengths in zip(item_seq.split(batch_size), length.split(batch_size)):
        items, lengths = items.to(loaded.config["device"]), lengths.to(loaded.config["device"])
        seen = _inputs_of(model, items, lengths)
        counted = _counted_rows(model, items, lengths)
        for part in parts:
            # What enters at the input reaches a layer through its input; the others are switched off in that layer.
            with switched_off(model, [part] if part in at_input else []):
                seen_without = _inputs_of(model, items, lengths) if part in at_input else seen
            for layer, attention in enumerate(attentions):
                with_part = _attend(attention, seen[layer])
                with _switched_off_in(attention, [part]):
                    without = _attend(attention, seen_without[layer])
                sums[layer, part] += _sums(with_part, without, counted)
    return pd.DataFrame({"layer": layer + 1, "part": part, **_effect(total)} for (layer, part), total in sums.items())


def _inputs_of(model: SASRecBase, items: Tensor, lengths: Tensor) -> list[_Seen]:
    """What each layer's attention gets from sequences of items (b, s) of the given lengths (b,)."""
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


def _counted_rows(model: SASRecBase, items: Tensor, lengths: Tensor) -> Tensor:
    """The rows with an item and at least one before it, shape (b, s), aligned as the model does."""
    longest = int(lengths.max())
    position = torch.arange(longest, device=items.device)
    first = longest - lengths[:, None] if model.newest_last else torch.zeros_like(lengths)[:, None]
    return (position > first) & (position < first + lengths[:, None])


def _attend(attention: PositionKernelAttention, seen: _Seen) -> _Attended:
    query, key, value, logit_bias = attention.project(*seen)
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    if logit_bias is not None:
        logits = logits + logit_bias(query, key, 0)
    mask = attention_mask(query, key, valid=seen.valid).expand(len(query), 1, -1, -1)
    weights = logits.masked_fill(~mask, -math.inf).softmax(dim=-1)
    mean = logits.masked_fill(~mask, 0.0).sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True)
    return _Attended((logits - mean).masked_fill(~mask, 0.0), mask, weights, weights @ value)


def _sums(with_part: _Attended, without: _Attended, counted: Tensor) -> Tensor:
    """What :func:`_effect` is made of, summed over the rows that count and the heads; shape (8,), float64."""
    rows = counted[:, None, :].expand(with_part.weights.shape[:-1])  # (b, h, s)

    def over_rows(x: Tensor) -> Tensor:
        return x.expand(-1, rows.shape[1], -1, -1).sum(dim=-1, dtype=torch.float64)[rows].sum()

    return torch.stack(
        [
            rows.sum(),
            over_rows(with_part.mask),
            over_rows(with_part.logits.square()),
            over_rows((with_part.logits - without.logits).square()),
            over_rows(torch.special.entr(with_part.weights)),
            over_rows(torch.special.entr(without.weights)),
            over_rows(with_part.output.square()),
            over_rows((with_part.output - without.output).square()),
        ]
    ).cpu()


def _effect(sums: Tensor) -> dict[str, float]:
    rows, pairs, logits, logit_change, entropy, entropy_without, output, output_change = sums.tolist()
    return {
        "logit_rms": math.sqrt(logit_change / pairs),
        "logit_share": math.sqrt(logit_change / logits) if logits else 0.0,
        "entropy": entropy / rows,
        "entropy_without": entropy_without / rows,
        "output_change": math.sqrt(output_change / output) if output else 0.0,
    }
