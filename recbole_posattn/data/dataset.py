"""RecBole's data sets with histories built per batch and for each held-out target, and our data set for training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.data.dataset import (
    Dataset,
    DecisionTreeDataset,
    DIENDataset,
    KGSeqDataset,
    KnowledgeBasedDataset,
    SequentialDataset,
)
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.earlier_items import EarlierItemsMixin
from recbole_posattn.data.exact_times import ExactTimesMixin
from recbole_posattn.data.fields import EXACT_TIME_FIELD, TARGET_LIST_FIELD, TIME_LIST_FIELD
from recbole_posattn.data.histories import Histories
from recbole_posattn.data.known_items import KnownItemsMixin
from recbole_posattn.data.prefixes import LazyPrefixes, history_lengths, sequences_of, single_values
from recbole_posattn.data.presplit import PreSplitMixin, laid_out, laid_out_with_times
from recbole_posattn.data.relative_times import RelativeTimesMixin
from recbole_posattn.data.sequencing import SequencingMixin
from recbole_posattn.data.splits import (
    GroupedRows,
    TimeSplit,
    leave_out_last,
    parts_from_a_common_time,
    ratio_part,
    time_part,
)
from recbole_posattn.data.windows import Windows, cut_windows

# The field with the length of a history, for models that do not read it.
_LENGTH = "history length"

# RecBole's modes of leave_one_out, with the parts after the training rows that are filled in this order.
_LEFT_OUT_PARTS = {"valid_and_test": [1, 2], "valid_only": [1], "test_only": [2]}


def lazy_prefixes(
    interactions: Interaction, uid_field: str, length_field: str, listed: Mapping[str, str], max_length: int
) -> LazyPrefixes:
    """The rows (history → target) of interactions grouped by user, each user's in time order.

    Args:
        interactions: The fields of N interactions.
        uid_field: The field of users.
        length_field: The name of the new column with the length of each history.
        listed: Fields that get histories, with the names of their list fields.
        max_length: The most items in a history, L.
    """
    length = history_lengths(interactions[uid_field], max_length)
    return LazyPrefixes(
        columns={},
        position=torch.nonzero(length).flatten(),
        length_field=length_field,
        sequences={name: interactions[field] for field, name in listed.items()},
        max_length=max_length,
        targets={**{field: interactions[field] for field in interactions}, length_field: length},
    )


class LazyPrefixesMixin(RelativeTimesMixin, PreSplitMixin, KnownItemsMixin, SequencingMixin, ExactTimesMixin):
    """RecBole's prefixes and splits, row by row and field by field, in memory linear in the number of interactions.

    For a subclass of RecBole's ``SequentialDataset`` that does not override ``data_augmentation``. With
    ``lazy_prefixes: False`` everything is as in RecBole.

    Besides RecBole's splits there is ``TQ``, by quantiles of all times. If ``mask_history`` is given, the validation
    and test parts have :attr:`histories`, and unseen targets are dropped (``drop_unseen_targets``).

    Attributes:
        sequence_users: The users in the order of their sequences, and how many interactions each has; both int64.
            ``None`` if the rows are not lazy.
        histories: The interactions before each target of this part; ``None`` if ``mask_history`` is not given.
        training_counts: How often each item occurs in the training part; int64, shape (items,); ``None`` if
            ``mask_history`` is not given.
    """

    sequence_users: tuple[Tensor, Tensor] | None = None
    histories: Histories | None = None
    training_counts: Tensor | None = None

    def data_augmentation(self) -> None:
        """See ``SequentialDataset.data_augmentation``."""
        if not self.config["lazy_prefixes"]:
            super().data_augmentation()
            return
        self._aug_presets()
        self._check_field("uid_field", "time_field")
        self._order_sequences()
        self._cut_prefixes()

    def _cut_prefixes(self) -> None:
        """Make rows (history → target) of interactions that are grouped by user, each user's in time order."""
        interactions = self.inter_feat
        start, count = sequences_of(interactions[self.uid_field])
        self.sequence_users = interactions[self.uid_field][start].long(), count
        listed = {field: getattr(self, f"{field}_list_field") for field in interactions if field != self.uid_field}
        self.inter_feat = lazy_prefixes(
            interactions, self.uid_field, self.item_list_length_field, listed, self.max_item_list_len
        )

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        rows = self.inter_feat[index]
        if isinstance(rows, LazyPrefixes):
            rows = rows.dense()
        rows = self.with_relative_times(rows)
        return self.join(rows) if join else rows

    def _build_parts(self) -> list[SequentialDataset]:
        split = TimeSplit.of(self.config)
        if self.is_presplit:
            parts = self._parts_of_files()
        elif split is not None:
            self._change_feat_format()
            self.sort(by=self.time_field)
            times, all_times = single_values(self.inter_feat[self.time_field]), self._values_of_all(self.time_field)
            in_part = torch.from_numpy(self.part_in_time(split, times, all_times))
            parts = self._split([torch.nonzero(in_part == part).flatten() for part in range(3)])
        else:
            parts = super()._build_parts()
        self.forget_time_ranks([self, *parts])
        if self.config["mask_history"] is not None:
            self._attach_histories(parts)
        return parts

    def _values_of_all(self, field: str) -> np.ndarray:
        """A field of all interactions, user by user; shape (N,)."""
        return single_values(self.inter_feat.sequences[field + self.config["LIST_SUFFIX"]])

    def _training_interactions(self, held_out: list[SequentialDataset]) -> Tensor:
        """Which of all interactions belong to the training part; boolean, shape (N,)."""
        split = TimeSplit.of(self.config)
        if self.is_presplit:
            return self._number < self.file_size_list[0]
        if split is not None:  # before the first cut; some later ones are not targets either
            times = self._values_of_all(self.time_field)
            return torch.from_numpy(self.part_in_time(split, times, times) == 0)
        trained = torch.ones(len(self._values_of_all(self.iid_field)), dtype=torch.bool)
        for part in held_out:
            trained[part.inter_feat.position] = False
        return trained & ~self._never_targets_after_a_cut(held_out)

    def _never_targets_after_a_cut(self, held_out: list[SequentialDataset]) -> Tensor:
        """The first interactions of users who come after a cut in time; boolean, shape (N,)."""
        parts = [held_out[part - 1].inter_feat.position for part in parts_from_a_common_time(self.config["eval_args"])]
        late = torch.zeros(len(self._values_of_all(self.iid_field)), dtype=torch.bool)
        if any(map(len, parts)):
            times = torch.from_numpy(self._values_of_all(self.time_field))
            late = times >= times[torch.cat(parts)].min()
            late[self.inter_feat.position] = False
        return late

    def _attach_histories(self, parts: list[SequentialDataset]) -> None:
        """Give the held-out parts their histories; drop targets whose item is not among the training interactions."""
        train, *held_out = parts
        if self.written_lists:
            trained_on, _ = laid_out(self, train.inter_feat)
        else:
            self._trained = self._training_interactions(held_out)
            trained_on = torch.from_numpy(self._values_of_all(self.iid_field))[self._trained]
        self.training_counts = torch.bincount(trained_on, minlength=self.item_num)
        for part in held_out:
            part.training_counts = self.training_counts
            if self.config["drop_unseen_targets"]:
                part.inter_feat = part.inter_feat[self.training_counts[part.inter_feat[self.iid_field]] > 0]
            part.histories = self.histories_before(part.inter_feat, self.inter_feat)

    def split_by_ratio(self, ratios: list[float], group_by: str | None = None) -> list[SequentialDataset]:
        """See ``Dataset.split_by_ratio``."""
        if not self._is_lazy():
            return super().split_by_ratio(ratios, group_by)
        shares = [ratio / sum(ratios) for ratio in ratios]
        if group_by is None:
            points = [0, *self._calcu_split_ids(len(self), shares), len(self)]
            return self._split([slice(begin, end) for begin, end in itertools.pairwise(points)])
        rows = GroupedRows.by(self.inter_feat[group_by])
        return self._split(rows.parts(ratio_part(rows, lambda size: self._calcu_split_ids(size, shares)), len(shares)))

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[SequentialDataset]:
        """See ``Dataset.leave_one_out``."""
        if not self._is_lazy() or group_by is None or leave_one_mode not in _LEFT_OUT_PARTS:
            return super().leave_one_out(group_by, leave_one_mode)
        left_out = _LEFT_OUT_PARTS[leave_one_mode]
        parts = dict(zip([0, *left_out], leave_out_last(self.inter_feat.stored_column(group_by), len(left_out))))
        return self._split([parts.get(part, torch.empty(0, dtype=torch.int64)) for part in range(3)])

    def time_based_split(self, ratios: list[float], group_by: str | None) -> list[SequentialDataset]:
        """See ``Dataset.time_based_split``."""
        if not self._is_lazy() or group_by is None or self.time_field not in self.inter_feat:
            return super().time_based_split(ratios, group_by)
        shares = [ratio / sum(ratios) for ratio in ratios]
        rows = GroupedRows.by(self.inter_feat[group_by])
        return self._split(rows.parts(time_part(rows, single_values(self.inter_feat[self.time_field]), shares), 3))

    def _is_lazy(self) -> bool:
        return isinstance(self.inter_feat, LazyPrefixes)

    def _split(self, rows: Sequence[Tensor | slice]) -> list[SequentialDataset]:
        self._drop_unused_col()
        return [self.copy(self.inter_feat[index]) for index in rows]


