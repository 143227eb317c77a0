"""Counts of users and items in RecBole's data sets, without a Python loop over interactions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_posattn.data.mixin import DatasetMixin


class CountingMixin(DatasetMixin):
    """Count and filter interactions, for a subclass of RecBole's ``Dataset``; the results are RecBole's."""

    inter_feat: Any

    def counter(self, field: str) -> Counter[int]:
        """See ``Dataset.counter``."""
        if field not in self.inter_feat or self.field2type[field] != FeatureType.TOKEN:
            return super().counter(field)
        number, different = pd.factorize(np.asarray(self.inter_feat[field]))
        return Counter(dict(zip(different, np.bincount(number).tolist())))

    @property
    def avg_actions_of_users(self) -> np.float64:
        """See ``Dataset.avg_actions_of_users``."""
        return self._mean_count(self.uid_field)

    @property
    def avg_actions_of_items(self) -> np.float64:
        """See ``Dataset.avg_actions_of_items``."""
        return self._mean_count(self.iid_field)

    def _mean_count(self, field: str) -> np.float64:
        counts = np.bincount(np.asarray(self.inter_feat[field]))
        return np.float64(counts[counts > 0].mean())

    def _filter_inter_by_user_or_item(self) -> None:
        """See ``Dataset._filter_inter_by_user_or_item``, which copies all rows even if nothing can be left out."""
        if self.user_feat is not None or self.item_feat is not None:
            super()._filter_inter_by_user_or_item()

    def _filter_by_inter_num(self) -> None:
        """See ``Dataset._filter_by_inter_num``."""
        fields = {"user": self.uid_field, "item": self.iid_field}
        intervals = {side: self._parse_intervals_str(self.config[f"{side}_inter_num_interval"]) for side in fields}
        if None in fields.values() or not all(_is_counted(self.inter_feat[field]) for field in fields.values()):
            super()._filter_by_inter_num()
            return
        if any(len(of_side or ()) > 1 for of_side in intervals.values()):
            self.logger.warning("More than one interval of interaction number are given!")
        while any([*intervals.values()]):
            kept = np.ones(len(self.inter_feat), dtype=bool)
            n_dropped = 0
            for side, field in fields.items():
                column = self.inter_feat[field].cat
                banned = self._banned(column, intervals[side])
                feat = getattr(self, f"{side}_feat")
                if feat is not None:
                    dropped = _banned_in_features(column, banned, feat[field], intervals[side])
                    feat.drop(feat.index[dropped], inplace=True)
                    n_dropped += int(dropped.sum())
                kept &= ~banned[column.codes]
            n_dropped += int((~kept).sum())
            if not n_dropped:
                break
            self.inter_feat.drop(self.inter_feat.index[~kept], inplace=True)

    def _banned(self, column: Any, intervals: list[Any] | None) -> np.ndarray:
        """Whether a category occurs, but not as often as the intervals allow; boolean, by code."""
        count = np.bincount(column.codes, minlength=len(column.categories))
        if not intervals:
            return np.zeros(len(count), dtype=bool)
        return (count > 0) & ~np.broadcast_to(self._within_intervals(count, intervals), count.shape)


def _banned_in_features(
    column: Any, banned: np.ndarray, features: pd.Series, intervals: list[Any] | None
) -> np.ndarray:
    """Which rows of a file of users or items are left out; those of too few interactions are added to ``banned``."""
    count = np.append(np.bincount(column.codes, minlength=len(column.categories)), 0)
    code = column.categories.get_indexer(features)  # −1 without interactions
    too_few = count[code] < (intervals[0][1] if intervals else -1)
    banned[code[too_few & (code >= 0)]] = True
    dropped: np.ndarray = too_few | np.append(banned, False)[code]
    return dropped


def _is_counted(column: pd.Series) -> bool:
    """Whether a column of tokens is stored as categories, none of them missing."""
    return isinstance(column.dtype, pd.CategoricalDtype) and bool((column.cat.codes >= 0).all())
