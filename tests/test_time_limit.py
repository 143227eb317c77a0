"""``max_minutes``: a run that ends in time with its best epoch so far, and goes on from there with more of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recbole_posattn import run
from recbole_posattn.errors import SettingError
from recbole_posattn.training import time_limit
from recbole_posattn.training.run_folder import LAST_NAME


def stop_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time be up when it is looked at for the given time, counted from 1."""
    calls = iter(range(1, 1_000_000))
    clock = SimpleNamespace(perf_counter=lambda: 1e12 if next(calls) >= call else 0.0)
    monkeypatch.setattr(time_limit, "time", clock)


def losses(result: dict[str, Any]) -> list[tuple]:
    return [(point["loss"], point.get("valid")) for point in result["curve"]]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "call"), [("NoPESASRec", 1), ("NoPESASRec", 4), ("BPR", 4)])
def test_a_stopped_run_tests_its_best_epoch_and_continues(
    model: str, call: int, tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # before the second epoch (1), and within it
    settings = {"learning_rate": 0.01, "save_last_every": 3}
    first = run(model, "tiny", config_dict=tiny_settings(epochs=1, **settings))
    whole = run(model, "tiny", config_dict=tiny_settings(epochs=3, **settings))
    with monkeypatch.context() as patch:
        stop_at(call, patch)
        stopped = run(model, "tiny", config_dict=tiny_settings(epochs=3, max_minutes=5, **settings))
    assert stopped["stopped_by"] == "max_minutes" and first["stopped_by"] is None
    assert (stopped["epochs"], stopped["best_epoch"]) == (1, 0) and losses(stopped) == losses(first)
    assert stopped["test_result"] == first["test_result"]
    folder = Path(stopped["checkpoint"]).parent
    assert json.loads((folder / "result.json").read_text())["stopped_by"] == "max_minutes"

    with monkeypatch.context() as patch:  # as long as before: it has ended
        stop_at(1, patch)
        again = run(config_dict={"max_minutes": 5}, resume=folder)
    assert again["stopped_by"] == "max_minutes" and again["epochs"] == 1
    continued = run(config_dict={"max_minutes": 1000}, resume=folder / LAST_NAME)
    assert continued["stopped_by"] is None and losses(continued) == losses(whole)
    assert continued["test_result"] == whole["test_result"]


def test_without_a_complete_epoch_training_goes_on(tiny_settings: Callable) -> None:
    """With no validation at all, the last complete epoch is tested."""
    stopped = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=5, max_minutes=1e-9, eval_step=2))
    assert (stopped["epochs"], stopped["best_epoch"], stopped["stopped_by"]) == (1, -1, "max_minutes")
    whole = run("NoPESASRec", "tiny", config_dict=tiny_settings(epochs=2, max_minutes=60))
    assert whole["epochs"] == 2 and whole["stopped_by"] is None
    for minutes in (0, -1, "soon"):
        with pytest.raises(SettingError, match="max_minutes must be a number above 0"):
            run("NoPESASRec", "tiny", config_dict=tiny_settings(max_minutes=minutes))
