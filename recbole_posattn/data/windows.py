"""Whole-sequence training data: all targets of a user in few rows, instead of one row per target.

RecBole cuts a user's sequence into all its prefixes, one row (history → target) each. Here consecutive rows of a user
are joined into the sequence they came from, which is cut into windows of at most L items with a label at each position.
Only the rows of RecBole's own training split are used, each exactly once as a label.

Items are stored once; a window is a pair of positions among them.

Shape keys: N interactions, n rows of the split, m windows, b windows of a batch, L = MAX_ITEM_LIST_LENGTH.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_posattn.data.prefixes import TargetColumn, in_64_bits
from recbole_posattn.data.relative_times import relative_times
from recbole_posattn.data.splits import count_up


@dataclass(frozen=True)
class Windows:
    """Training windows over the items of all users.

    Window w reads the items ``start[w]`` to ``end[w]`` (exclusive). The label at position p is the item at p + 1, if
    that is the target of a row and p does not belong to an older window (``label_start``).

    Attributes:
        item: Items of all sequences, one sequence after the other; int64 or int32, shape (N,).
        row: The row whose target is at this position, −1 for none; int32 if that suffices, shape (N,).
        start, end, label_start: Positions of each window; int64, shape (m,).
        first: The position of the first item of each window's sequence, which may be before its oldest window; int64,
            shape (m,).
        time: Exact times of all interactions; float64, shape (N,). ``None`` unless the model reads time.
    """

    item: Tensor
    row: Tensor
    start: Tensor
    end: Tensor
    label_start: Tensor
    first: Tensor
    time: Tensor | None = None

    def __len__(self) -> int:
        return len(self.start)

    @property
    def length(self) -> Tensor:
        """The number of items in each window; int64, shape (m,)."""
        return self.end - self.start

    def gather(self, index: Tensor, max_length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Windows as right-padded rows, like RecBole's item lists.

        Args:
            index: The windows; int64, shape (b,).
            max_length: Items in a row, L.

        Returns:
            Items, oldest first, followed by zeros, shape (b, L); the number of items, shape (b,); the label at each
            position, 0 for none, shape (b, L); and the row of the split whose target the label is, −1 for none, shape
            (b, L). All int64.
        """
        position, padding = self._positions(index, max_length)
        following = position + 1  # inside the sequence: a window ends before its sequence's last item
        row = self.row[following].long().masked_fill_(padding | (position < self.label_start[index][:, None]), -1)
        return (
            in_64_bits(self.item[position]).masked_fill_(padding, 0),
            self.end[index] - self.start[index],
            in_64_bits(self.item[following]).masked_fill_(row < 0, 0),
            row,
        )

    def relative_times(self, index: Tensor, max_length: int) -> Tensor | None:
        """The times of :meth:`gather`'s items relative to each window's newest; float64, shape (b, L), or ``None``."""
        if self.time is None:
            return None
        position, _ = self._positions(index, max_length)
        return relative_times(self.time[position], self.end[index] - self.start[index])

    def _positions(self, index: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
        """The position of each item of windows, and whether it is padding, where the position is 0; shape (b, L)."""
        position = self.start[index, None] + torch.arange(max_length)
        padding = position >= self.end[index, None]
        return position.masked_fill_(padding, 0), padding


def cut_windows(
    item: Tensor,
    target: Tensor,
    history_length: Tensor | TargetColumn,
    max_length: int,
    stride: int,
    last_only: bool = False,
) -> Windows:
    """Cut the sequences of a split's rows into windows.

    A sequence is a run of consecutive targets, preceded by the history of the first one. Its windows are cut from its
    newest item backwards, each ``stride`` positions before the next one. So only the oldest window is shorter than L,
    and in all others at least L − ``stride`` items precede each position with a label.

    Args:
        item: Items of all users, one user's sequence after the other's; int64, shape (N,).
        target: Position of each row's target among them, all different; int64, shape (n,).
        history_length: Items before the target that belong to its history, at least 1; int64, shape (n,).
        max_length: Items in a window, L.
        stride: Positions between the ends of neighbouring windows, 1 to L; L cuts windows that do not overlap.
        last_only: Whether to keep the newest window of each sequence only.

    Returns:
        The windows; every row is a label in exactly one of them, and with ``last_only`` in at most one.
    """
    number = torch.int32 if len(target) < 2**31 else torch.int64
    row = torch.full((len(item),), -1, dtype=number)
    row[target] = torch.arange(len(target), dtype=number)

    is_first = row >= 0
    is_first[1:] &= row[:-1] < 0
    first = torch.nonzero(is_first).flatten()  # the first target of each run
    is_last = row >= 0
    is_last[:-1] &= row[1:] < 0
    whole_length = history_length[row[first].long()]
    run_start = first - whole_length.clamp(max=max_length)
    run_end = torch.nonzero(is_last).flatten()

    beyond_one = (run_end - run_start - max_length).clamp(min=0)
    n_windows = 1 + torch.div(beyond_one + stride - 1, stride, rounding_mode="floor")
    if last_only:
        n_windows = torch.ones_like(n_windows)
    run = torch.repeat_interleave(torch.arange(len(first)), n_windows)
    nth_from_end = _count_down(n_windows)
    end = run_end[run] - nth_from_end * stride
    start = torch.maximum(end - max_length, run_start[run])
    oldest = nth_from_end == n_windows[run] - 1
    label_start = torch.where(oldest, start, end - stride)
    kept = end >= first[run]  # a window inside the first target's history has no label
    return Windows(item, row, start[kept], end[kept], label_start[kept], (first - whole_length)[run][kept])


def lay_out(
    user: Tensor, history: Tensor, history_length: Tensor, target: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """Put the items of rows that come with their histories, as in session files, into one sequence.

    Rows whose history is the previous row's plus its target share items with it, the others get items of their own.

    Args:
        user: User of each row; int64, shape (n,). Rows of a user are in time order, users in any order.
        history: Items before the target, oldest first, one row's after the other's; int64, as many as the lengths' sum.
        history_length: Items in each history, at least 1; int64, shape (n,).
        target: Item to be predicted; int64, shape (n,).
        longest: Length from which histories lack their older items.

    Returns:
        The items, int64, shape (N,), and the position of each row's target among them, int64, shape (n,).
    """
    source, position = layout(user, history, history_length, target, longest)
    return torch.cat([history, target])[source], position


def layout(
    user: Tensor, history: Tensor, history_length: Tensor, target: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """:func:`lay_out` with the index of each item among the histories, followed by the targets, instead of the item."""
    n_before = len(history)
    row = torch.argsort(user, stable=True)  # grouped by user, still in time order
    begin = (history_length.cumsum(0) - history_length)[row]
    user, history_length, target = user[row], history_length[row], target[row]
    in_order = torch.repeat_interleave(begin, history_length) + count_up(history_length)
    history = history[in_order]
    starts_anew = ~_continues_previous(user, history, history_length, target, longest)

    # Each row adds its target, after its whole history if it starts a sequence.
    added = torch.where(starts_anew, history_length, 0) + 1
    target_position = added.cumsum(0) - 1
    source = torch.empty(int(added.sum()), dtype=torch.int64)
    source[target_position] = n_before + row
    in_history = torch.ones(len(source), dtype=torch.bool).index_fill_(0, target_position, False)
    source[in_history] = in_order[torch.repeat_interleave(starts_anew, history_length)]
    position = torch.empty_like(row)
    position[row] = target_position
    return source, position


def _continues_previous(user: Tensor, history: Tensor, length: Tensor, target: Tensor, longest: int) -> Tensor:
    """Whether row i's history is row i−1's plus its target, less the oldest item at the longest length; bool, (n,)."""
    continues = torch.zeros(len(user), dtype=torch.bool)
    continues[1:] = (user[1:] == user[:-1]) & (length[1:] == (length[:-1] + 1).clamp(max=longest))
    row = torch.repeat_interleave(torch.arange(len(user)), length)
    place, previous = count_up(length), (row - 1).clamp(min=0)
    begin = length.cumsum(0) - length
    source = begin[previous] + place + (length[previous] == longest)
    is_newest = place == length[row] - 1
    expected = torch.where(is_newest, target[previous], history[source.clamp(max=len(history) - 1)])
    continues[row[expected != history]] = False
    return continues


def _count_down(counts: Tensor) -> Tensor:
    """count − 1, …, 1, 0 for each count, one after the other."""
    return torch.repeat_interleave(counts, counts) - 1 - count_up(counts)
