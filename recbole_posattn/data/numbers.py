"""Columns of numbers in RecBole's data sets: missing values and normalization."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.errors import DataError

_NUMBERS = (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)


class NumbersMixin(DatasetMixin):
    """Fill and normalize columns of numbers, for a subclass of RecBole's ``Dataset``.

    The values are RecBole's where it has a result. It fills a column without values with NaN, their mean, which is
    refused here, and fails to normalize lists whose numbers are all equal.
    """

    def _fill_nan(self) -> None:
        """See ``Dataset._fill_nan``."""
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                if self.field2type[field] in _NUMBERS:
                    self._require_values(name.removesuffix("_feat"), field, feat[field])
                if self.field2type[field] == FeatureType.FLOAT:
                    # the mean of equal numbers may be rounded to another one, which normalization would tell apart
                    mean = np.clip(feat[field].mean(), feat[field].min(), feat[field].max())
                    feat[field] = feat[field].fillna(mean)
        super()._fill_nan()

    def _require_values(self, source: str, field: str, column: pd.Series) -> None:
        if not _has_values(column):
            raise DataError(
                f"data set {self.dataset_name!r}: column {field!r} of the file .{source} has no value in the rows that "
                "remain after filtering (val_interval, user_inter_num_interval, item_inter_num_interval, rm_dup_inter, "
                "and the first row of each user or item); filter less, fill the column in, or leave it out with "
                "load_col or unload_col"
            )

    def _normalize(self) -> None:
        """See ``Dataset._normalize``."""
        fields = self.float_like_fields if self.config["normalize_all"] else self.config["normalize_field"] or []
        for field in fields:
            if self.field2type[field] not in _NUMBERS:
                self.logger.warning(f"{field} holds no numbers and is not normalized")
                continue
            for feat in self.field2feats(field):
                if self.field2type[field] == FeatureType.FLOAT:
                    feat[field] = self._scaled(field, feat[field].to_numpy())
                else:
                    ends = np.cumsum(feat[field].map(len))[:-1]
                    feat[field] = np.split(self._scaled(field, np.concatenate(feat[field].to_list())), ends)

    def _scaled(self, field: str, values: np.ndarray) -> np.ndarray:
        """Values scaled to 0 … 1, or all 1 if they are equal; shape (n,). Labels that are all 0 stay 0."""
        low, high = values.min(), values.max()
        if low < high:
            return (values - low) / (high - low)
        if field == self.label_field and low == 0:
            return values
        self.logger.warning(f"All values of {field} are {low:g}: normalized, all are 1")
        return np.ones_like(values)


def _has_values(column: pd.Series) -> bool:
    """Whether a column of numbers or lists of numbers has at least one."""
    if column.dtype != object:
        return bool(column.notna().any())
    return any(isinstance(numbers, np.ndarray) and len(numbers) for numbers in column)
