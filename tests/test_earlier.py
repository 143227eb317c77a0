"""Files that a version before the modules moved has written (revision f663f29) still work, on the data beside them.

``earlier/`` holds a run of PosKernelSASRec (4 epochs, d = 4, one layer) on synthetic data of 30 users and 24 items,
the runs of a leaderboard, and a search over two learning rates.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_posattn import load, run
from recbole_posattn.cli import main as cli
from recbole_posattn.experiments.leaderboard.board import gather
from recbole_posattn.experiments.trials import Outcome, Trial
from recbole_posattn.experiments.tuning import search as searches
from recbole_posattn.training.load import evaluate_checkpoint

EARLIER = Path(__file__).parent / "earlier"


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def copied(empty_folder: Path) -> Callable[[str], Path]:
    """Copies a folder of ``earlier/`` beside its data."""
    shutil.copytree(EARLIER / "dataset", empty_folder / "dataset")
    return lambda name: shutil.copytree(EARLIER / name, empty_folder / name)


def test_a_checkpoint_is_loaded_and_evaluated(copied: Callable) -> None:
    folder = copied("run")
    result = read(folder / "result.json")
    loaded = load(folder / "best.pth")
    assert type(loaded.model).__name__ == "PosKernelSASRec" and loaded.config["hidden_size"] == 4
    assert sum(weights.numel() for weights in loaded.model.parameters()) == result["trainable_parameters"]
    test_result, users = evaluate_checkpoint(folder / "best.pth")
    assert test_result == result["test_result"] and len(users) == 30


def test_a_run_is_resumed(copied: Callable) -> None:
    folder = copied("run")
    before = read(folder / "result.json")
    resumed = run(config_dict={"epochs": 5}, command_line=[], resume=folder)
    assert resumed["epochs"] == 5 and resumed["changes"] == []
    assert resumed["curve"][:4] == before["curve"] and resumed["curve"][4]["loss"] < before["curve"][3]["loss"]


@pytest.mark.slow
def test_the_runs_of_a_leaderboard_give_the_same_scores(copied: Callable) -> None:
    folder = copied("leaderboard")
    outcomes = []
    for file in sorted(folder.glob("runs/*/result.json")):
        config = read(file)["config"]
        outcomes.append(Outcome(Trial(config["model"], config), file.parent))
    board = gather(outcomes, "mini", "leave_one_out_masked", "PosKernelSASRec")
    now = board.scores.set_index(["model", "metric"]).sort_index()
    written = pd.read_csv(folder / "leaderboard.csv")
    written = written[written["kind"] == "metric"].set_index(["model", "metric"]).sort_index()
    assert len(outcomes) == 4 and list(now.index) == list(written.index)
    np.testing.assert_allclose(now["mean"], written["mean"], rtol=1e-12)
    np.testing.assert_allclose(now["deviation"], written["deviation"], rtol=1e-12)


def test_a_finished_search_is_resumed(
    copied: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It only writes its report again: no trial runs, and the best one is not evaluated again."""
    folder = copied("search")
    monkeypatch.setattr(searches, "ray_cluster", lambda where: pytest.fail("Ray was started"))
    before = (folder / "trials.jsonl").read_bytes()
    settings = read(folder / "search.json")["settings"]
    Path("space.yaml").write_text("learning_rate: {choice: [0.05, 0.01]}\n")
    flags = [f"--{key}={value}" for key, value in settings.items()]
    search = ["--space=space.yaml", "--search=grid", "--scheduler=none", "--output=search", "--resume"]
    assert cli.main(["tune", *search, *flags]) == 0
    assert (folder / "trials.jsonl").read_bytes() == before
    printed = capsys.readouterr().out
    assert "best of 2 trials: ndcg@5 0.4132 (validation)" in printed and "ndcg@5 0.4755" in printed
    assert (folder / "report.html").is_file() and "learning_rate: 0.01" in (folder / "best.yaml").read_text()
