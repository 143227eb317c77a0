"""The time that the trials of a leaderboard have together."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.experiments.records import read_header
from recbole_posattn.training.result import RESULT_NAME


class Budget:
    """The time that trials have, from now on.

    Args:
        minutes: For all of them; ``None`` for no limit.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes = minutes
        self._ends = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._ends

    def within(self, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """The settings of a run, with ``max_minutes`` so that it ends with the budget.

        Args:
            settings: Of the run.
            folder: Of the run, which may have trained before.
        """
        if self.minutes is None:
            return dict(settings)
        before = read_header(folder / RESULT_NAME)
        trained = 0.0 if before is None else before["seconds"]["training"] / 60
        minutes = trained + max((self._ends - time.monotonic()) / 60, 0.01)
        given = settings.get("max_minutes")
        return {**settings, "max_minutes": round(minutes if given is None else min(given, minutes), 2)}