class WindowsMixin(LazyPrefixesMixin):
    """With ``train_objective: sequence``, the training split is served as windows with a label at every position.

    Loading, filtering, ordering and splitting are RecBole's, and so are the rows of the validation and test splits.
    With any other objective the training split is RecBole's, too.
    """

    windows: Windows | None = None

    def build(self) -> list[SequentialDataset]:
        """Split as RecBole does, then cut the sequences of the training rows into windows if the objective asks."""
        train, valid, test = super().build()
        if self.config["train_objective"] == "sequence":
            train.windows = train._cut_windows()
        return [train, valid, test]

    def _cut_windows(self) -> Windows:
        rows = self.inter_feat
        if isinstance(rows, LazyPrefixes) and not self.written_lists:
            suffix, position = self.config["LIST_SUFFIX"], rows.position
            item, time = rows.sequences[self.iid_field + suffix], rows.sequences.get(EXACT_TIME_FIELD + suffix)
            history_length = rows.column(self.item_list_length_field)
        else:
            item, position, history_length, time = laid_out_with_times(self, rows)
        stride = self.config["window_stride"] or self.max_item_list_len
        last_only = bool(self.config["last_window_only"])
        windows = cut_windows(item, position, history_length, self.max_item_list_len, stride, last_only)
        return replace(windows, time=time if self.times_are_gaps else None)

    def __len__(self) -> int:
        return super().__len__() if self.windows is None else len(self.windows)

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        if self.windows is None:
            return super().__getitem__(index, join)
        windows, rows = torch.as_tensor(index), self.inter_feat
        items, length, target, row = self.windows.gather(windows, self.max_item_list_len)
        times = self.windows.relative_times(windows, self.max_item_list_len)
        user = rows.column(self.uid_field) if isinstance(rows, LazyPrefixes) else rows[self.uid_field]
        return Interaction(
            {
                self.uid_field: user[row.max(dim=-1).values],
                self.iid_field + self.config["LIST_SUFFIX"]: items,
                self.item_list_length_field: length,
                TARGET_LIST_FIELD: target,
                **({} if times is None else {TIME_LIST_FIELD: times}),
            }
        )


