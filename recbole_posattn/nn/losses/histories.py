"""The items that precede each target: their scores get a learned bias, or they are masked out of the loss.

The histories of targets in one sequence are its prefixes, so they are never written out: a chunk of targets reads the
rows of its sequences. An item that occurs several times counts once, where it is newest.

Shape keys: b sequences, s length of the longest, m targets, c targets of a chunk, n items, h history items of a target
with repeats, k items of a target, e earlier items.
"""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor

# What ``lag`` returns for items that are not in the history, and for those that the user had before the sequence.
NOT_IN_HISTORY, EARLIER = -1, -2


class TargetHistories:
    """The items before each target; the base of :class:`HistoryBias` and :class:`HistoryMask`.

    Args:
        item: Items of the sequences, oldest first, followed by zeros; int64, shape (b, s).
        sequence: The sequence of each target; int64, shape (m,).
        position: The position of the newest item before each target; int64, shape (m,).
        earlier: Items that the user had before the sequence begins, in any order, followed by zeros; int64, shape
            (b, e); ``None`` for none.

    Attributes:
        table: Learned values that the loss depends on, for its gradient; ``None`` for none.
        outside: What is added to the scores of all items, a scalar; ``None`` for nothing.
    """

    table: Tensor | None = None
    outside: Tensor | None = None
    _n_earlier: Tensor | None = None  # of each sequence, shape (b,), once the targets are sorted

    def __init__(self, item: Tensor, sequence: Tensor, position: Tensor, earlier: Tensor | None = None) -> None:
        self.item, self.sequence, self.position, self.earlier = item, sequence, position, earlier

    def by_length(self) -> tuple[Tensor, Self]:
        """The order of the targets by the number of items before them, and the histories in that order.

        Chunks of targets with short histories then need less memory.
        """
        n_earlier = ((self.item[:, :0] if self.earlier is None else self.earlier) > 0).sum(dim=1)
        order = (self.position + n_earlier[self.sequence]).argsort()
        ordered = copy.copy(self)
        ordered._n_earlier = n_earlier
        ordered.sequence, ordered.position = self.sequence[order], self.position[order]
        return order, ordered

    def _rows(self, rows: slice) -> tuple[Tensor, Tensor, slice]:
        """Sequence and position of some targets, and the positions that any of them looks back to."""
        position = self.position[rows]
        read = slice(self.item.shape[1] if self._n_earlier is None else int(position.max()) + 1)
        return self.sequence[rows], position, read

    def added(self, rows: slice, target: Tensor) -> tuple[Tensor, Tensor]:
        """History items of some targets, and what is added to their scores.

        Args:
            rows: The targets.
            target: Their items, shape (c,).

        Returns:
            Items, int64, and values; both of shape (c, h). Several values of an item add up.
        """
        raise NotImplementedError

    def added_to(self, item: Tensor, target: Tensor) -> Tensor:
        """What is added to the scores of k items of each target, shape (m, k), besides :attr:`outside`.

        Args:
            item: int64, shape (m, k).
            target: The targets' items, shape (m,).
        """
        raise NotImplementedError

    def add_gradient(self, gradient: Tensor, rows: slice, of_added: Tensor) -> None:
        """Add the gradient of some targets to that of :attr:`table`, in place; arguments as in :meth:`added`."""
        raise NotImplementedError

    def lag(self, item: Tensor) -> Tensor:
        """How many items before each target's newest one an item of shape (m, k) was last seen; int64, (m, k).

        0 is the newest item; see :data:`NOT_IN_HISTORY` and :data:`EARLIER` for the others.
        """
        every = self.item if self.earlier is None else torch.cat([self.earlier, self.item], dim=1)
        b, length = every.shape
        n_earlier = length - self.item.shape[1]
        bound = 1 + torch.maximum(every.max(), item.max())
        place = torch.arange(length, device=every.device)
        # Occurrences in the order of sequence, item and place: the newest one up to a target is the last below it.
        first_key = torch.arange(b, device=every.device)[:, None] * bound
        occurrence = ((first_key + every) * length + place).flatten().sort().values
        until = n_earlier + self.position[:, None]
        key = (self.sequence[:, None] * bound + item) * length + until
        newest = occurrence[torch.searchsorted(occurrence, key, right=True).sub_(1).clamp_(min=0)]
        seen = (newest <= key) & (newest // length == key // length)
        at = newest % length
        lag = (until - at).masked_fill(at < n_earlier, EARLIER)
        return lag.masked_fill(~seen, NOT_IN_HISTORY)


class HistoryBias(TargetHistories):
    """A bias for history items by how long ago they were seen, b[t − newest position], and one for all others.

    Args:
        item: See :class:`TargetHistories`.
        sequence: See :class:`TargetHistories`.
        position: See :class:`TargetHistories`.
        outside: The bias of items that are not in the history, a scalar.
        by_lag: The biases of history items, less ``outside``, by lag; shape (at least s,).
    """

    table: Tensor
    outside: Tensor

    def __init__(self, item: Tensor, sequence: Tensor, position: Tensor, outside: Tensor, by_lag: Tensor) -> None:
        super().__init__(item, sequence, position)
        place = torch.arange(item.shape[1], device=item.device)
        lag = place[:, None] - place
        self.outside, self._by_lag = outside, by_lag
        # By position of the target and of the item, shape (s, s); 0 for items after the target.
        self.table = by_lag[lag.clamp(min=0)].masked_fill(lag < 0, 0.0)
        narrow = torch.int16 if item.shape[1] < 2**15 else torch.int64  # comparisons take a third of the time
        self._next = next_occurrence(item).to(narrow)

    def _again(self, sequence: Tensor, position: Tensor, read: slice) -> Tensor:
        """Whether an item occurs again up to the target, so that it does not count there; shape (c, h)."""
        return self._next[:, read][sequence] <= position[:, None].to(self._next.dtype)

    def added(self, rows: slice, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`TargetHistories.added`."""
        sequence, position, read = self._rows(rows)
        value = self.table[:, read].index_select(0, position)
        return self.item[:, read][sequence], value.masked_fill(self._again(sequence, position, read), 0.0)

    def add_gradient(self, gradient: Tensor, rows: slice, of_added: Tensor) -> None:
        """See :meth:`TargetHistories.add_gradient`."""
        sequence, position, read = self._rows(rows)
        counted = of_added.masked_fill(self._again(sequence, position, read), 0.0)
        gradient[:, read].index_add_(0, position, counted)

    def added_to(self, item: Tensor, target: Tensor | None = None) -> Tensor:
        """See :meth:`TargetHistories.added_to`."""
        lag = self.lag(item)
        row, column = torch.nonzero(lag >= 0, as_tuple=True)  # few
        value = self._by_lag[lag[row, column]]
        return value.new_zeros(lag.shape).index_put((row, column), value)


class HistoryMask(TargetHistories):
    """Masks history items out of the loss, as they are masked out of the ranking, but never the target itself.

    The arguments are those of :class:`TargetHistories`.
    """

    def added(self, rows: slice, target: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`TargetHistories.added`; the values are 0 and −∞."""
        sequence, position, read = self._rows(rows)
        item = self.item[:, read][sequence]
        removed = torch.arange(item.shape[1], device=item.device) <= position[:, None]
        if self.earlier is not None:
            most = self.earlier.shape[1] if self._n_earlier is None else int(self._n_earlier[sequence].max())
            earlier = self.earlier[:, :most][sequence]
            item, removed = torch.cat([item, earlier], dim=1), torch.cat([removed, earlier > 0], dim=1)
        removed &= item != target[:, None]
        return item, torch.zeros(item.shape, device=item.device).masked_fill(removed, -math.inf)

    def added_to(self, item: Tensor, target: Tensor) -> Tensor:
        """See :meth:`TargetHistories.added_to`; the values are 0 and −∞."""
        removed = (self.lag(item) != NOT_IN_HISTORY) & (item != target[:, None])
        return torch.zeros(item.shape, device=item.device).masked_fill(removed, -math.inf)


def next_occurrence(item: Tensor) -> Tensor:
    """The next position at which the same item stands, s if there is none; int64, shape (b, s)."""
    s = item.shape[1]
    place = torch.arange(s, device=item.device)
    order = (item * s + place).argsort(dim=1)  # by item, then by position
    in_order = item.gather(1, order)
    again = in_order[:, 1:] == in_order[:, :-1]
    following = torch.nn.functional.pad(order[:, 1:].masked_fill(~again, s), (0, 1), value=s)
    return torch.empty_like(item).scatter(1, order, following)
