"""The base class of losses over items, and the chunks in which they compute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from recbole_posattn.nn.losses.histories import TargetHistories
from recbole_posattn.nn.losses.negatives import Distribution


class LossOptions(NamedTuple):
    """The options from which a loss is built.

    Attributes:
        loss_type: A name of :data:`LOSSES`.
        chunk_size: Of ``CE``; see :class:`CrossEntropy`.
        n_negatives: Negatives of the other losses, per target or (``SSM``) shared by all targets.
        distribution: Distribution of the negatives; see :class:`NegativeItems`.
        alpha: Of the distribution ``popularity``; see :class:`NegativeItems`.
        calibration: Of ``gBCE``; see :class:`GeneralizedBinaryCrossEntropy`.
        label_smoothing: Of ``CE``; see :class:`CrossEntropy`.
        precision: Of ``CE``; see :class:`CrossEntropy`.
    """

    loss_type: str
    chunk_size: int | Literal["auto"] | None = "auto"
    n_negatives: int = 256
    distribution: Distribution = "uniform"
    alpha: float = 1.0
    calibration: float = 0.75
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"


class ItemLoss(nn.Module):
    """The interface of all losses. The score of item i for target j is s = ``hidden[j]`` · ``item_weight[i]``.

    With ``score: cosine`` both are scaled before, see :class:`recbole_posattn.nn.item_scores.CosineScore`.
    """

    @classmethod
    def from_options(cls, options: LossOptions, item_counts: Tensor | None) -> Self:
        """A loss of this class from the options of a model, for :func:`recbole_posattn.register_loss`.

        Args:
            options: The options of the loss.
            item_counts: How often each item is a target in training, integers of shape (n,); ``None`` unless the class
                derives from :class:`SampledLoss`.
        """
        return cls()

    def forward(
        self, hidden: Tensor, target: Tensor, item_weight: Tensor, histories: TargetHistories | None = None
    ) -> Tensor:
        """The mean loss of some targets.

        Args:
            hidden: The hidden state that predicts each target, shape (m, d); m ≥ 1, since the mean over none is NaN.
            target: Items of shape (m,).
            item_weight: Embeddings of all items, shape (n, d).
            histories: The items before each target, if they get a bias or leave the loss. A class without this argument
                cannot be used with ``history_partition`` and ``train_mask_history``.

        Returns:
            Scalar.
        """
        raise NotImplementedError


def targets_per_chunk(elements: dict[str, int], elements_per_target: int, device: torch.device) -> int:
    """Targets per chunk, at least one, so that a chunk has about as many elements as is best for the device."""
    return max(1, elements.get(device.type, elements["cuda"]) // elements_per_target)


def target_chunks(n_targets: int, chunk_size: int) -> Iterator[slice]:
    """Slices of ``chunk_size`` targets; the last one may be shorter."""
    return (slice(start, start + chunk_size) for start in range(0, n_targets, chunk_size))
