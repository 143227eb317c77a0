"""Items that a user had before the items of a training row, for ``train_mask_history``.

The ranking of a held-out target leaves out the user's whole history, of which a row holds the newest items only.

Shape keys: N interactions, n training rows or windows, b rows of a batch, e earlier items.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import EARLIER_LIST_FIELD
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.prefixes import LazyPrefixes, PrefixColumn

# Values of mask_history with which the items of a history, but perhaps the target, are not ranked.
MASKING = ("all", "except_target")


class HistoryUse(NamedTuple):
    """How training treats the items of a user's history.

    Attributes:
        partitions: Their scores get a learned bias (``history_partition``).
        masks: They leave the loss (``train_mask_history``).
    """

    partitions: bool
    masks: bool


def history_use(settings: Any, takes_histories: bool = True) -> HistoryUse:
    """What ``history_partition`` and ``train_mask_history`` come to.

    ``auto`` follows the ranking: a bias where history items are ranked, no history items in the loss where none is
    ranked. With ``mask_history: except_target``, a target in the history is ranked but no other history item is:
    neither key is on, since both would teach the model that a history item in the ranking is the target. ``auto`` gives
    way if the other key is given as ``True``, and is off if the loss takes no histories. A sequential model without
    ``mask_history`` is ranked as RecBole ranks it, with all items of the history.

    Args:
        settings: A ``Config`` or a mapping with these two keys and ``mask_history``.
        takes_histories: Whether the loss takes histories, see ``ItemLoss.forward``.
    """
    partition, mask = settings["history_partition"], settings["train_mask_history"]
    ranked = settings["mask_history"] not in MASKING
    left_out = settings["mask_history"] == "all"
    return HistoryUse(
        bool(partition) if partition != "auto" else takes_histories and ranked and mask is not True,
        bool(mask) if mask != "auto" else takes_histories and left_out and partition is not True,
    )


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

    For a class with ``WindowsMixin``. Rows whose files hold their histories have no such items: what these files leave
    out is not known.

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
        if history_use(self.config).masks and isinstance(train.inter_feat, LazyPrefixes):
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
