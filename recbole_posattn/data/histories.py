"""Targets with their users' whole histories, not only the items that a model reads.

Interactions are grouped by user, each user's in time order. A target is the position of an interaction among them; a
user's first interaction is not a target, since nothing comes before it.

Shape keys: N interactions, n targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_posattn.data.prefixes import in_64_bits
from recbole_posattn.data.splits import count_up

# Targets whose histories are built at a time.
_TARGETS = 4096


@dataclass(frozen=True)
class Histories:
    """The interactions of users before their targets.

    Attributes:
        item: Items of all interactions; int64 or int32, shape (N,).
        start: Position of the first interaction of each target's user; int64, shape (n,).
        position: Position of each target; int64, shape (n,). A future target follows its user's newest interaction, and
            :attr:`target` is undefined.
        time: Exact times of all interactions; float64, shape (N,). ``None`` unless the model reads time.
    """

    item: Tensor
    start: Tensor
    position: Tensor
    time: Tensor | None = None

    @classmethod
    def of_parts(
        cls, item: Tensor, parts: Sequence[Tensor], every_position: Tensor, time: Tensor | None = None
    ) -> list[Histories]:
        """Histories of the targets in parts of the data.

        Args:
            item: See :class:`Histories`.
            parts: Positions of the targets of each part; int64.
            every_position: Positions of all interactions that are not their user's first; int64.
            time: See :class:`Histories`.
        """
        is_first = torch.ones(len(item), dtype=torch.bool)
        is_first[every_position] = False
        first = torch.nonzero(is_first).flatten()
        return [
            cls(item, first[torch.searchsorted(first, position, right=True) - 1], position.contiguous(), time)
            for position in parts
        ]

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, index: Tensor) -> Histories:
        return Histories(self.item, self.start[index], self.position[index], self.time)

    @property
    def length(self) -> Tensor:
        """Interactions before each target, at least 1; int64, shape (n,)."""
        return self.position - self.start

    @property
    def target(self) -> Tensor:
        """The targets' items; int64, shape (n,)."""
        return in_64_bits(self.item[self.position])

    def flat(self) -> tuple[Tensor, Tensor]:
        """All histories, one after the other: the number of the target, 0 … n − 1, and the item; both int64."""
        row, position = self.flat_positions()
        return row, in_64_bits(self.item[position])

    def flat_positions(self) -> tuple[Tensor, Tensor]:
        """:meth:`flat` with the positions of the interactions instead of their items."""
        row = torch.repeat_interleave(torch.arange(len(self)), self.length)
        return row, self.start[row] + count_up(self.length)

    def masked(self, mask: str) -> tuple[Tensor, Tensor] | None:
        """What ``mask_history`` removes from the rankings: row and item as in :meth:`flat`, or ``None`` for nothing."""
        if mask == "none":
            return None
        row, item = self.flat()
        if mask == "all":
            return row, item
        others = item != self.target[row]
        return row[others], item[others]

    def contain_target(self) -> Tensor:
        """Whether each target's item is in its history; boolean, shape (n,)."""
        held = torch.zeros(len(self), dtype=torch.bool)
        for targets in torch.arange(len(self)).split(_TARGETS):
            row, item = self[targets].flat()
            held[targets[row[item == self.target[targets][row]]]] = True
        return held
