"""The losses by name, built from their options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from recbole_posattn.nn.losses.base import ItemLoss
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.nn.losses.negatives import Distribution, NegativeItems
from recbole_posattn.nn.losses.sampled import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    GeneralizedBinaryCrossEntropy,
    SampledSoftmax,
)


class LossOptions(NamedTuple):
    """What a loss is built from.

    Attributes:
        loss_type: A name of :data:`LOSSES`.
        chunk_size: Of ``CE``; see :class:`CrossEntropy`.
        n_negatives: Of the others: negatives, of each target or (``SSM``) shared by all.
        distribution: Of the negatives; see :class:`NegativeItems`.
        alpha: Of the distribution ``popularity``; see :class:`NegativeItems`.
        calibration: Of ``gBCE``; see :class:`GeneralizedBinaryCrossEntropy`.
    """

    loss_type: str
    chunk_size: int | Literal["auto"] | None = "auto"
    n_negatives: int = 256
    distribution: Distribution = "uniform"
    alpha: float = 1.0
    calibration: float = 0.75


LOSSES: dict[str, Callable[[LossOptions, Tensor], ItemLoss]] = {
    "CE": lambda o, counts: CrossEntropy(o.chunk_size),
    "SSM": lambda o, counts: SampledSoftmax(_negative_items(o, counts), o.n_negatives),
    "BCE": lambda o, counts: BinaryCrossEntropy(_negative_items(o, counts), o.n_negatives),
    "gBCE": lambda o, counts: GeneralizedBinaryCrossEntropy(_negative_items(o, counts), o.n_negatives, o.calibration),
    "BPR": lambda o, counts: BayesianPersonalizedRanking(_negative_items(o, counts), o.n_negatives),
}

# The losses that take negatives.
SAMPLED_LOSSES = frozenset(LOSSES) - {"CE"}


def build_loss(options: LossOptions, item_counts: Tensor | None) -> ItemLoss:
    """The loss of a model.

    Args:
        options: Its name and what it needs beside.
        item_counts: How often each item occurs in training, integers of shape (n,); not looked at by ``CE``.

    Raises:
        ValueError: If ``loss_type`` is unknown or an option of that loss is out of range.
    """
    if options.loss_type not in LOSSES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSSES)}, got {options.loss_type!r}")
    return LOSSES[options.loss_type](options, item_counts)


def _negative_items(options: LossOptions, item_counts: Tensor) -> NegativeItems:
    return NegativeItems(options.distribution, item_counts, options.alpha)
