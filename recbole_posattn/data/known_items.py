"""Splits in time that leave out the items that nobody had before validation begins."""

from __future__ import annotations

from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np

from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.splits import TimeSplit
from recbole_posattn.errors import DataError


class KnownItemsMixin(DatasetMixin):
    """With ``drop_unseen_items``, the data set of the items in training, for a subclass of RecBole's ``Dataset``.

    The interactions with other items are left out before users and items get their numbers. So these items are neither
    targets nor in histories nor in the catalogue, for whatever model.
    """

    inter_feat: Any  # RecBole's changes its type on the way
    _part_sizes: np.ndarray | None = None  # interactions left in training, validation and test

    def _data_filtering(self) -> None:
        super()._data_filtering()
        if self.config["drop_unseen_items"]:
            self._drop_unseen_items()

    def _drop_unseen_items(self) -> None:
        split, time, item = TimeSplit.of(self.config), self.inter_feat[self.time_field], self.inter_feat[self.iid_field]
        assert split is not None  # Config allows no other
        part = split.part(time.to_numpy(), time.to_numpy())
        trained = item[part == 0].unique()
        kept = item.isin(trained)
        if not kept.any():
            raise DataError(
                f"data set {self.config['dataset']!r}: no interaction is in the training part of the split by time, so "
                f"drop_unseen_items leaves none; the times go from {time.min()} to {time.max()}, and time_split_tie is "
                f"{split.tie}: choose a split by users, such as --protocol=leave_one_out"
            )
        self.logger.info(
            f"{(~kept).sum():,} interactions with {item.nunique() - len(trained):,} items that do not occur in "
            "training are left out"
        )
        self._part_sizes = np.bincount(part[kept], minlength=3)
        self.inter_feat.drop(self.inter_feat.index[~kept], inplace=True)
        if self.item_feat is not None:
            known = self.item_feat[self.iid_field].isin(trained)
            self.item_feat.drop(self.item_feat.index[~known], inplace=True)
        if hasattr(self, "_filter_link"):  # of a knowledge graph
            self._filter_link()
        self._reset_index()

    def part_in_time(self, split: TimeSplit, time: np.ndarray, all_times: np.ndarray) -> np.ndarray:
        """The part of each time, cut where it was before items were left out.

        Args:
            split: How to cut.
            time: Shape (n,).
            all_times: Of all interactions that are left, shape (N,).

        Returns:
            As :meth:`TimeSplit.part`.
        """
        if self._part_sizes is None:
            return split.part(time, all_times)
        # Equal times are never in two parts, so that the sizes of the parts give the cuts, however times are scaled.
        earlier = np.searchsorted(np.sort(all_times), time, side="left")
        return np.searchsorted(self._part_sizes.cumsum()[:2], earlier, side="right")
