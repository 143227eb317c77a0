"""Searches on a tiny data set: killed and taken up, with trials that fail, blind to the test set."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from recbole.trainer import HyperTuning

from recbole_posattn.cli import main as cli
from recbole_posattn.errors import SettingError, UserError
from recbole_posattn.experiments.run_folders import lock_of_run
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Resources
from recbole_posattn.experiments.tuning import records as records_of_search
from recbole_posattn.experiments.tuning.objective import objective_function
from recbole_posattn.experiments.tuning.records import (
    DIED,
    FAILED,
    FINISHED,
    PRUNED,
    SEARCH_NAME,
    TRIALS_NAME,
    TrialRecord,
    append_record,
    best_trial,
    next_number,
    open_search,
    read_records,
    trial_folder,
    trial_reports,
)
from recbole_posattn.experiments.tuning.search import run_search
from recbole_posattn.experiments.tuning.shared import search_identity
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.experiments.tuning.tune import _evaluated, tune
from recbole_posattn.files import write_json
from recbole_posattn.locks import locked
from recbole_posattn.training.run_folder import BEST_NAME
from tests.systems import needs_posix

HEADS = Dimension("n_heads", "choice", (3, 1), {})  # 3 heads do not divide 16 channels
RATES = Dimension("learning_rate", "loguniform", (1e-4, 1e-2), {})


# A search whose process is killed when the first trial is on record; Ray's processes have not ended yet.
KILLED_AFTER_A_TRIAL = """
import os, signal, sys
from recbole_posattn.cli import main as cli
from recbole_posattn.training.checkpointing import CheckpointMixin
from recbole_posattn.experiments.tuning.live import LiveSearch

