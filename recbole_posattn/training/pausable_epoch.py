"""A training epoch that can be paused between two steps and resumed there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction

from recbole_posattn.training import interrupts
from recbole_posattn.training.state import loader_states, random_state, restore_loader_states, restore_random_state

Losses = float | tuple[float, ...]


class PausableEpoch:
    """The batches of an epoch and the losses of its steps; RecBole's ``_train_epoch`` takes it as its loader.

    A resumed epoch draws the same order of rows, skips the batches whose steps are done, and continues with the random
    state of that moment.

    Args:
        train_data: The loader.
        loss_func: Returns the loss of a batch, or a tuple of losses that are added.
        left: The position at which the epoch was paused, see :meth:`position`; ``None`` for a new epoch. The random
            state is set to the one before its first step, from which RecBole's SGL draws its graphs.
        check: Called between steps; it may raise an exception that ends the epoch there.

    Raises:
        Exception: Of any kind, if ``left`` cannot be used.
    """

    def __init__(
        self,
        train_data: AbstractDataLoader,
        loss_func: Callable[[Interaction], Any],
        left: Mapping[str, Any] | None = None,
        check: Callable[[], None] = interrupts.check,
    ) -> None:
        self._train_data, self._loss_func, self._check = train_data, loss_func, check
        self._left = left
        self._started = time.perf_counter()
        self._order, self._n_done, self.seconds_before = loader_states(train_data), 0, 0.0
        self._total: Losses | None = None
        if left is not None:
            self._take_up(left)
        self._random_at_start = random_state(train_data)
        self._random_at_end: dict[str, Any] | None = None
        self._seconds = 0.0

    def _take_up(self, left: Mapping[str, Any]) -> None:
        self._n_done, self.seconds_before = int(left["steps"]), float(left["seconds"])
        if self._n_done == left.get("of"):  # all steps, of which there may be another number now
            self._n_done = len(self._train_data)
        if not 0 <= self._n_done <= len(self._train_data):
            raise ValueError(f"steps must be in 0 … {len(self._train_data)} (steps of an epoch), got {self._n_done}")
        losses = left["losses"]
        if losses is not None:
            self._total = tuple(map(float, losses)) if isinstance(losses, (list, tuple)) else float(losses)
        restore_loader_states(left["order"], self._train_data)
        self._order = left["order"]
        restore_random_state(left["random"])  # fails now, not in the middle of the epoch, if it cannot be used
        restore_random_state(left.get("random_at_start", left["random"]))  # older versions did not store it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._train_data, name)

    def __len__(self) -> int:
        return len(self._train_data)

    def __iter__(self) -> Iterator[Interaction]:
        if self._left is not None:
            restore_loader_states(self._order, self._train_data)
        batches = iter(self._train_data)
        for _ in range(self._n_done):
            next(batches)
        if self._left is not None:
            restore_random_state(self._left["random"])  # the loader is at its old position
        while True:
            self._check()
            try:
                batch = next(batches)
            except StopIteration:
                break
            yield batch
            self._n_done += 1
        self._random_at_end = random_state(self._train_data)
        self._seconds = time.perf_counter() - self._started

    def loss(self, interaction: Interaction) -> Any:
        """The loss of a batch; also adds it to the sum of the epoch."""
        losses = self._loss_func(interaction)
        if isinstance(losses, tuple):
            values = tuple(loss.item() for loss in losses)
            before: Any = self._total  # a tuple as well
            self._total = values if before is None else tuple(map(sum, zip(before, values)))
        else:
            self._total = losses.item() if self._total is None else self._total + losses.item()
        return losses

    @property
    def losses(self) -> Losses | None:
        """The sum over all steps, including those before the pause; a tuple if the loss has several parts."""
        return self._total

    def position(self) -> dict[str, Any]:
        """The position at which the check between steps ended the epoch, as plain data.

        During the validation that follows, it is the end of the epoch.
        """
        now = self._random_at_end
        seconds = self._seconds if now is not None else time.perf_counter() - self._started
        return {
            "steps": self._n_done,
            "of": len(self._train_data),
            "losses": self._total,
            "seconds": self.seconds_before + seconds,
            "order": self._order,
            "random": random_state(self._train_data) if now is None else now,
            "random_at_start": self._random_at_start,
        }
