"""Data that is already split into three files (``benchmark_filename``), with or without the history of each row.

RecBole reads files whose rows contain histories (``item_id_list``), and uses the lists as they are: their items are
numbered separately unless ``alias_of_item_id`` is set, and they may be longer than MAX_ITEM_LIST_LENGTH. Here an item
has one number everywhere, and a model reads the newest items of a history. In files without histories, each row is an
interaction, and histories are built as for a single file.

Shape keys: N interactions, n rows, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType, ModelType
from torch import Tensor

from recbole_posattn.data.fields import EXACT_TIME_FIELD
from recbole_posattn.data.histories import Histories
from recbole_posattn.data.mixin import DatasetMixin
from recbole_posattn.data.prefixes import LazyPrefixes
from recbole_posattn.data.windows import layout
from recbole_posattn.errors import DataError, shown

_PARTS = ("training", "validation", "test")
_LIST_TYPES = {FeatureType.TOKEN: FeatureType.TOKEN_SEQ, FeatureType.FLOAT: FeatureType.FLOAT_SEQ}


class PreSplitMixin(DatasetMixin):
    """Data in three files for RecBole's data sets; see :mod:`recbole_posattn.data.presplit`.

    Attributes:
        written_lists: The fields whose histories the files contain, with the names of their list fields; empty if rows
            have no histories.
    """

    written_lists: Mapping[str, str] = {}
    inter_feat: Any  # a DataFrame, later an Interaction
    _rest_fields: np.ndarray
    _number: Tensor  # row in the files of each interaction (of each row, if it has its history)
    _begins: Tensor  # whether a history of the files begins at a position; boolean, shape (N,)

    @property
    def is_presplit(self) -> bool:
        """Whether the data comes in three files whose rows are targets with histories for this model."""
        sequential = self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        return self.benchmark_filename_list is not None and (sequential or self.config["mask_history"] is not None)

    # -- reading the files -------------------------------------------------------------------------------------------

    def _init_alias(self) -> None:
        super()._init_alias()
        if self.is_presplit:
            for field in self.token_like_fields:
                listed = field + self.config["LIST_SUFFIX"]
                if self._is_list_of(listed, field) and listed in self._rest_fields:
                    self._share_numbers(field, listed)

    def _is_list_of(self, listed: str, field: str) -> bool:
        """Whether a field of the interactions holds lists of another field's values."""
        both_exist = field in self.inter_feat and listed in self.inter_feat
        return both_exist and self.field2type[listed] == _LIST_TYPES.get(self.field2type[field])

    def _share_numbers(self, field: str, listed: str) -> None:
        """Let RecBole number the tokens of a field and those of its list field together."""
        name = next((name for name, fields in self.alias.items() if field in fields), field)
        self.alias[name] = np.array([*self.alias.get(name, [field]), listed])
        self._rest_fields = np.setdiff1d(self._rest_fields, [field, listed], assume_unique=True)
        self.logger.info(f"{listed} shares the numbering of {field}: both have the same tokens")

    def _benchmark_presets(self) -> None:
        """See ``SequentialDataset._benchmark_presets``, which needs a list of items."""
        suffix, rows = self.config["LIST_SUFFIX"], self.inter_feat
        lists = {field: field + suffix for field in rows if self._is_list_of(field + suffix, field)}
        if self.iid_field not in lists:
            for listed in lists.values():
                self._del_col(rows, listed)
            self._aug_presets()
            return
        # RecBole stores the lists of discretized numbers differently
        self.written_lists = {
            field: listed for field, listed in lists.items() if field not in self.config["numerical_features"]
        }
        self._check_lengths()
        for field, listed in self.written_lists.items():
            setattr(self, f"{field}_list_field", listed)
            kind = self.field2type[listed]
            self.set_field_property(listed, kind, FeatureSource.INTERACTION, self.max_item_list_len)
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)

    def _check_lengths(self) -> None:
        items = self.written_lists[self.iid_field]
        length = self.inter_feat[items].map(len).to_numpy()
        for listed in self.written_lists.values():
            others = self.inter_feat[listed].map(len).to_numpy()
            if (others != length).any():
                row = int(np.flatnonzero(others != length)[0])
                raise DataError(
                    f"{self._row_name(row)}: column {listed!r} has {others[row]} values, but the history {items!r} has "
                    f"{length[row]}; correct the row, or leave the column out of load_col"
                )

    def _row_name(self, row: int) -> str:
        file = int(np.searchsorted(np.cumsum(self.file_size_list), row, side="right"))
        name = f"{self.dataset_name}.{self.benchmark_filename_list[file]}.inter"
        return f"{name}, row {row - sum(self.file_size_list[:file]) + 1} below the header"

    # -- building rows with histories --------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        if not self.is_presplit:
            super()._change_feat_format()
            return
        if self.written_lists:
            written = {listed: self.inter_feat.pop(listed).to_list() for listed in self.written_lists.values()}
            super()._change_feat_format()
            self._use_written(written)
        else:
            self._order_rows()
            super()._change_feat_format()
            if self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
                self._cut_prefixes()

    def _use_written(self, written: Mapping[str, list[np.ndarray]]) -> None:
        """Make rows of the files' histories, each followed by its target in one sequence of interactions."""
        length = torch.tensor([len(history) for history in written[self.written_lists[self.iid_field]]])
        position = (length + 1).cumsum(0) - 1
        in_history = torch.ones(int((length + 1).sum()), dtype=torch.bool).index_fill_(0, position, False)
        self._begins = torch.zeros_like(in_history).index_fill_(0, position - length, True)
        self._number = torch.arange(len(position))
        lines = {}
        for field, listed in self.written_lists.items():
            target = self.inter_feat[field]
            line = lines[listed] = target.new_empty(len(in_history))
            line[in_history] = torch.from_numpy(np.concatenate(written[listed])).to(line.dtype)
            line[position] = target
        columns = {field: self.inter_feat[field] for field in self.inter_feat}
        columns[self.item_list_length_field] = length.clamp(max=self.max_item_list_len)
        self.inter_feat = LazyPrefixes(columns, position, self.item_list_length_field, lines, self.max_item_list_len)

    def _order_rows(self) -> None:
        """Group the interactions of the three files by user, each user's in time order or in the order of the files."""
        rows = self.inter_feat
        user = rows[self.uid_field].to_numpy()
        timed = self.time_field in rows
        order = np.lexsort((rows[self.time_field], user) if timed else (user,))  # stable
        file = np.repeat(np.arange(len(_PARTS)), self.file_size_list)[order]
        back = np.flatnonzero((np.diff(file) < 0) & (np.diff(user[order]) == 0))
        if len(back):
            earlier, later = (self.benchmark_filename_list[file[place]] for place in (back[0], back[0] + 1))
            name = self.field2id_token[self.uid_field][user[order][back[0]]]
            raise DataError(
                f"data set {self.dataset_name!r}: user {shown(str(name))} has an interaction in the file {earlier!r} "
                f"that is earlier than one in {later!r}, which would be in its history. Each user's held-out "
                f"interactions must be the last ones; or leave {self.time_field} out of load_col to use the order of "
                "the files and of their rows"
            )
        order_name = self.time_field if timed else "the order of the files and of their rows"
        files = ", ".join(self.benchmark_filename_list)
        self.logger.info(f"The rows of {files} have no histories: they are built by {order_name}")
        self._number = torch.from_numpy(order)
        self.inter_feat = pd.DataFrame(rows.iloc[order]).reset_index(drop=True)

    def _parts_of_files(self) -> list[Any]:
        """The data sets of the three files, their rows in the files' order; see ``Dataset.build``."""
        self._change_feat_format()
        rows = self.inter_feat
        number, order = (self._number if self.written_lists else self._number[rows.position]).sort()
        boundaries = torch.searchsorted(number, torch.tensor(self.file_size_list).cumsum(0))
        parts = self._split([*order.tensor_split(boundaries[:-1])])
        for part, size, name in zip(parts[1:], self.file_size_list[1:], _PARTS[1:]):
            if len(part.inter_feat) < size:
                self.logger.warning(
                    f"{size - len(part.inter_feat):,} of {size:,} {name} rows are their user's first interactions: "
                    "they have no history to be predicted from, and are left out"
                )
        if not self.config["lazy_prefixes"]:
            for dataset in [self, *parts]:
                dataset.inter_feat = dataset.inter_feat.dense()
        return parts

    # -- histories of targets ----------------------------------------------------------------------------------------

    def histories_before(self, rows: LazyPrefixes, every: LazyPrefixes) -> Histories:
        """The interactions before the targets of some rows.

        Args:
            rows: The rows, of a part for instance.
            every: All rows of the data set.
        """
        later = torch.nonzero(~self._begins).flatten() if self.written_lists else every.position
        suffix = self.config["LIST_SUFFIX"]
        item, time = rows.sequences[self.iid_field + suffix], rows.sequences.get(EXACT_TIME_FIELD + suffix)
        return Histories.of_parts(item, [rows.position], later, time)[0]


