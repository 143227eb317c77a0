"""Check whether a model gives the same results on trimmed histories as with all padding.

Many RecBole models give the same results whatever the padding. Others have a weight for each position, sum over all
positions, or compare the rows of a batch, and the settings may decide which. So one batch with histories of all lengths
is computed both ways, in evaluation mode and with gradients.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from torch import Tensor, nn

from recbole_posattn.data.shorter import HistoryCutter, spread_over_lengths, targets_per_row
from recbole_posattn.errors import one_line
from recbole_posattn.training.index_check import IndicesChecked
from recbole_posattn.training.state import random_state, restore_random_state
from recbole_posattn.training.trimming import (
    PREDICTIONS,
    LossFunction,
    Prediction,
    Trimming,
    trimmed_loss,
    trimmed_prediction,
)

# The largest difference between values that count as equal, relative to the largest of them.
TOLERANCE = 1e-5

# Gradients of a weight below this share of the largest gradient are compared on the scale of that share: the gradient
# of a key's bias in attention, for example, is zero except for rounding.
_SMALL = 0.1

_ROWS = 48
_GROUP_COST = 1  # there are many groups, with single rows as well

_FAILS = "it fails on shorter histories ({})"
_NO_PADDING = "no history is shorter than MAX_ITEM_LIST_LENGTH"
_IN_VAIN = "its work does not grow with the padding"


class Found(NamedTuple):
    """What can be trimmed.

    Attributes:
        trimming: How to compute the model.
        why_not_groups: Why training does not take groups; empty if it does.
        why_not_scores: Why scores are not trimmed; empty if they are.
    """

    trimming: Trimming
    why_not_groups: str
    why_not_scores: str


class _Batches(NamedTuple):
    """The rows compared: all, the shorter half of those with padding, and the shortest ones."""

    all: Interaction
    short: Interaction
    shortest: Interaction

    @classmethod
    def of(cls, batch: Interaction, cutter: HistoryCutter) -> _Batches:
        """A batch, and parts of it; a batch with long rows says nothing about one that is cut to its longest row."""
        length = batch[cutter.length_field]
        n_padded = int((length < cutter.max_length).sum())
        half = length.argsort()[: (n_padded + 1) // 2].sort().values
        shortest = torch.nonzero(length == length.min()).flatten()
        return cls(batch, *(cutter.cut(batch, cutter.max_length, rows) for rows in (half, shortest)))


class Result(NamedTuple):
    """Losses, shape (n,); gradients by weight; bytes that are kept for the gradients, without the weights."""

    losses: Tensor
    gradients: dict[str, Tensor]
    kept: int


def find_trimming(
    model: SequentialRecommender,
    cutter: HistoryCutter,
    data: AbstractDataLoader,
    loss_func: LossFunction | None = None,
    faster_loss: LossFunction | None = None,
) -> Found:
    """Compare a model's loss, gradients and scores with and without padding.

    The model and all random generators are left as they were.

    Args:
        model: The model.
        cutter: Cuts batches of the data.
        data: A loader of rows.
        loss_func: Returns the loss of a batch, or a tuple of losses that are added; ``None`` if there is no training.
        faster_loss: The function to trim, which must have the same losses; ``loss_func`` by default.
    """
    # Shorter histories may lead to indices out of bounds, after which a GPU cannot be used any more.
    checked = nullcontext() if model.device.type == "cpu" else IndicesChecked()
    with undisturbed(model, data), checked:
        batch = _rows_of_all_lengths(data, cutter).to(model.device)
        if model.POS_ITEM_ID not in batch:  # windows; any item serves to predict its score
            batch.update(Interaction({model.POS_ITEM_ID: batch[model.ITEM_SEQ][:, 0]}))
        if not bool((batch[cutter.length_field] < cutter.max_length).any()):
            return Found(Trimming(), _NO_PADDING, _NO_PADDING)
        model.eval()  # now: RecBole's dynamic negatives leave the model in training mode
        batches = _Batches.of(batch, cutter)
        why_not_scores = _why_not_scores(model, batches, cutter)
        training, why_not_groups = Trimming(), "it is not trained"
        if loss_func is not None:
            training, why_not_groups = _training(model, batches, cutter, loss_func, faster_loss or loss_func)
    return Found(replace(training, evaluation=not why_not_scores), why_not_groups, why_not_scores)


@contextmanager
def undisturbed(model: AbstractRecommender, data: AbstractDataLoader) -> Iterator[None]:
    """Leave a model's mode and all random generators as they were before the block, and compile nothing in it."""
    state, trained, compiled = random_state(data), model.training, vars(model).pop("forward", None)
    try:
        with torch.backends.cudnn.flags(enabled=False):  # whose recurrent networks have gradients in training mode only
            yield
    finally:
        if compiled is not None:
            vars(model)["forward"] = compiled
        model.train(trained)
        restore_random_state(state)


def _rows_of_all_lengths(data: AbstractDataLoader, cutter: HistoryCutter) -> Interaction:
    if hasattr(data, "uid_list"):  # an evaluation with sampled negatives takes users
        rows = torch.arange(min(data.sample_size, _ROWS))
    else:
        windows = getattr(data._dataset, "windows", None)
        rows = spread_over_lengths(
            data._dataset.inter_feat[cutter.length_field] if windows is None else windows.length, _ROWS
        )
    batch = data.collate_fn(rows.tolist())
    return batch[0] if isinstance(batch, tuple) else batch


