"""The order of interactions in RecBole's data sets: by user and time, and by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.utils import ModelType

from recbole_posattn.data.cache import cached_sequences
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.ordering import grouped, sequence_order
from recbole_posattn.data.prefixes import LazyPrefixes, single_values


class SequencingMixin(DatasetMixin):
    """Sort interactions as RecBole does, for a subclass of its ``Dataset``."""

    inter_feat: Any
    # The rank of each interaction's time, from 0, if the file is in time order; int32, shape (N,)
    _time_rank: np.ndarray | None = None

    def _order_sequences(self) -> None:
        """Sort the interactions by user, then by time, as RecBole's ``sort`` does."""
        interactions = self.inter_feat
        if self.time_field not in interactions:
            self.sort(by=[self.uid_field, self.time_field])  # raises RecBole's error
        time = single_values(interactions[self.time_field])

        def order() -> np.ndarray:
            return sequence_order(interactions[self.uid_field].numpy(), time)

        if self.config["data_cache"] is not None and self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            cached = cached_sequences(self, interactions, order)
            if cached is not None:
                self.inter_feat = cached
                return
        index = torch.from_numpy(order()).long()
        rank = _ranks_in_order(time)
        self._time_rank = None if rank is None else rank[index.numpy()]
        for field in interactions:
            interactions[field] = interactions[field][index]

    def sort(self, by: str | Sequence[str], ascending: bool | Sequence[bool] = True) -> None:
        """See ``Dataset.sort``; sorting by time is one pass over the ranks of times if they are known."""
        rows = self.inter_feat
        if (
            by == self.time_field
            and ascending is True
            and self._time_rank is not None
            and isinstance(rows, LazyPrefixes)
        ):
            rows.reorder(torch.from_numpy(grouped(self._time_rank[rows.position.numpy()])).long())
        else:
            super().sort(by, ascending)

    @staticmethod
    def forget_time_ranks(datasets: Iterable[SequencingMixin]) -> None:
        """Free the ranks of exact times; after the split, rows are sorted by the rounded times that models get."""
        for dataset in datasets:
            dataset._time_rank = None


def _ranks_in_order(time: np.ndarray) -> np.ndarray | None:
    """The ranks of times in ascending order, equal for equal ones; int32, shape (n,). ``None`` for any other order."""
    if not 0 < len(time) < 2**31 or not (time[1:] >= time[:-1]).all():
        return None
    rank = np.zeros(len(time), dtype=np.int32)
    np.cumsum(time[1:] > time[:-1], dtype=np.int32, out=rank[1:])
    return rank