def laid_out(dataset: SequentialDataset, rows: Interaction) -> tuple[Tensor, Tensor]:
    """:func:`~recbole_posattn.data.windows.lay_out` of rows that come with their histories.

    Args:
        dataset: The data set of the rows; if they are lazy, one with :class:`PreSplitMixin`.
        rows: Some of its rows.
    """
    item, position, _, _ = laid_out_with_times(dataset, rows)
    return item, position


def laid_out_with_times(dataset: SequentialDataset, rows: Interaction) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """:func:`laid_out`, the length of each history, int64, shape (n,), and the exact time of each item, float64, (N,).

    Lazy rows have their whole histories, others no more than L items. Time is ``None`` if the rows do not have it.
    """
    suffix = dataset.config["LIST_SUFFIX"]
    if isinstance(rows, LazyPrefixes):
        histories = dataset.histories_before(rows, rows)
        length, (_, places) = histories.length, histories.flat_positions()
        longest = int(length.max()) if len(length) else 1
        lists, written = rows.sequences, places
    else:
        length, longest = rows[dataset.item_list_length_field], dataset.max_item_list_len
        width = rows[dataset.iid_field + suffix].shape[1]
        lists, written = rows, torch.arange(width) < length[:, None]
    in_history = {
        field: lists[field + suffix][written]
        for field in (dataset.iid_field, EXACT_TIME_FIELD)
        if field + suffix in lists
    }
    item = rows[dataset.iid_field]
    source, position = layout(rows[dataset.uid_field], in_history[dataset.iid_field], length, item, longest)
    values = {field: torch.cat([history, rows[field]])[source] for field, history in in_history.items()}
    return values[dataset.iid_field], position, length, values.get(EXACT_TIME_FIELD)
