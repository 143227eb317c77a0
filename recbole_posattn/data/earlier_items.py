"""Items that a user had before the items of a training row, for ``train_mask_history``.

The ranking of a held-out target leaves out the user's whole history, of which a row holds the newest items only.

Shape keys: N interactions, n training rows or windows, b rows of a batch, e earlier items.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import recbole_posattn.compat  # noqa: F401

from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import EARLIER_LIST_FIELD
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.prefixes import LazyPrefixes, PrefixColumn

# Values of mask_history that leave the history, perhaps except for the target, out of the ranking.
MASKING = ("all", "except_target")

# Density of the training data from which ``train_mask_history: auto`` leaves the history out of the loss. On validation
# sets (results/recipe/), this is better on ml-100k and ml-1m, with densities of 0.06 and 0.05, no different on a part
# of ml-1m with 0.011, and worse on amazon-beauty with 0.0007.
LEAST_DENSITY = 0.02


class HistoryUse(NamedTuple):
    """How training treats the items of a user's history.

    Attributes:
        partitions: Whether their scores get a learned bias (``history_partition``).
        masks: Whether they are masked out of the loss (``train_mask_history``); ``auto`` if the training data decide,
            see :func:`leaves_out_history`.
    """

    partitions: bool
    masks: bool | Literal["auto"]


def history_use(settings: Any, takes_histories: bool = True) -> HistoryUse:
    """Resolve ``auto`` in ``history_partition`` and ``train_mask_history``.

    ``auto`` follows the ranking. If history items are ranked, ``history_partition`` is on. If none are
    (``mask_history: all``), ``train_mask_history`` stays ``auto``, for the training data to decide. With
    ``except_target``, both are off: the only history item in the ranking is then the target, a shortcut that the model
    would learn. ``auto`` is also off if the other key is ``True`` or the loss does not take histories. Without
    ``mask_history``, sequential models are ranked as in RecBole, with all history items.

    Args:
        settings: A ``Config`` or a mapping with these two keys and ``mask_history``.
        takes_histories: Whether the loss takes histories, see ``ItemLoss.forward``.
    """
    partition, mask = settings["history_partition"], settings["train_mask_history"]
    ranked = settings["mask_history"] not in MASKING
    may_mask = takes_histories and settings["mask_history"] == "all" and partition is not True
    return HistoryUse(
        bool(partition) if partition != "auto" else takes_histories and ranked and mask is not True,
        bool(mask) if mask != "auto" else "auto" if may_mask else False,
    )


def leaves_out_history(masks: bool | Literal["auto"], train: Dataset) -> bool:
    """:attr:`HistoryUse.masks`, where ``auto`` is on if the training data are dense.

    The loss compares a target with all items. Where histories are a small part of them, their items are useful
    negatives; where they are a larger part, training pushes down what users like.

    Args:
        masks: :attr:`HistoryUse.masks`.
        train: The data set of the training split.
    """
    return density(train) >= LEAST_DENSITY if masks == "auto" else masks


def density(train: Dataset) -> float:
    """Training targets per user and item; numbers of users and items include the padding, as in RecBole."""
    return float(train.inter_num / (train.user_num * train.item_num))


class EarlierItems:
    """The items before the first item of each row.

    Args:
        item: Items of all users, one user's after the other's, in time order; int64, shape (N,).
        begin: The position of the first item of each row among them; int64, shape (n,).
        length: The number of items of the user before it; int64, shape (n,).
    """

    def __init__(self, item: Tensor, begin: Tensor, length: Tensor) -> None:
        self._item, self._begin, self._length = item, begin, length

    def __getitem__(self, index: Any) -> Tensor:
        """Earlier items of some rows, oldest first, followed by zeros; int64, shape (b, e), e at least 1."""
        length = self._length[index]
        longest = max(1, int(length.max()))
        return PrefixColumn(self._item, self._begin[index], length, longest).tensor()


class EarlierItemsMixin(DatasetMixin):
    """With ``train_mask_history``, training rows with a field of the items that their user had before.

    For a class with ``WindowsMixin``. If the files hold the histories, only what they hold is known.

    Attributes:
        earlier: The items before each training row; ``None`` for other parts, and where nothing is left out.
    """

    earlier: EarlierItems | None = None
    windows: Any
    written_lists: Any

    def build(self) -> list[Any]:
        """See ``SequentialDataset.build``."""
        train, *held_out = super().build()
        # A model whose loss takes no histories does not read the field.
        if leaves_out_history(history_use(self.config).masks, train) and isinstance(train.inter_feat, LazyPrefixes):
            train.earlier = self._earlier_items(train)
        return [train, *held_out]

    def _earlier_items(self, train: Any) -> EarlierItems:
        if train.windows is not None:
            return EarlierItems(train.windows.item, train.windows.start, train.windows.start - train.windows.first)
        rows = train.inter_feat
        histories = self.histories_before(rows, self.inter_feat)
        read = rows[self.item_list_length_field]
        return EarlierItems(histories.item, histories.position - read, histories.length - read)

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        rows = super().__getitem__(index, join)
        if self.earlier is not None:
            rows.update(Interaction({EARLIER_LIST_FIELD: self.earlier[index]}))
        return rows
