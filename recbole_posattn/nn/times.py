"""Times of the items of sequences, as the parts of an encoder read them.

Shape keys: b batch, s sequence length, t queries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Times:
    """The times of a batch of sequences in one forward pass.

    Args:
        seconds: Time of each item from any origin, never falling along a sequence; float64, shape (b, s), or (1, s) for
            all sequences. Only differences are read. Padding has the time of the item next to it.
    """

    def __init__(self, seconds: Tensor) -> None:
        self.seconds = seconds
        self._shared: dict[Hashable, Tensor] = {}

    @classmethod
    def evenly(cls, length: int, step: float | Tensor, device: torch.device | None = None) -> Times:
        """Items ``step`` seconds apart, for an encoder that is given no times."""
        return cls(step * torch.arange(length, dtype=torch.float64, device=device)[None])

    def gaps(self, first: int, n_queries: int, n_keys: int) -> Tensor:
        """Seconds from each key 0, 1, … to the queries ``first``, ``first`` + 1, …; float64, shape (b, t, s).

        Those to keys after the query are 0 or negative.
        """
        return self.seconds[:, first : first + n_queries, None] - self.seconds[:, None, :n_keys]

    def steps(self) -> Tensor:
        """Seconds from the item before to each item, 0 for the first; float64, shape (b, s)."""
        return torch.diff(self.seconds, dim=1, prepend=self.seconds[:, :1])

    def shared_if(self, at_once: bool, name: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """:meth:`shared` where all queries are computed at once; otherwise, memory would not be linear in s."""
        return self.shared(name, compute) if at_once else compute()

    def shared(self, name: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """A tensor that several layers read, computed once in a forward pass."""
        if name not in self._shared:
            self._shared[name] = compute()
        return self._shared[name]
