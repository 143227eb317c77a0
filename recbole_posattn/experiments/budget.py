"""The time that the trials of a leaderboard have together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

# What a run has at least, in minutes, so that it can end.
_LEAST = 0.01


class Budget:
    """The time that trials have, from now on.

    Args:
        minutes: Minutes for all trials together; ``None`` for no limit.

    Attributes:
        deadline: When it ends, in seconds since 1970, which all machines of a cluster know; ``None`` for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes = minutes
        self.deadline = None if minutes is None else time.time() + 60 * minutes

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return self.deadline is not None and time.time() >= self.deadline


def limited(settings: Mapping[str, Any], trained: float, deadline: float | None) -> dict[str, Any]:
    """The settings of a run that starts now, with ``max_minutes`` so that it stops at a deadline.

    Args:
        settings: Of the run; a ``max_minutes`` in them that ends earlier stays.
        trained: The minutes that the run has trained already, which ``max_minutes`` counts.
        deadline: See :attr:`Budget.deadline`.
    """
    if deadline is None:
        return dict(settings)
    minutes = round(trained + max((deadline - time.time()) / 60, _LEAST), 2)
    given = settings.get("max_minutes")
    return dict(settings) if given is not None and given <= minutes else {**settings, "max_minutes": minutes}
