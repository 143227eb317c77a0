"""Batches of padded histories cut to their longest history, whole or in groups of similar length.

Shape keys: b rows of a batch, L = MAX_ITEM_LIST_LENGTH, m places for the masked items of a history.
"""

from __future__ import annotations

from typing import NamedTuple

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import TARGET_LIST_FIELD

# The field in which RecBole's MaskItemSequence puts the positions that it has masked.
MASK_INDEX = "MASK_INDEX"

# Overhead of computing a group separately, as the number of history positions that take the same time.
GROUP_COST = {"cpu": 512, "cuda": 32768}


class Group(NamedTuple):
    """Rows of a batch that are computed together.

    Attributes:
        rows: Their indices in the batch, ascending; int64, shape (g,).
        longest: The length of their longest history.
        share: Their share of the targets of the batch.
    """

    rows: Tensor
    longest: int
    share: float


class HistoryCutter:
    """Cuts the histories in batches of a data set.

    Args:
        config: The settings, which name the fields.
        dataset: The data set, whose features of users and items are not histories.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.length_field, self.max_length = config["ITEM_LIST_LENGTH_FIELD"], config["MAX_ITEM_LIST_LENGTH"]
        self._suffix = config["LIST_SUFFIX"]
        self._features = {
            field for features in (dataset.user_feat, dataset.item_feat) if features is not None for field in features
        }
        self._padded_in_front = config["INVERSE_ITEM_SEQ"]  # these keys exist once RecBole's transforms were built
        self._masked_items = [field for field in (config["POS_ITEMS"], config["NEG_ITEMS"]) if field is not None]

    def groups(self, batch: Interaction, by_targets: bool, group_cost: float) -> list[Group]:
        """The rows of a batch in groups of similar length, the shortest first.

        Args:
            batch: With lengths of shape (b,).
            by_targets: Whether rows count by their targets, and are left out if they have none; else all count alike.
            group_cost: See :func:`group_ends`.
        """
        length = batch[self.length_field]
        lengths = length.cpu().numpy()
        weights = targets_per_row(batch).cpu().numpy() if by_targets else np.ones_like(lengths)
        ends = group_ends(np.bincount(lengths[weights > 0]), group_cost)
        number = np.where(weights > 0, np.searchsorted(ends, lengths), -1)
        return [
            Group(
                torch.from_numpy(np.flatnonzero(number == group)).to(length.device),
                int(end),
                float(weights[number == group].sum() / weights.sum()),
            )
            for group, end in enumerate(ends)
        ]

    def cut(self, batch: Interaction, longest: int | None = None, rows: Tensor | None = None) -> Interaction:
        """Rows of a batch with histories of a given length; the batch stays as it is.

        Args:
            batch: With histories of shape (b, L, …), masked items of shape (b, m), and other columns of shape (b, …).
            longest: The new length of histories, not below those of the rows; by default that of the longest.
            rows: Indices of the rows; int64, shape (g,). All by default.

        Returns:
            Histories of shape (g, longest, …), and masked items of shape (g, the most of a row).
        """
        longest = int(batch[self.length_field].max()) if longest is None else longest
        columns = {name: self._shorter(name, column, longest) for name, column in batch.interaction.items()}
        if rows is not None:
            columns = {name: column[rows] for name, column in columns.items()}
        return Interaction(columns | self._shorter_masked_items(columns))

    def _shorter(self, name: str, column: Tensor, longest: int) -> Tensor:
        is_list = (name.endswith(self._suffix) or name == TARGET_LIST_FIELD) and name not in self._features
        if not is_list or column.dim() < 2 or column.shape[1] != self.max_length:
            return column
        behind = name != self._padded_in_front
        return (column[:, :longest] if behind else column[:, self.max_length - longest :]).contiguous()

    def _shorter_masked_items(self, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        """The masked items of each history, which are padded in front to the most that RecBole expects."""
        if MASK_INDEX not in columns:
            return {}
        names = [MASK_INDEX, *self._masked_items]
        most = max(1, int((columns[self._masked_items[0]] > 0).sum(dim=1).max()))
        return {name: columns[name][:, -most:].contiguous() for name in names}


def targets_per_row(batch: Interaction) -> Tensor:
    """The number of targets of each row of a batch; int64, shape (b,).

    A window has one at each labelled position, and a masked history (BERT4Rec) one at each masked position but the
    first, which RecBole's loss leaves out. Other rows have one.
    """
    if TARGET_LIST_FIELD in batch:
        return (batch[TARGET_LIST_FIELD] > 0).sum(dim=1)
    if MASK_INDEX in batch:
        return (batch[MASK_INDEX] > 0).sum(dim=1)
    return torch.ones(len(batch), dtype=torch.int64)


def group_ends(n_rows: np.ndarray, group_cost: float) -> np.ndarray:
    """The lengths at which groups of similar length end, so that computing them costs least.

    A group costs its rows times its longest length, plus ``group_cost``; the cheapest groups follow by dynamic
    programming over the lengths.

    Args:
        n_rows: The number of rows by length, from 0; int64, shape (longest + 1,).
        group_cost: Cost of a group beside its positions, in positions.

    Returns:
        The longest length of each group, ascending; int64.
    """
    lengths = np.flatnonzero(n_rows)
    n_up_to = np.concatenate([[0], n_rows[lengths].cumsum()])
    least = np.zeros(len(lengths) + 1)
    begin = np.zeros(len(lengths) + 1, dtype=np.int64)
    for end in range(1, len(lengths) + 1):
        costs = least[:end] + (n_up_to[end] - n_up_to[:end]) * lengths[end - 1] + group_cost
        begin[end] = costs.argmin()
        least[end] = costs[begin[end]]
    ends, end = [], len(lengths)
    while end:
        ends.append(lengths[end - 1])
        end = begin[end]
    return np.array(ends[::-1], dtype=np.int64)


def spread_over_lengths(length: Tensor, n_rows: int) -> Tensor:
    """Rows of all lengths, from the shortest to the longest.

    Args:
        length: Of each row's history; int64, shape (n,).
        n_rows: Rows wanted.

    Returns:
        At most ``n_rows`` indices, each once, in an order that does not follow the lengths; int64.
    """
    by_length = torch.argsort(length, stable=True)
    wanted = torch.linspace(0, len(length) - 1, min(n_rows, len(length))).round().long()
    chosen = by_length[wanted]
    return chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
