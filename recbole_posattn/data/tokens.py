"""Tokens in arrays whose memory does not depend on the longest one."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType

from recbole_posattn.data.mixin import DatasetMixin


def as_tokens(values: Collection[object]) -> np.ndarray:
    """Values as strings, in an array of objects; shape (n,).

    A NumPy array of strings reserves the length of the longest one for each: 20,000 strings with one of 20 kB take
    1.5 GB.
    """
    return np.fromiter(map(str, values), dtype=object, count=len(values))


class LongTokensMixin(DatasetMixin):
    """Number tokens in arrays of objects, for a subclass of RecBole's ``Dataset``; the numbers are RecBole's.

    RecBole's NumPy arrays of strings reserve the length of the longest token for each.
    """

    def _dataframe_to_interaction(self, data: pd.DataFrame) -> Interaction:
        """See ``Dataset._dataframe_to_interaction``, which copies the numbers of tokens."""
        shared = {
            field: torch.from_numpy(values)
            for field in data
            if self.field2type[field] == FeatureType.TOKEN
            and (values := data[field].to_numpy()).dtype == np.int64
            and values.flags.writeable
        }
        others = super()._dataframe_to_interaction(data[[field for field in data if field not in shared]])
        return Interaction({field: shared[field] if field in shared else others[field] for field in data})

    def _concat_remaped_tokens(self, remap_list: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        tokens = [_flat(feat[field], kind) for feat, field, kind in remap_list]
        return np.concatenate(tokens), np.cumsum([len(of_column) for of_column in tokens])[:-1]

    def _remap(self, remap_list: list[Any]) -> None:
        """Number the tokens of columns 1, 2, … in the order in which they first occur; 0 is a missing one."""
        if not remap_list:
            return
        known: dict[str, int] = {}
        for feat, field, kind in remap_list:
            code, tokens = _factorized(feat[field], kind)
            numbers = np.array([known.setdefault(token, len(known) + 1) for token in tokens] + [0])[code]
            feat[field] = (
                numbers if kind == FeatureType.TOKEN else np.split(numbers, np.cumsum(feat[field].map(len))[:-1])
            )
        of_number = np.array(["[PAD]", *known], dtype=object)
        of_token = {token: place for place, token in enumerate(of_number)}
        for _, field, _ in remap_list:
            self.field2id_token.setdefault(field, of_number)
            self.field2token_id.setdefault(field, of_token)


def _flat(column: pd.Series, kind: FeatureType) -> np.ndarray:
    """The tokens of a column, of all its lists one after the other; objects, shape (n,)."""
    tokens = column if kind == FeatureType.TOKEN else itertools.chain.from_iterable(map(np.ndarray.tolist, column))
    return np.array(list(tokens), dtype=object)


def _factorized(column: pd.Series, kind: FeatureType) -> tuple[np.ndarray, list[str]]:
    """Codes of a column's tokens in the order in which they first occur, −1 for missing ones, and the tokens."""
    if isinstance(column.dtype, pd.CategoricalDtype):  # some categories may have been filtered out
        codes = column.cat.codes.to_numpy()
        if _in_order(codes, len(column.cat.categories)):
            return codes, column.cat.categories.tolist()
        code, present = pd.factorize(codes)
        code, present = _without_missing(code, present)
        return code, column.cat.categories[present].tolist()
    code, tokens = pd.factorize(_flat(column, kind))
    return code, list(map(str, tokens))


def _in_order(codes: np.ndarray, n_categories: int) -> bool:
    """Whether all categories occur, first in their order; −1 may occur anywhere."""
    if not len(codes):
        return n_categories == 0
    highest = np.maximum.accumulate(codes)
    return bool(highest[-1] == n_categories - 1 and highest[0] <= 0 and (highest[1:] <= highest[:-1] + 1).all())


def _without_missing(code: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and what they stand for without −1, which stands for a missing token."""
    missing = np.flatnonzero(present < 0)
    if not len(missing):
        return code, present
    (place,) = missing
    return np.where(code == place, -1, code - (code > place)), np.delete(present, place)
