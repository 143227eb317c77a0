"""Items that a user had before the items of a training row, for ``train_mask_history``.

The ranking of a held-out target leaves out the user's whole history, of which a row holds the newest items only.

Shape keys: N interactions, n training rows or windows, b rows of a batch, e earlier items.
"""

from __future__ import annotations

from typing import Any, Literal

import recbole_posattn.compat  # noqa: F401

from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import EARLIER_LIST_FIELD
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.prefixes import LazyPrefixes, PrefixColumn

Switch = bool | Literal["auto"] | None

# Values of mask_history with which the items of a history, but perhaps the target, are not ranked.
MASKING = ("all", "except_target")


def partitions_history(history_partition: Switch, mask_history: str | None) -> bool:
    """Whether the scores of history items get a bias; ``auto``: where these items are ranked.

    A sequential model without ``mask_history`` is ranked as RecBole ranks it, with all items of the history.
    """
    return mask_history not in MASKING if history_partition == "auto" else bool(history_partition)


def masks_in_training(train_mask_history: Switch, mask_history: str | None) -> bool:
    """Whether history items leave the loss; ``auto``: where they leave the ranking."""
    return mask_history in MASKING if train_mask_history == "auto" else bool(train_mask_history)


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
        masks = masks_in_training(self.config["train_mask_history"], self.config["mask_history"])
        if masks and isinstance(train.inter_feat, LazyPrefixes):
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
