"""Whole-sequence training data: every target of a user in few rows instead of one row a target.

RecBole cuts a user's sequence into all its prefixes, one row (history → target) each. Here consecutive rows of a user
are joined again into the sequence they came from, which is cut into windows of at most L items with a label at each
position. Nothing but the rows of RecBole's own training split goes in, and each row is a label exactly once.

Shape keys: n rows of the split, m windows, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Training windows, right-padded as RecBole's item lists are.

    Attributes:
        item_list: Items of each window, oldest first, 0 behind the last one; int64, shape (m, L).
        item_length: Items in each window; int64, shape (m,).
        target_row: The row of the split whose target is to be predicted from the items up to this position, −1 where
            there is none; int64, shape (m, L).
    """

    item_list: Tensor
    item_length: Tensor
    target_row: Tensor

    def __len__(self) -> int:
        return len(self.item_length)


def cut_windows(user: Tensor, history: Tensor, history_length: Tensor, target: Tensor) -> Windows:
    """Join the rows of a training split into sequences and cut these into windows.

    A sequence is a run of rows of one user in which each history is the previous one plus the previous target. Its
    windows are cut from its newest item backwards, so that only the oldest window is shorter than L.

    Args:
        user: User of each row; int64, shape (n,). Rows of a user are in time order, users in any order.
        history: Newest items before the target, oldest first, 0 behind the last one; int64, shape (n, L).
        history_length: Items in each history, at least 1; int64, shape (n,).
        target: Item to be predicted; int64, shape (n,).

    Returns:
        The windows; every row of 0 … n−1 occurs exactly once in ``target_row``.
    """
    max_length = history.shape[1]
    row = torch.argsort(user, stable=True)  # rows of a user side by side, still in time order
    user, history, history_length, target = user[row], history[row], history_length[row], target[row]

    first = torch.nonzero(~_continues_previous(user, history, history_length, target)).flatten()
    n_targets = torch.diff(first, append=torch.tensor([len(row)]))
    n_context = history_length[first]  # items before the first target: one, unless the split starts inside a sequence

    # Position p of a sequence holds item p; the target of its j-th row is predicted at position n_context − 1 + j.
    n_positions = n_context - 1 + n_targets
    n_windows = torch.div(n_positions + max_length - 1, max_length, rounding_mode="floor")
    sequence = torch.repeat_interleave(torch.arange(len(first)), n_windows)
    nth_from_end = _count_down(n_windows)
    end = n_positions[sequence] - nth_from_end * max_length
    start = (end - max_length).clamp(min=0)

    position = start[:, None] + torch.arange(max_length)
    inside = position < end[:, None]
    nth_target = position - (n_context[sequence] - 1)[:, None]  # of the row predicted here; < 0 inside the context
    sorted_row = first[sequence][:, None] + nth_target
    # The item at a position is in the first row's history, or it is the target of the row before the one predicted.
    item = torch.where(
        nth_target <= 0,
        history[first[sequence]].gather(1, position.clamp(max=max_length - 1)),
        target[(sorted_row - 1).clamp(0, len(row) - 1)],
    )
    has_target = inside & (nth_target >= 0)
    windows = Windows(
        item_list=item.masked_fill(~inside, 0),
        item_length=end - start,
        target_row=torch.where(has_target, row[sorted_row.clamp(0, len(row) - 1)], -1),
    )
    kept = has_target.any(dim=1)  # a window that lies in the context has nothing to predict
    return Windows(windows.item_list[kept], windows.item_length[kept], windows.target_row[kept])


def _continues_previous(user: Tensor, history: Tensor, history_length: Tensor, target: Tensor) -> Tensor:
    """Whether row i's history is row i−1's plus its target (the oldest item dropped where L is reached); bool, (n,)."""
    max_length = history.shape[1]
    before, length_before = history[:-1], history_length[:-1]
    full = length_before == max_length
    shifted = torch.where(full[:, None], torch.roll(before, -1, dims=1), before)
    grown = shifted.scatter(1, length_before.clamp(max=max_length - 1)[:, None], target[:-1, None])
    same = (user[1:] == user[:-1]) & (grown == history[1:]).all(dim=1)
    same &= history_length[1:] == (length_before + 1).clamp(max=max_length)
    return torch.cat([torch.tensor([False]), same])


def _count_down(counts: Tensor) -> Tensor:
    """counts − 1, …, 1, 0 for each of the counts, one after the other."""
    ends = counts.cumsum(0)
    return torch.repeat_interleave(ends, counts) - 1 - torch.arange(int(ends[-1]) if len(ends) else 0)
