"""Losses and scores of RecBole's sequential models, computed without most of the padding (``trim_padding``).

RecBole pads each history to ``MAX_ITEM_LIST_LENGTH``. Here the rows of a batch stay the same, but are computed in
groups of similar length, each cut to its longest history, or all together, cut to the longest history of the batch.
:func:`recbole_posattn.training.trim_check.find_trimming` finds the one that leaves a model's results unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import recbole_posattn.compat  # noqa: F401

from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_posattn.data.shorter import Group, HistoryCutter

LossFunction = Callable[[Interaction], Any]
Prediction = Callable[[Interaction], Tensor]

# The methods with which RecBole's models score items.
PREDICTIONS = ("full_sort_predict", "predict")


@dataclass(frozen=True)
class Trimming:
    """The parts of a model that are computed on shorter histories.

    Attributes:
        training: ``groups`` of similar length; ``batch``, whole and cut to its longest history; or ``no``.
        by_targets: Whether the loss of a group counts by its targets, not by its rows.
        evaluation: Whether scores are computed in groups.
    """

    training: Literal["groups", "batch", "no"] = "no"
    by_targets: bool = False
    evaluation: bool = False

    def plain(self) -> dict[str, Any]:
        """As plain data, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, kept: Mapping[str, Any] | None) -> Trimming:
        """The inverse of :meth:`plain`; ``None``, of a version that did not trim, stands for no trimming.

        Raises:
            ValueError: If a value is not allowed.
        """
        trimming = cls(**(kept or {}))
        flags = (trimming.by_targets, trimming.evaluation)
        if trimming.training not in ("groups", "batch", "no") or not all(isinstance(flag, bool) for flag in flags):
            raise ValueError(f"trimming {kept!r}")
        return trimming


def trimmed_loss(loss_func: LossFunction, trimming: Trimming, cutter: HistoryCutter, group_cost: float) -> LossFunction:
    """A function with the losses of another, computed on shorter histories.

    The loss must be a mean over the rows or the targets of a batch, perhaps with terms of the weights alone.

    Args:
        loss_func: Returns the loss of a batch, or a tuple of losses that are added.
        trimming: How to compute it.
        cutter: Cuts batches.
        group_cost: See :func:`recbole_posattn.data.shorter.group_ends`.
    """

    def grouped(batch: Interaction) -> Any:
        groups = cutter.groups(batch, trimming.by_targets, group_cost)
        if _is_whole(groups, batch, cutter):
            return loss_func(batch)
        parts = [_times(loss_func(cutter.cut(batch, group.longest, group.rows)), group.share) for group in groups]
        return tuple(map(sum, zip(*parts))) if isinstance(parts[0], tuple) else sum(parts)

    if trimming.training == "groups":
        return grouped
    return loss_func if trimming.training == "no" else lambda batch: loss_func(cutter.cut(batch))


def _is_whole(groups: list[Group], batch: Interaction, cutter: HistoryCutter) -> bool:
    """Whether there is nothing to gain (one group of all rows with their padding), or nothing to compute."""
    if not groups:
        return True
    return len(groups) == 1 and groups[0].longest == cutter.max_length and len(groups[0].rows) == len(batch)


def _times(losses: Any, share: float) -> Any:
    return tuple(loss * share for loss in losses) if isinstance(losses, tuple) else losses * share


def trimmed_prediction(predict: Prediction, cutter: HistoryCutter, group_cost: float) -> Prediction:
    """A function with the scores of another, computed in groups of similar length.

    Args:
        predict: Returns the scores of a batch of b rows, each row's side by side.
        cutter: Cuts batches.
        group_cost: See :func:`recbole_posattn.data.shorter.group_ends`.

    Returns:
        A function with scores of shape (b, items), or (b,) where each row has one.
    """

    def grouped(batch: Interaction) -> Tensor:
        groups = cutter.groups(batch, by_targets=False, group_cost=group_cost)
        if _is_whole(groups, batch, cutter):
            return predict(batch)
        scores: Tensor | None = None
        for group in groups:
            part = predict(cutter.cut(batch, group.longest, group.rows)).reshape(len(group.rows), -1)
            if scores is None:
                scores = part.new_empty(len(batch), part.shape[1])
            scores[group.rows] = part
        assert scores is not None
        return scores.squeeze(1)

    return grouped


@contextmanager
def trimmed_predictions(
    model: AbstractRecommender, trimming: Trimming, cutter: HistoryCutter, group_cost: float
) -> Iterator[None]:
    """While the block runs, a model computes scores on shorter histories, as far as it can."""
    methods = {name: trimmed_prediction(getattr(model, name), cutter, group_cost) for name in PREDICTIONS}
    with replaced(model, methods if trimming.evaluation else {}):
        yield


@contextmanager
def replaced(model: AbstractRecommender, methods: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """While the block runs, a model has other methods; its class stays as it is."""
    before = {name: vars(model)[name] for name in methods if name in vars(model)}
    vars(model).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(model)[name]
        vars(model).update(before)