def _training(
    model: AbstractRecommender,
    batches: _Batches,
    cutter: HistoryCutter,
    loss_func: LossFunction,
    faster_loss: LossFunction,
) -> tuple[Trimming, str]:
    """How to train, and why not in groups."""

    def why_not(candidate: Trimming) -> str:
        shorter = trimmed_loss(faster_loss, candidate, cutter, _GROUP_COST)
        try:
            for padded, batch in zip(all_padded, compared):
                with _statistics_of_batches(norms):
                    found = result_of(model, shorter, batch)
                reason = difference(padded, found)
                if reason:
                    return reason
        except Exception as error:
            return _FAILS.format(type(error).__name__)
        cut = result_of(model, loss_func, cutter.cut(batches.short))
        return _IN_VAIN if cut.kept >= result_of(model, loss_func, batches.short).kept else ""

    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    compared = [batch for batch in batches if not norms or len(batch) > 1]  # a single row has no statistics
    try:
        with _statistics_of_batches(norms):
            all_padded = [result_of(model, loss_func, batch) for batch in compared]
    except Exception as error:  # training will fail likewise, and say it better
        return Trimming(), f"its loss cannot be computed: {one_line(error)}"
    candidates = [Trimming("groups", by_targets=True), Trimming("batch")]
    if bool((targets_per_row(batches.all) != 1).any()):
        candidates.insert(1, Trimming("groups", by_targets=False))
    reasons = []
    if norms:
        reasons.append("its batch normalization depends on all rows of a batch")
        candidates = candidates[-1:]
    for candidate in candidates:
        reason = why_not(candidate)
        if not reason:
            return candidate, "; ".join(reasons)
        if reason not in reasons:
            reasons.append(reason)
    return Trimming(), "; ".join(reasons)


@contextmanager
def _statistics_of_batches(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Normalize by the statistics of batches, as in training: over positions, these depend on the padding."""
    before = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm, state in zip(norms, before, strict=True):
            norm.eval()
            norm.load_state_dict(state)


def result_of(model: AbstractRecommender, loss_func: LossFunction, batch: Interaction) -> Result:
    """The loss of a batch and its gradients, always with the same random numbers.

    Args:
        model: The model.
        loss_func: Returns the loss of a batch, or a tuple of losses that are added.
        batch: The batch, which stays as it is.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    _seed()
    with _kept_bytes(model) as kept:
        losses = loss_func(_copy(batch))
    parts = losses if isinstance(losses, tuple) else (losses,)
    gradients = torch.autograd.grad(
        torch.stack([part.sum() for part in parts]).sum(), list(weights.values()), allow_unused=True
    )
    found = {name: gradient for name, gradient in zip(weights, gradients) if gradient is not None}
    return Result(torch.stack([part.detach().sum() for part in parts]), found, sum(kept))


def difference(padded: Result, shorter: Result) -> str:
    """How two results differ, in words; empty if they do not."""
    if not _are_equal(padded.losses, shorter.losses, 0.0):
        return "its loss differs"
    smallest = _SMALL * max((float(gradient.abs().max()) for gradient in padded.gradients.values()), default=0.0)
    for name, gradient in padded.gradients.items():
        other = shorter.gradients.get(name, torch.zeros_like(gradient))
        if not _are_equal(gradient, other, smallest):
            return f"the gradients of {name} differ"
    return ""


def _are_equal(first: Tensor, second: Tensor, smallest: float) -> bool:
    """Whether values differ by at most :data:`TOLERANCE` of the largest of them, or of ``smallest``."""
    if first.shape != second.shape:
        return False
    finite = first[first.isfinite()].abs()
    scale = max(float(finite.max()) if len(finite) else 0.0, smallest) or 1.0
    return torch.allclose(first.double(), second.double(), rtol=0, atol=TOLERANCE * scale, equal_nan=True)


def _why_not_scores(model: SequentialRecommender, batches: _Batches, cutter: HistoryCutter) -> str:
    """Why scores cannot be computed in groups; empty if they can."""
    for name in PREDICTIONS:
        predict = getattr(model, name)
        try:
            all_padded = [_scores_of(model, predict, batch) for batch in batches]
        except NotImplementedError:  # RecBole then takes the other method
            continue
        except Exception as error:
            return f"its scores cannot be computed: {one_line(error)}"
        shorter = trimmed_prediction(predict, cutter, _GROUP_COST)
        try:
            for (padded, _), batch in zip(all_padded, batches):
                if not _are_equal(padded, _scores_of(model, shorter, batch)[0], 0.0):
                    return "its scores differ"
            _, kept = _scores_of(model, predict, cutter.cut(batches.short))
        except Exception as error:
            return _FAILS.format(type(error).__name__)
        if kept >= all_padded[1][1]:
            return _IN_VAIN
    return ""


def _scores_of(model: AbstractRecommender, predict: Prediction, batch: Interaction) -> tuple[Tensor, int]:
    """The scores of a batch in one row, and the bytes that gradients would need."""
    _seed()
    with _kept_bytes(model) as kept:
        scores = predict(_copy(batch))
    return scores.detach().flatten(), sum(kept)


@contextmanager
def _kept_bytes(model: AbstractRecommender) -> Iterator[list[int]]:
    """The sizes of all tensors that are kept for gradients while the block runs, except for the weights."""
    of_weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in of_weights:
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor.detach()  # an operation that kept its own output would never be freed

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def _copy(batch: Interaction) -> Interaction:
    """Some models change a batch."""
    return Interaction({name: column.clone() for name, column in batch.interaction.items()})


def _seed() -> None:
    """The same random numbers for each computation; some models draw them in evaluation mode, too."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