class LazySequentialDataset(WindowsMixin, SequentialDataset):
    """RecBole's ``SequentialDataset`` with lazy prefixes, or with windows for training."""


class LazyKGSeqDataset(WindowsMixin, KGSeqDataset):
    """RecBole's ``KGSeqDataset`` with lazy prefixes, or with windows for training."""


class HeldOutDatasetMixin(LazyPrefixesMixin):
    """RecBole's data sets for models without sequences; with ``mask_history``, they have sequential models' targets.

    RecBole evaluates such a model once per user, on all of the user's held-out items, and splits by other rules. Here
    each held-out interaction except a user's first is a target of its own, as for sequential models, and the model is
    trained on the interactions of the same training part.
    """

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        if self.config["mask_history"] is not None:
            if not self.is_presplit:
                self._order_sequences()
            fields = [field for field in (self.iid_field, self.time_field) if field in self.inter_feat]
            listed = {field: field + self.config["LIST_SUFFIX"] for field in fields}
            self._interactions = self.inter_feat
            self.inter_feat = lazy_prefixes(self.inter_feat, self.uid_field, _LENGTH, listed, max_length=1)

    def _build_parts(self) -> list[Dataset]:
        parts = super()._build_parts()
        if self.config["mask_history"] is None:
            return parts
        rows = [self._trained, *(part.inter_feat.position for part in parts[1:])]
        for part, index in zip(parts, rows, strict=True):
            part.inter_feat = self._interactions[index]
        self.inter_feat = self._interactions
        return parts


class HeldOutDataset(HeldOutDatasetMixin, Dataset):
    """RecBole's ``Dataset``; see :class:`HeldOutDatasetMixin`."""


class HeldOutKGDataset(HeldOutDatasetMixin, KnowledgeBasedDataset):
    """RecBole's ``KnowledgeBasedDataset``; see :class:`HeldOutDatasetMixin`."""


class ExactTimesDataset(ExactTimesMixin, Dataset):
    """RecBole's ``Dataset`` ordered by exact times, for context-aware models, which read whole rows."""


class ExactTimesDecisionTreeDataset(ExactTimesMixin, DecisionTreeDataset):
    """RecBole's data set for tree models, ordered by exact times.

    RecBole's ``create_dataset`` does not use it, and their one-hot encoding (``convert_token_to_onehot``) then fails.
    """


class ExactTimesDIENDataset(ExactTimesMixin, DIENDataset):
    """RecBole's ``DIENDataset``, which also builds negative histories, ordered by exact times."""


class SequenceDataset(EarlierItemsMixin, LazySequentialDataset):
    """The data set of our models, whose ``train_objective`` is ``sequence`` by default."""
