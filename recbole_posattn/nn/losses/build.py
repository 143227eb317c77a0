"""The losses by name, built from their options."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from recbole_posattn.nn.losses.base import ItemLoss, LossOptions
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.nn.losses.sampled import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    GeneralizedBinaryCrossEntropy,
    SampledSoftmax,
    TargetSampledSoftmax,
    negative_items,
)

LOSSES: dict[str, Callable[[LossOptions, Tensor | None], ItemLoss]] = {
    "CE": lambda o, counts: CrossEntropy(o.chunk_size, o.label_smoothing, o.precision),
    "SSM": lambda o, counts: SampledSoftmax(negative_items(o, counts), o.n_negatives),
    "TSSM": lambda o, counts: TargetSampledSoftmax(negative_items(o, counts), o.n_negatives),
    "BCE": lambda o, counts: BinaryCrossEntropy(negative_items(o, counts), o.n_negatives),
    "gBCE": lambda o, counts: GeneralizedBinaryCrossEntropy(negative_items(o, counts), o.n_negatives, o.calibration),
    "BPR": lambda o, counts: BayesianPersonalizedRanking(negative_items(o, counts), o.n_negatives),
}

# The losses with sampled negatives.
SAMPLED_LOSSES = LOSSES.keys() - {"CE"}

# Losses, registered from outside, whose ``forward`` does not take histories.
LOSSES_WITHOUT_HISTORIES: set[str] = set()


def build_loss(options: LossOptions, item_counts: Tensor | None) -> ItemLoss:
    """The loss of a model.

    Args:
        options: Its name and options.
        item_counts: How often each item occurs in training, integers of shape (n,); not used by ``CE``.

    Raises:
        ValueError: If ``loss_type`` is unknown or an option of that loss is out of range.
    """
    if options.loss_type not in LOSSES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSSES)}, got {options.loss_type!r}")
    return LOSSES[options.loss_type](options, item_counts)
