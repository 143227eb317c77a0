"""The table of the environment in a run's log."""

from __future__ import annotations

import psutil
import pytest
import torch

from recbole_posattn.training import environment


def test_the_load_is_that_since_the_start_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter((0.0, 51.25))
    monkeypatch.setattr(psutil, "cpu_percent", lambda: next(loads))  # without an interval, for which it would wait
    environment.start_watching()
    rows = environment.environment_table({"device": torch.device("cpu")}).splitlines()
    assert [row.split()[0] for row in rows] == ["Environment", "=" * len(rows[1]), "CPU", "GPU", "Memory"]
    assert rows[2].endswith(" 51.25 %") and rows[3].endswith("none") and rows[4].endswith(" G")
