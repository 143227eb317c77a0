"""Tokens in arrays whose memory does not depend on the longest one."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
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

    def _concat_remaped_tokens(self, remap_list: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        columns = [
            feat[field]
            if kind == FeatureType.TOKEN
            else itertools.chain.from_iterable(map(np.ndarray.tolist, feat[field]))
            for feat, field, kind in remap_list
        ]
        tokens = [np.array(list(column), dtype=object) for column in columns]
        return np.concatenate(tokens), np.cumsum([len(of_column) for of_column in tokens])[:-1]

    def _remap(self, remap_list: list[Any]) -> None:
        if not remap_list:
            return
        tokens, begins = self._concat_remaped_tokens(remap_list)
        number, known = pd.factorize(tokens)
        of_number = np.array(["[PAD]", *map(str, known)], dtype=object)
        of_token = {token: place for place, token in enumerate(of_number)}
        for (feat, field, kind), numbers in zip(remap_list, np.split(number + 1, begins)):
            self.field2id_token.setdefault(field, of_number)
            self.field2token_id.setdefault(field, of_token)
            feat[field] = (
                numbers if kind == FeatureType.TOKEN else np.split(numbers, np.cumsum(feat[field].map(len))[:-1])
            )