LiveSearch.add = lambda search, record: os.kill(os.getpid(), signal.SIGKILL)
cli.main(sys.argv[1:])
"""


@pytest.fixture
def settings(tiny_settings: Callable) -> dict[str, Any]:
    return tiny_settings(model="NoPESASRec", dataset="tiny", use_gpu=False)


def started_at(folder: Path) -> dict[str, float]:
    return {file.parent.name: file.stat().st_mtime for file in folder.glob("runs/*/result.json")}


@needs_posix
@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_killed_and_taken_up_it_runs_nothing_twice(
    tiny_data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The search is killed when one of its two trials is on record, and resumed with its data in another folder."""
    folder, space = tmp_path / "search", tmp_path / "space.yaml"
    space.write_text("learning_rate: {loguniform: [1e-3, 1e-2]}\n")
    data, moved = (tmp_path / name for name in ("data", "moved"))
    shutil.copytree(tiny_data_path, data)
    arguments = [
        *("tune", "--model=NoPESASRec", "--dataset=tiny"),
        *(f"--data_path={data}", f"--space={space}", "--num_samples=2", "--scheduler=none"),
        "--resources=cpu=1",
        *("--epochs=2", "--hidden_size=16", "--MAX_ITEM_LIST_LENGTH=10", "--use_gpu=False", f"--output={folder}"),
    ]
    died = subprocess.run([sys.executable, "-c", KILLED_AFTER_A_TRIAL, *arguments], capture_output=True)
    assert died.returncode == -signal.SIGKILL
    before, runs = read_records(folder), started_at(folder)
    assert len(before) == 1 and not (folder / "best.yaml").exists()

    assert cli.main(arguments) == cli.EXIT_USER_ERROR
    assert "continue it with --resume" in capsys.readouterr().err
    data.rename(moved)
    arguments = [argument.replace(f"--data_path={data}", f"--data_path={moved}") for argument in arguments]
    assert cli.main([*arguments, "--resume"]) == 0
    after = read_records(folder)
    assert after[: len(before)] == before
    assert len({record.number for record in after}) == len(after) == 2
    assert len({record.settings["learning_rate"] for record in after}) == 2
    assert [record.settings["learning_rate"] for record in after].count(0.001) == 1  # the default is a trial
    assert {name: started_at(folder)[name] for name in runs} == runs
    assert not list(folder.rglob("*.incomplete")) and not (folder / "ray").exists()

    # What it found can be used, and a finished search only writes its report.
    best = best_trial(after, bigger=True)
    assert yaml.safe_load((folder / "best.yaml").read_text())["learning_rate"] == best.settings["learning_rate"]
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 2 and table["ndcg@10"].max() == best.best(bigger=True)
    assert [file.parent.name for file in folder.rglob(BEST_NAME)] == [f"{best.number:04d}"]
    evaluated = (folder / "best.json").stat().st_mtime
    (folder / "report.html").unlink()
    assert cli.main([*arguments, "--resume"]) == 0
    assert (folder / "report.html").is_file() and (folder / "best.json").stat().st_mtime == evaluated


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_no_test_metric_is_computed_before_the_search_has_ended(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every evaluation, in the trials' processes and in this one, notes its split; the test set's is the last alone."""
    from recbole_posattn.experiments.tuning import ray_tune
    from recbole_posattn.experiments.tuning import tune as make
    from recbole_posattn.training.checkpointing import CheckpointMixin

    log = str(tmp_path / "splits")

    def note_splits() -> None:
        from recbole_posattn.training.checkpointing import CheckpointMixin

        evaluate = CheckpointMixin.evaluate

        def noting(self: Any, eval_data: Any, *args: Any, **options: Any) -> Any:
            with open(log, "a") as file:
                file.write(f"{eval_data._sampler.phase}\n")
            return evaluate(self, eval_data, *args, **options)

        CheckpointMixin.evaluate = noting

    # pickled by value, as it is not a module's
    def run_trial(config: dict, settings: dict, folder: str, **options: Any) -> None:
        from recbole_posattn.experiments.tuning import ray_tune

        note_splits()
        ray_tune._run_trial(config, settings, folder, **options)

    def evaluate_checkpoint(*args: Any) -> Any:
        with open(log, "a") as file:
            file.write("search ended\n")
        return original(*args)

    original = make.evaluate_checkpoint
    monkeypatch.setattr(ray_tune, "_run_trial", run_trial)
    monkeypatch.setattr(make, "evaluate_checkpoint", evaluate_checkpoint)

    monkeypatch.setattr(CheckpointMixin, "evaluate", CheckpointMixin.evaluate)  # put back afterwards
    note_splits()
    found, _ = tune(Search(settings, Space([RATES]), 2, scheduler="none"), tmp_path / "search", Resources(2, cpus=1))
    splits = Path(log).read_text().split("\n")[:-1]
    assert splits == ["valid"] * (2 * settings["epochs"]) + ["search ended", "test"]
    assert found.test_result["ndcg@10"] > 0
    for record in found.records:
        result = json.loads((trial_folder(tmp_path / "search", record.number) / "result.json").read_text())
        assert result["test_result"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_trials_that_fail_are_told_and_do_not_stop_a_grid(settings: dict, tmp_path: Path) -> None:
    search = Search(settings, Space([HEADS]), 99, "grid", "none")
    ended: list[TrialRecord] = []
    records = run_search(search, tmp_path / "search", Resources(cpus=1), on_end=ended.append)
    assert ended == records and [record.settings["n_heads"] for record in records] == [3, 1]
    for record in records:
        failed = record.settings["n_heads"] == 3
        assert record.state == (FAILED if failed else FINISHED)
        assert ("hidden_size must be a multiple of n_heads" in (record.error or "")) == failed
        assert len(record.curve) == (0 if failed else 2)
    # With all known there is nothing to run, not even a Ray to start.
    assert run_search(search, tmp_path / "search", Resources(address="nowhere"), resume=True) == records


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_a_trial_that_dies_runs_once_more_after_all_others(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One is killed the first time, for its memory say, another one always."""
    from recbole_posattn.experiments.tuning import ray_tune

    # both pickled by value, as they are not a module's
    def run_trial(config: dict, settings: dict, folder: str, **options: Any) -> None:
        if config["trial"]["settings"]["hidden_size"] > 8:
            os.kill(os.getpid(), signal.SIGKILL)
        from recbole_posattn.experiments.tuning import ray_tune

        ray_tune._run_trial(config, settings, folder, **options)

    def run_in_folder(settings: dict, *arguments: Any, **options: Any) -> str | None:
        if settings["hidden_size"] == 32:
            os.kill(os.getpid(), signal.SIGKILL)
        from recbole_posattn.experiments import run_folders

        return run_folders.run_in_folder(settings, *arguments, **options)

    monkeypatch.setattr(ray_tune, "_run_trial", run_trial)
    monkeypatch.setattr("recbole_posattn.experiments.trials.run_in_folder", run_in_folder)
    search = Search(settings, Space([Dimension("hidden_size", "choice", (32, 16, 8), {})]), 3, "grid", "none")
    ended: list[TrialRecord] = []
    records = run_search(search, tmp_path / "search", Resources(jobs=2, cpus=1), on_end=ended.append)
    assert {record.settings["hidden_size"]: record.state for record in records} == {32: DIED, 16: FINISHED, 8: FINISHED}
    assert ended[0].settings["hidden_size"] == 8 and sorted(ended) == records
    assert {len(record.curve) for record in records if record.state == FINISHED} == {settings["epochs"]}
    assert caplog.text.count("it runs once more, alone") == 2
    assert sorted(read_records(tmp_path / "search")) == records


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_hopeless_trials_are_stopped(settings: dict, tmp_path: Path) -> None:
    """Each rung lets one third continue: not the settings that learn nothing."""
    rates = Dimension("learning_rate", "choice", (1e-2, 1e-9), {})
    settings = {**settings, "epochs": 12, "stopping_step": 99}
    search = Search(settings, Space([rates]), 2, "grid", "asha", grace_period=3)
    first, other = run_search(search, tmp_path / "search", Resources(cpus=1))
    assert first.state == FINISHED and first.settings["learning_rate"] == 1e-2
    assert [epoch for epoch, _ in first.curve] == list(range(1, 13))
    assert other.state == PRUNED and other.curve[-1][0] == 3


def test_optuna_and_asha_regain_their_state(settings: dict) -> None:
    """No process is started for trials that have ended; what they reported decides about the next ones."""
    from ray.tune.schedulers import TrialScheduler

    from recbole_posattn.experiments.tuning import ray_tune

    search = Search({**settings, "epochs": 30}, Space([RATES]), 9, grace_period=3)
    config = check_search(search)
    known = [
        TrialRecord(0, FINISHED, {"learning_rate": 1e-3}, [(2, 0.1), (3, 0.4), (4, 0.3), (9, 0.6)]),
        TrialRecord(1, PRUNED, {"learning_rate": 2e-3}, [(1, 0.2), (3, 0.1)]),
        TrialRecord(4, FAILED, {"learning_rate": 3e-3}, [], error="no memory"),
    ]
    searcher = ray_tune._optuna_search(search, search.fixed(config), known, 5, "max", seed=1)
    scheduler = ray_tune._scheduler(search, config, "max")
    ray_tune._report_known(known, searcher, scheduler, "max")
    told = searcher._ot_study.trials
    assert [(trial.params, trial.state.name) for trial in told] == [
        ({"learning_rate": 1e-3}, "COMPLETE"),
        ({"learning_rate": 2e-3}, "COMPLETE"),
        ({"learning_rate": 3e-3}, "FAIL"),
    ]
    assert [trial.value for trial in told] == [0.6, 0.2, None]
    assert told[0].intermediate_values == {1: 0.1, 2: 0.4, 3: 0.4, 4: 0.6}
    assert [searcher.suggest(name)["trial"]["number"] for name in ("next", "last")] == [5, 6]

    # at epoch 3, the best scores of the known trials were 0.4 and 0.2, whose upper third begins at a third below 0.4
    cut = 0.2 + (0.4 - 0.2) * 2 / 3
    for best, decision in ((cut - 1e-6, TrialScheduler.STOP), (cut + 1e-6, TrialScheduler.CONTINUE)):
        again = ray_tune._scheduler(search, config, "max")
        ray_tune._report_known(known, None, again, "max")
        trial: Any = SimpleNamespace(trial_id="next")
        again.on_trial_add(None, trial)
        assert again.on_trial_result(None, trial, {"epoch": 3, "best": best}) == decision


@pytest.mark.parametrize(("mode", "best"), [("max", [0.5, 0.5, 0.7, 0.7]), ("min", [0.5, 0.5, 0.5, 0.4])])
def test_a_score_of_nan_does_not_hide_the_best_one(mode: str, best: list[float]) -> None:
    reports = trial_reports([(1, math.nan), (2, 0.5), (3, math.nan), (4, 0.7), (5, 0.4)], mode)
    assert math.isnan(reports[0]["best"]) and [report["best"] for report in reports[1:]] == best


# -- records ---------------------------------------------------------------------------------------------------------


def test_a_torn_line_is_no_trial(tmp_path: Path) -> None:
    first, second = (TrialRecord(number, FINISHED, {"a": [number]}, [(1, 0.5), (2, 0.25)], 1.5) for number in (0, 1))
    append_record(tmp_path, first)
    with open(tmp_path / TRIALS_NAME, "a") as file:
        file.write('\n{"number": 7, "sta')
    append_record(tmp_path, second)
    assert read_records(tmp_path) == [first, second]


def test_a_search_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when it is taken up again with more trials."""
    space = Space([RATES])
    searched = {"space": space.plain()}
    open_search(tmp_path, searched, space, 5, resume=False)
    before = (tmp_path / "search.json").read_bytes()

    def half(file: Path, text: str, **_: str) -> None:
        file.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(UserError, match="cannot be written: No space left on device"):
        patch.setattr(Path, "write_text", half)
        open_search(tmp_path, searched, space, 5, resume=True)
    assert (tmp_path / "search.json").read_bytes() == before
    assert open_search(tmp_path, searched, space, 5, resume=True) == []


def test_what_ended_while_the_search_was_killed_is_known(tmp_path: Path) -> None:
    """A finished run without a record is taken over, one that failed is run again, as is one whose process died."""
    space = Space([RATES])
    searched = {"space": space.plain()}
    assert open_search(tmp_path, searched, space, 5, resume=False) == []
    append_record(tmp_path, TrialRecord(0, DIED, {"learning_rate": 0.5}, [], error="killed"))
    for number in (0, 1, 2, 3):
        trial_folder(tmp_path, number).mkdir()
    (tmp_path / "runs" / "0004.incomplete").mkdir()
    for number in (0, 2):  # its failure would be that of the next trial of this number
        (trial_folder(tmp_path, number) / "failure.json").write_text("{}")
    finish_run(trial_folder(tmp_path, 3))
    known = TrialRecord(3, FINISHED, {"learning_rate": 0.005}, [(1, 0.1), (3, 0.3)], 2.5)
    assert open_search(tmp_path, searched, space, 5, resume=True) == [known]
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["0003"]
    assert open_search(tmp_path, searched, space, 5, resume=True) == [known]  # and written down


@pytest.mark.parametrize("text", ["", '{"space": ', "[]"])
def test_a_damaged_definition_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / SEARCH_NAME).write_text(text)
    with pytest.raises(SettingError, match=r"search\.json is damaged, so the search cannot be continued; give another"):
        open_search(tmp_path, {}, Space([RATES]), 5, resume=True)


@pytest.mark.parametrize("epochs", [300, 1000])
def test_a_trial_alone_is_never_stopped(epochs: int) -> None:
    """Not at the epochs that a run has without a search either: with more, it would be pruned and could not win."""
    from recbole_posattn.experiments.tuning.ray_tune import _scheduler

    space = Space([Dimension("epochs", "choice", (100, 1000), {})])
    search = Search({"model": "NoPESASRec"}, space, 2)
    scheduler, trial = _scheduler(search, check_search(search), "max"), SimpleNamespace(trial_id="0", config={})
    scheduler.on_trial_add(None, trial)
    decisions = {scheduler.on_trial_result(None, trial, {"epoch": 1 + epoch, "best": 0.5}) for epoch in range(epochs)}
    assert decisions == {"CONTINUE"}


def test_each_winner_of_a_search_is_tested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that was continued may find another, and says that the test set was used for both."""
    tested: list[int] = []

    def evaluate(file: Path, data_path: object) -> tuple[dict, None]:
        tested.append(int(file.parent.name))
        return {"ndcg@10": 0.1}, None

    monkeypatch.setattr("recbole_posattn.experiments.tuning.tune.evaluate_checkpoint", evaluate)
    for number in (3, 3, 21, 21):
        folder = trial_folder(tmp_path, number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text('{"best_valid_result": {"ndcg@10": 0.2}}')
        winner = _evaluated(TrialRecord(number, FINISHED, {}, [(1, 0.2)]), tmp_path, None)
        assert winner["tested"] == tested
    assert tested == [3, 21]


def finish_run(folder: Path) -> None:
    """What a finished trial with a learning rate of 0.005 left in earlier versions."""
    folder.mkdir(exist_ok=True)
    result = {
        "config": {"learning_rate": 0.005, "valid_metric": "NDCG@10"},
        "curve": [
            {"epoch": 0, "loss": 3.0, "valid": {"ndcg@10": 0.1}},
            {"epoch": 1, "loss": 2.0},
            {"epoch": 2, "loss": 1.0, "valid": {"ndcg@10": 0.3}},
        ],
        "seconds": {"total": 2.5},
    }
    (folder / "result.json").write_text(json.dumps(result))


def test_settings_without_a_record_are_recovered_as_drawn(
    settings: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run's own settings are resolved. A run of an earlier version, which has no others, is left out."""
    from recbole_posattn.experiments.tuning import ray_tune

    space = Space(
        [
            Dimension("lr_decay_epochs", "choice", (None, 9), {}),
            Dimension("train_neg_sample_args", "choice", (None, {"sample_num": 3}), {}),
        ]
    )
    drawn = {"lr_decay_epochs": None, "train_neg_sample_args": {"sample_num": 3}}
    search = Search({**settings, "epochs": 1, "lr_scheduler": "cosine", "loss_type": "BPR"}, space, 2)
    assert open_search(tmp_path, search.plain(), space, 2, resume=False) == []
    monkeypatch.setattr(ray_tune.tune, "report", lambda metrics: None)
    monkeypatch.setattr("recbole_posattn.experiments.run_folders.signal.signal", lambda *_: None)
    trial = {"trial": {"number": 0, "settings": drawn}}
    data = search_identity(search).data
    ray_tune._run_trial(trial, dict(search.settings), str(tmp_path), 1, str(tmp_path), "max", data)
    resolved = json.loads((trial_folder(tmp_path, 0) / "result.json").read_text())["config"]
    assert resolved["lr_decay_epochs"] == 1 and resolved["train_neg_sample_args"] != {"sample_num": 3}

    for number in (1, 2):
        shutil.copytree(trial_folder(tmp_path, 0), trial_folder(tmp_path, number))
    (trial_folder(tmp_path, 1) / "drawn.json").unlink()
    write_json(trial_folder(tmp_path, 2) / "result.json", {**read_result(trial_folder(tmp_path, 0)), "data_digest": ""})
    caplog.clear()
    (record,) = open_search(tmp_path, search.plain(), space, 3, resume=True, data=data)
    assert record.number == 0 and record.settings == drawn and space.parameters(record.settings)
    assert not trial_folder(tmp_path, 1).exists() and not trial_folder(tmp_path, 2).exists()
    first, second = (record.message for record in caplog.records)
    assert first.startswith(
        "trial 1 is left out: an earlier version ran it and did not keep the drawn lr_decay_epochs; 1 is"
    )
    assert second == "trial 2 is left out: the data set has changed since it ran."


def test_a_trial_that_outlives_its_search_is_waited_for(tmp_path: Path) -> None:
    """The process of a trial may end after the search was killed and resumed; its run is not done a second time."""
    space = Space([RATES])
    searched, incomplete = {"space": space.plain()}, tmp_path / "runs" / "0000.incomplete"
    open_search(tmp_path, searched, space, 5, resume=False)
    incomplete.mkdir()
    is_locked = threading.Event()

    def process_of_the_trial() -> None:
        with locked(lock_of_run(trial_folder(tmp_path, 0))):
            is_locked.set()
            time.sleep(0.3)
            finish_run(incomplete)
            incomplete.rename(trial_folder(tmp_path, 0))

    process = threading.Thread(target=process_of_the_trial)
    process.start()
    is_locked.wait()
    (record,) = open_search(tmp_path, searched, space, 5, resume=True)
    process.join()
    assert record.number == 0 and record.state == FINISHED


def test_a_trial_that_outlives_the_wait_is_no_trial_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is not used again, and when all trials have ended its run is deleted."""
    monkeypatch.setattr(records_of_search, "WAIT_FOR_ORPHANS", 0.01)
    space = Space([RATES])
    searched, incomplete = {"space": space.plain()}, tmp_path / "runs" / "0001.incomplete"
    open_search(tmp_path, searched, space, 2, resume=False)
    one, other = (TrialRecord(number, FINISHED, {"learning_rate": 0.5}, [(1, 0.1)]) for number in (0, 2))
    append_record(tmp_path, one)
    incomplete.mkdir()
    with locked(lock_of_run(trial_folder(tmp_path, 1))):
        known = open_search(tmp_path, searched, space, 2, resume=True)
        assert known == [one] and next_number(known, tmp_path) == 2
    append_record(tmp_path, other)
    finish_run(incomplete)
    incomplete.rename(trial_folder(tmp_path, 1))
    assert open_search(tmp_path, searched, space, 2, resume=True) == [one, other]
    assert not trial_folder(tmp_path, 1).exists()


def test_the_best_is_a_finished_one() -> None:
    records = [
        TrialRecord(0, PRUNED, {}, [(1, 0.9)]),
        TrialRecord(1, FINISHED, {}, [(1, 0.4), (2, 0.2)]),
        TrialRecord(2, FINISHED, {}, [(1, 0.3), (2, 0.4)]),
        TrialRecord(3, FAILED, {}, [], error="nan"),
    ]
    assert best_trial(records, bigger=True).number == 1  # the earlier of equals
    assert best_trial(records, bigger=False).number == 1
    assert best_trial(records[:1], bigger=True) is None


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--model=NoPESASRecc"],
            "model 'NoPESASRecc' is unknown. Did you mean 'NoPESASRec'",
        ),
        (["--model=GCSAN"], "tuning must be one of"),
        (["--space=nothing.yaml"], "tuning must be one of"),
        (["--params_file=nothing.hyper"], "params file nothing.hyper cannot be read: No such file"),
        (["--num_samples=0"], "num_samples must be a positive integer; got 0"),
        (["--grace_period=0"], "grace_period must be a positive integer"),
        (["--resources=cpu=0"], "resources must be such as cpu=2,gpu=0.5, each once; got 'cpu=0'"),
        (["--resources=tpu=1"], "resources must be such as"),
        (["--resources=cpu=2,cpu=4"], "resources must be such as cpu=2,gpu=0.5, each once; got 'cpu=2,cpu=4'"),
        (["--resources=gpu=.inf"], "cpus must be a positive integer and gpus a number of at least 0; got gpus inf"),
        (["--resume"], "there is no search in tuning/PosKernelSASRec-ml-100k to resume; leave --resume out"),
        (["--search=grid"], "learning_rate is loguniform, which has no grid"),
        (["--scheduler=none", "--grace_period=3"], "grace_period 3 is for the scheduler asha; got none"),
        (["--search=grid", "--num_samples=3"], "num_samples 3 is for the searches tpe and random; got grid"),
        (["--n_layers=0"], "n_layers must be a positive integer; got 0"),
        (["--model=Pop"], "nothing to search for Pop: its search space has no key"),
        (["--params_file=models.hyper"], "search space: model cannot be searched; give it with --model=VALUE"),
        (["--dataset=ml-100kk"], "data set 'ml-100kk' not found"),
        (["surplus"], "argument 'surplus' is not understood"),
    ],
)
def test_bad_input_ends_in_one_line_and_code_2(
    given: list[str], message: str, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    Path("models.hyper").write_text("model choice ['NoPESASRec', 'RoPESASRec']\nlearning_rate choice [1e-3]\n")
    assert cli.main(["tune", *given]) == cli.EXIT_USER_ERROR
    output = capsys.readouterr()
    assert output.out == "" and re.search(message, output.err) and output.err.count("\n") == 1
    assert not list(empty_folder.rglob(SEARCH_NAME))


def test_model_and_data_set_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    """The flags outrank it."""
    started: list[tuple[dict, str]] = []

    def stop(search: Search, folder: Path, *_: object) -> None:
        started.append((dict(search.settings), str(folder)))
        raise UserError("seen")

    monkeypatch.setattr("recbole_posattn.experiments.tuning.tune.tune", stop)
    Path("mine.yaml").write_text("{model: SASRec, dataset: ml-1m, epochs: 3}")
    for flags in ([], ["--dataset=ml-100k"]):
        assert cli.main(["tune", "--config_files=mine.yaml", *flags]) == cli.EXIT_USER_ERROR
    given = {"model": "SASRec", "dataset": "ml-1m", "epochs": 3}
    assert started == [
        (given, "tuning/SASRec-ml-1m"),
        ({**given, "dataset": "ml-100k"}, "tuning/SASRec-ml-100k"),
    ]


def test_another_search_is_not_gone_on_with(settings: dict, tmp_path: Path) -> None:
    search = Search(settings, Space([RATES]), 2)
    open_search(tmp_path, search.plain(), search.space, 5, resume=False)
    with pytest.raises(SettingError, match="already holds a search; continue it with --resume"):
        open_search(tmp_path, search.plain(), search.space, 5, resume=False)
    for other in (search._replace(algorithm="random"), search._replace(settings={**settings, "epochs": 9})):
        with pytest.raises(SettingError, match=r"the search in .* has (algorithm|settings) .*, and not"):
            open_search(tmp_path, other.plain(), search.space, 5, resume=True)
    elsewhere = search._replace(
        settings={**settings, "data_path": "elsewhere", "checkpoint_dir": "there", "state": "ERROR"}
    )
    with pytest.raises(SettingError, match="has settings"):  # as without an identity the data may be others
        open_search(tmp_path, elsewhere.plain(), search.space, 5, resume=True)
    for same in (search._replace(n_trials=9), elsewhere):
        assert open_search(tmp_path, same.plain(), search.space, 5, resume=True, identity={}) == []


def test_what_settings_come_with_is_said_once(settings: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search = Search({**settings, "model": "SASRec", "kernel_bandwidth": 3}, Space([HEADS]), 2, "grid")
    with pytest.raises(SettingError, match="there is no search"):
        run_search(search, tmp_path / "search", Resources(), resume=True)
    assert [record.message for record in caplog.records] == [
        "settings without effect on SASRec, which does not have them: kernel_bandwidth"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_a_search_without_a_finished_trial_is_told(settings: dict, tmp_path: Path) -> None:
    rate = Dimension("learning_rate", "choice", (1e30,), {})
    message = r"no trial has a finite ndcg@10 on the validation set; the first that failed: .*nan"
    with pytest.raises(UserError, match=message):
        tune(Search(settings, Space([rate]), 1, "grid"), tmp_path / "search", Resources(cpus=1))
    assert not (tmp_path / "search" / "best.yaml").exists()


# -- RecBole's HyperTuning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algo", ["random", *(pytest.param(algo, marks=pytest.mark.slow) for algo in ("exhaustive", "bayes"))]
)
def test_recboles_own_search_takes_our_objective(algo: str, settings: dict, tmp_path: Path) -> None:
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump({**settings, "epochs": 1}))
    (tmp_path / "model.hyper").write_text("learning_rate choice [0.001,0.01]\nn_layers choice [1,2]\n")
    search = HyperTuning(
        objective_function,
        params_file="model.hyper",
        fixed_config_file_list=["fixed.yaml"],
        algo=algo,
        max_evals=2,
    )
    search.run()
    search.export_result("found")
    assert len(search.score_list) == (4 if algo == "exhaustive" else 2)
    assert search.best_score == max(search.score_list)
    assert set(search.best_params) == {"learning_rate", "n_layers"}
    assert all(result["test_result"] == {} for result in search.params2result.values())
    assert "Valid result:" in Path("found").read_text()
