"""Times between the items of a history, for models that read time.

RecBole keeps times as 32-bit floats, in steps of 128 s at today's Unix seconds, and may scale them to 0 … 1. Here the
times of the file are kept beside them in 64 bits, and a batch has their differences.

**Interface.** With the resolved key ``reads_time``, a batch of our data sets (training, whole or in prefixes, and
evaluation), and the input that ``recommend`` and ``export`` give to a model, have the field
:data:`~recbole_posattn.data.fields.TIME_LIST_FIELD`: seconds relative to the newest item of the history, float64, shape
(b, L), laid out as the items are: oldest first, then padding, where it is 0. Nothing is computed or stored for other
models. :class:`recbole_posattn.models.sasrec.SASRecBase` aligns it with the items and hands it to ``hidden_states`` as
``times``. The time of a target is in no history.

Shape keys: b rows of a batch, n rows, N interactions, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import EXACT_TIME_FIELD, TIME_LIST_FIELD
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.errors import DataError

# Times that only give an order have the same gap everywhere, except where interactions were filtered out.
_SHARE_OF_ONE_GAP = 0.9


def relative_times(times: Tensor, length: Tensor) -> Tensor:
    """Times relative to the newest item, 0 at padding.

    Args:
        times: Of the items of each history, oldest first, then anything; float64, shape (…, L).
        length: Items in each history, at least 1; int64, shape (…).

    Returns:
        float64, shape (…, L).
    """
    newest = times.gather(-1, length.unsqueeze(-1) - 1)
    padding = torch.arange(times.shape[-1], device=times.device) >= length.unsqueeze(-1)
    return (times - newest).masked_fill(padding, 0.0)


class RelativeTimesMixin(DatasetMixin):
    """Histories with times between their items, for a subclass of RecBole's ``SequentialDataset`` with exact times.

    Attributes:
        times_are_gaps: Whether the differences of times mean anything: not where times are only an order.
        median_gap: Median of the seconds between a training target and the item before it, of those above 0; 1 if
            there are none.
    """

    inter_feat: Any
    times_are_gaps = True
    median_gap = 1.0

    def build(self) -> list[Dataset]:
        """See ``Dataset.build``."""
        parts = super().build()
        if self.config["reads_time"]:
            self._look_at_gaps([self, *parts], parts[0].inter_feat)
        return parts

    def _look_at_gaps(self, datasets: list[Any], rows: Interaction) -> None:
        gaps = self._gaps_before_targets(rows)
        later = gaps[gaps > 0]
        median = float(np.median(later)) if len(later) else 1.0
        one_gap = len(later) > 0 and float(np.mean(gaps == median)) >= _SHARE_OF_ONE_GAP
        by_order = one_gap and self.config["time_is_order"] == "auto"
        if by_order:
            reason = (
                f"data set {self.dataset_name!r}: the gaps between successive times are {median:g}, so "
                f"{self.time_field} only orders the interactions; set time_is_order to False if this is wrong"
            )
            if self.config["read_times"] is True:
                raise DataError(f"{self.config['model']} reads the times between interactions, but {reason}")
            self.logger.info(f"{reason}. The parts of {self.config['model']} that read time are off")
        for dataset in datasets:
            dataset.times_are_gaps, dataset.median_gap = not by_order, median

    def _gaps_before_targets(self, rows: Interaction) -> np.ndarray:
        """Seconds between the target of each row and the item before it; shape (n,)."""
        listed = EXACT_TIME_FIELD + self.config["LIST_SUFFIX"]
        if listed not in rows:
            raise DataError(
                f"data set {self.dataset_name!r}: {self.config['model']} reads the times between interactions; each "
                f"row of the files has its history, but not the times of it: add the column "
                f"{self.time_field}{self.config['LIST_SUFFIX']}:float_seq"
            )
        last = rows[self.item_list_length_field] - 1
        newest = torch.cat(
            [rows[listed][part].gather(1, last[part, None]).squeeze(1) for part in torch.arange(len(last)).split(2**16)]
        )
        gaps: np.ndarray = (rows[EXACT_TIME_FIELD] - newest).numpy()
        return gaps

    def with_relative_times(self, rows: Interaction) -> Interaction:
        """Rows of a batch with times relative to the newest item of each history, if the model reads time.

        Args:
            rows: With histories that are built, of shape (b, L); changed in place.
        """
        listed = EXACT_TIME_FIELD + self.config["LIST_SUFFIX"]
        if listed in rows:
            if self.times_are_gaps:
                rows[TIME_LIST_FIELD] = relative_times(rows[listed], rows[self.item_list_length_field])
            del rows[listed], rows[EXACT_TIME_FIELD]
        return rows
