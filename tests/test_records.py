"""Records of finished runs: what they hold, how they are recognized, how small they are, what git takes of them."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from recbole_posattn import run
from recbole_posattn.errors import SettingError, UserError
from recbole_posattn.experiments import run_folders, trials
from recbole_posattn.experiments.budget import Budget, limited
from recbole_posattn.experiments.cluster import Resources
from recbole_posattn.experiments.identity import identify
from recbole_posattn.experiments.leaderboard.board import gather
from recbole_posattn.experiments.leaderboard.table import remarks
from recbole_posattn.experiments.records import Records, ignore_all_but_records, records_folders
from recbole_posattn.experiments.run_folders import run_in_folder
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Outcome, Trial, checked_folders, run_trials
from recbole_posattn.settings import keys
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.result import read_users, write_users
from recbole_posattn.training.run_folder import LAST_NAME
from tests.test_time_limit import losses, stop_at


@pytest.fixture(scope="module")
def settings(tiny_settings: Callable) -> Callable[..., dict]:
    def settings(**changes: object) -> dict:
        given = {"model": "Pop", "dataset": "tiny", "protocol": "leave_one_out_masked", "use_gpu": False, "epochs": 1}
        return {**tiny_settings(**given), **changes}

    return settings


@pytest.fixture(autouse=True)
def interruptible() -> Any:
    """A run in a process of its own ignores Ctrl-C; the tests do not."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope="module")
def finished(settings: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    handler = signal.getsignal(signal.SIGINT)
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run_in_folder(settings(), folder, 1) is None
    signal.signal(signal.SIGINT, handler)
    return folder


@pytest.fixture
def record(finished: Path, tmp_path: Path) -> Path:
    """The record of a run, in a folder of records."""
    return shutil.copytree(finished, tmp_path / "elsewhere" / "runs" / "some name")


def change(folder: Path, **entries: Any) -> None:
    """Write other entries into the ``result.json`` of a record; ``config`` is updated."""
    result = json.loads((folder / "result.json").read_text())
    result["config"] |= entries.pop("config", {})
    (folder / "result.json").write_text(json.dumps({**result, **entries}))


def test_a_record_says_all_about_its_run_but_its_places(record: Path, settings: Callable, tmp_path: Path) -> None:
    result = read_result(record)
    known = identify(settings())
    assert (result["results_version"], result["data_digest"], result["threads"]) == (known.version, known.data, 1)
    assert result["seed"] == result["config"]["seed"] and set(result["versions"]) > {"torch", "recbole"}
    assert {"seconds", "curve", "git_revision", "test_result", "best_valid_result", "stopped_by"} <= set(result)
    text = (record / "result.json").read_text()
    assert str(tmp_path) not in text and settings()["data_path"] not in text
    assert sum('"epoch":' in line for line in text.splitlines()) == len(result["curve"])  # a line for each


def test_files_of_settings_are_named_without_their_folder(settings: Callable, tmp_path: Path) -> None:
    protocol = tmp_path / "mine" / "own.yaml"
    protocol.parent.mkdir()
    protocol.write_text("eval_args: {split: {LS: valid_and_test}, mode: full, order: TO}\nmask_history: all\n")
    given = settings(model="Pop", protocol=str(protocol), data_cache=None)
    assert run_in_folder(given, tmp_path / "run", 1) is None
    assert read_result(tmp_path / "run")["config"]["protocol"] == "own.yaml"
    assert str(tmp_path) not in (tmp_path / "run" / "result.json").read_text()
    assert taken(given, tmp_path, tmp_path / "own")[0]


def test_a_run_that_was_continued_with_other_settings_is_not_taken(
    record: Path, settings: Callable, tmp_path: Path
) -> None:
    change(record, changes=[{"epoch": 1, "key": "learning_rate", "before": 0.5, "now": 0.001}])
    assert not taken(settings(), record.parent, tmp_path / "own")[0]
    change(record, changes=[{"epoch": 1, "key": "max_minutes", "before": 5, "now": None}])
    assert taken(settings(), record.parent, tmp_path / "own")[0]


def test_a_run_of_more_epochs_than_it_says_is_not_taken(record: Path, settings: Callable, tmp_path: Path) -> None:
    """An earlier version resumed runs with fewer epochs than they had."""
    change(record, epochs=read_result(record)["config"]["epochs"] + 1)
    assert not taken(settings(), record.parent, tmp_path / "own")[0]


def test_results_by_target_are_small_and_come_back_as_they_were(tmp_path: Path) -> None:
    """Thirty runs on 22,363 targets, as ten rows with three seeds on amazon-beauty, stay far below 10 MB."""
    random = np.random.default_rng(0)
    n, n_items = 22_363, 12_101
    ranks = np.minimum(random.geometric(1 / 1500, n), n_items)
    users = pd.DataFrame(
        {
            "user": [f"A{number:013X}" for number in random.permutation(10**6)[:n]],
            "item": [f"B{number:09d}" for number in random.zipf(1.3, n) % n_items],
            "rank": pd.array(ranks, dtype="Int64"),
            "history_length": random.geometric(0.15, n) + 3,
            "seen": np.zeros(n, dtype=bool),
            "item_count": random.geometric(0.01, n),
        }
    )
    users.loc[::100, "rank"] = pd.NA
    write_users(users, tmp_path)
    pd.testing.assert_frame_equal(read_users(tmp_path), users)
    assert 30 * (tmp_path / "users.parquet").stat().st_size < 9e6
    stored = pd.read_parquet(tmp_path / "users.parquet").dtypes.astype(str)
    assert stored[["rank", "history_length", "item_count"]].tolist() == ["UInt16", "uint8", "uint16"]


def test_git_takes_the_records_alone(record: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = record.parent
    ignore_all_but_records(root)
    (root / "other.incomplete" / "saved").mkdir(parents=True)
    (root / "other.incomplete" / "result.json").write_text("{}")
    (root / "failed").mkdir()
    (root / "failed" / "failure.json").write_text("{}")
    (root / "failed.lock").touch()
    assert (record / "best.pth").is_file()
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    listed = subprocess.run(["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True).stdout
    assert listed.split("\n")[:-1] == [".gitignore", "some name/result.json", "some name/users.parquet"]


def taken(settings: dict, folder: Path, root: Path) -> tuple[list[Path], Records]:
    """The records that a leaderboard of one run would take from a folder."""
    records = Records([folder])
    (target,) = checked_folders([Trial("mine", settings)], root, records)
    return ([target] if target.is_dir() else []), records


def test_a_finished_run_is_taken_whatever_its_folder_is_called(
    record: Path, settings: Callable, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    moved = shutil.copytree(settings()["data_path"], tmp_path / "moved")
    ((target,), records) = taken(settings(data_path=str(moved)), record.parent.parent, own)
    assert sorted(file.name for file in target.iterdir()) == ["result.json", "users.parquet"]
    assert read_result(target) == {**read_result(record), "checkpoint": None}
    assert records.taken == {record.parent: 1} and target.name == identify(settings()).fingerprint
    (outcome,) = run_trials({target: Trial("mine", settings())}, Resources(address="nowhere"))
    assert outcome.reused and len(outcome.users) > 0
    # a file with the keys of the protocol is the protocol
    file = shutil.copyfile(PROPERTIES / "protocol" / "leave_one_out_masked.yaml", tmp_path / "mine.yaml")
    assert identify(settings(protocol=str(file))).fingerprint == target.name
    for changes in ({"seed": 1}, {"model": "BPR"}, {"protocol": "leave_one_out"}):
        assert taken(settings(**changes), record.parent, tmp_path / "others")[0] == []
    with open(moved / "tiny" / "tiny.inter", "a") as opened:
        opened.write("u1\ti2\t9999\n")
    assert taken(settings(data_path=str(moved)), record.parent, tmp_path / "others")[0] == []


def test_the_own_record_of_an_older_version_is_renamed(record: Path, settings: Callable, tmp_path: Path) -> None:
    """Its weights stay with it; a folder of a failed run of that name is replaced."""
    own = record.parent
    failed = own / identify(settings()).fingerprint
    failed.mkdir()
    (failed / "failure.json").write_text("{}")
    ((target,), records) = taken(settings(), own, own)
    assert target == failed and [folder.name for folder in own.iterdir() if folder.is_dir()] == [target.name]
    assert (target / "best.pth").is_file() and not (target / "failure.json").exists() and not records.taken


def test_a_run_that_was_started_by_itself_is_a_record(settings: Callable, tmp_path: Path) -> None:
    result = run(config_dict=settings())
    ((target,), _) = taken(settings(), Path("saved"), tmp_path / "own")
    assert read_result(target)["test_result"] == result["test_result"]
    assert settings()["data_path"] not in (target / "result.json").read_text()


@pytest.mark.parametrize(
    "changes", [{"model": "BERT4Rec"}, {"model": "SASRec", "transform": "crop_itemseq", "eta": 0.6}], ids=str
)
def test_keys_that_training_adds_are_not_compared(settings: Callable, tmp_path: Path, changes: dict) -> None:
    """Neither in a new record, also of a run that was continued, nor in one of an earlier version, which has them."""
    folder = Path(run(config_dict=settings(**changes))["checkpoint"]).parent
    assert taken(settings(**changes), Path("saved"), tmp_path / "own")[0]
    more = {**changes, "epochs": 2}
    run(config_dict=settings(**more), resume=folder)
    written = read_result(folder)["config"]
    assert written.keys() <= identify(settings(**more)).settings.keys() | keys.KEYS.keys()
    assert taken(settings(**more), Path("saved"), tmp_path / "own")[0]
    change(folder, config={"MASK_INDEX": "MASK_INDEX", "CROP_ITEM_SEQ": "Crop_item_id_list"})
    assert taken(settings(**more), Path("saved"), tmp_path / "others")[0]


def test_a_record_outlives_new_keys(
    record: Path, settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks a key that was added after it: it counts with the default, or with what is like a version without it."""
    result = json.loads((record / "result.json").read_text())
    del result["config"]["lazy_prefixes"]  # true by default
    (record / "result.json").write_text(json.dumps(result))
    known = identify(settings())
    assert known.is_of(result) and not identify(settings(lazy_prefixes=False)).is_of(result)
    monkeypatch.setitem(keys.VALUES_BEFORE, "lazy_prefixes", False)
    assert not known.is_of(result) and identify(settings(lazy_prefixes=False)).is_of(result)
    # a key that this version does not have
    result["config"] |= {"lazy_prefixes": True, "of_another_version": 1}
    assert not known.is_of(result)


def test_results_of_another_version_are_not_taken(record: Path, settings: Callable, tmp_path: Path) -> None:
    change(record, results_version=1)
    told = io.StringIO()
    found, records = taken(settings(), record.parent, tmp_path / "own")
    records.report(Console(file=told))
    assert found == [] and told.getvalue().count("\n") == 1
    assert told.getvalue().startswith(f"{record.parent}: 1 finished runs are not reused")


@pytest.mark.parametrize(
    ("split", "group_by", "mask", "version"),
    [
        ({"RS": [0.8, 0.1, 0.1]}, "none", "all", 3),
        ({"TS": [0.8, 0.1, 0.1]}, "user", "all", 3),
        ({"RS": [0.8, 0.1, 0.1]}, "user", "all", 2),
        ({"RS": [0.8, 0.1, 0.1]}, "none", None, 2),
        ({"LS": "valid_and_test"}, "user", "all", 2),
        ({"TQ": [0.8, 0.9]}, "user", "all", 2),
    ],
)
def test_splits_whose_training_part_had_later_interactions_have_a_version_of_their_own(
    settings: Callable, split: dict, group_by: str, mask: str | None, version: int
) -> None:
    evaluation = {"split": split, "group_by": group_by, "order": "TO", "mode": "full"}
    assert identify(settings(protocol=None, eval_args=evaluation, mask_history=mask)).version == version


def test_an_outdated_record_is_not_mentioned_beside_a_current_one(
    record: Path, settings: Callable, tmp_path: Path
) -> None:
    old = shutil.copytree(record.parent, tmp_path / "old")
    change(old / record.name, results_version=1)
    records = Records([old, record.parent])
    assert records.take(identify(settings()), None, tmp_path / "own" / record.name)
    assert not records.outdated and records.taken == {record.parent: 1}


def test_records_that_cannot_be_copied_are_one_line(
    record: Path, settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recbole_posattn.experiments.records.shutil.copyfile", full)
    with pytest.raises(UserError, match=r"no records can be copied to .*own: No space left on device"):
        taken(settings(), record.parent, tmp_path / "own")
    assert not [folder for folder in (tmp_path / "own").iterdir() if not folder.name.startswith(".")]


@pytest.mark.parametrize("name", ["result.json", "users.parquet"])
@pytest.mark.parametrize("spoil", [lambda f: f.unlink(), lambda f: f.write_text("{"), lambda f: f.write_text("[]")])
def test_damaged_records_are_no_records(
    record: Path, settings: Callable, tmp_path: Path, spoil: Callable, name: str
) -> None:
    spoil(record / name)
    assert taken(settings(), record.parent, tmp_path / "own")[0] == []


@pytest.mark.parametrize("name", ["0123.incomplete", ".0123"])
def test_folders_in_the_making_are_no_records(record: Path, settings: Callable, tmp_path: Path, name: str) -> None:
    record.rename(record.with_name(name))
    assert taken(settings(), record.parent, tmp_path / "own")[0] == []


def test_folders_that_do_not_exist_are_refused(tmp_path: Path, record: Path) -> None:
    with pytest.raises(SettingError, match="there is no folder nowhere"):
        records_folders([Path("nowhere")], tmp_path)
    shutil.copytree(record.parent, tmp_path / "results" / "board" / "runs")  # below the working folder
    assert records_folders([], tmp_path / "own") == [tmp_path / "own", Path("results/board")]


def test_a_stopped_run_is_taken_by_who_gives_no_more_time(record: Path, settings: Callable, tmp_path: Path) -> None:
    change(record, stopped_by="max_minutes", config={"max_minutes": 5})
    for minutes, is_taken in ((5, True), (2.5, True), (6, False), (None, False)):
        own = tmp_path / f"own {minutes}"
        assert bool(taken(settings(max_minutes=minutes), record.parent, own)[0]) == is_taken
    change(record, stopped_by=None)
    assert taken(settings(max_minutes=1000), record.parent, tmp_path / "own")[0]


def test_a_stopped_trial_goes_on_with_more_time(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(model="NoPESASRec", epochs=3)
    with monkeypatch.context() as patch:
        stop_at(4, patch)  # in the second epoch
        assert run_in_folder({**given, "max_minutes": 5}, tmp_path / "run", 1) is None
    assert read_result(tmp_path / "run")["epochs"] == 1 and (tmp_path / "run" / LAST_NAME).is_file()
    validated: list[int] = []
    assert run_in_folder({**given, "max_minutes": 5}, tmp_path / "run", 1) is None  # has all the time it is given
    assert run_in_folder(given, tmp_path / "run", 1, callback_fn=lambda epoch, _: validated.append(epoch)) is None
    assert run_in_folder(given, tmp_path / "whole", 1) is None
    continued, whole = (read_result(tmp_path / name) for name in ("run", "whole"))
    assert validated == [1, 2] and losses(continued) == losses(whole)
    assert continued["test_result"] == whole["test_result"] and continued["stopped_by"] is None
    files = sorted(file.name for file in (tmp_path / "run").iterdir() if file.is_file())
    assert files == ["best.pth", "result.json", "users.parquet"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run", "whole"]


def test_a_stopped_trial_that_fails_when_it_goes_on_stays_on_the_board(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    given = settings(model="NoPESASRec", epochs=3, seed=1)
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        assert run_in_folder({**given, "max_minutes": 5}, tmp_path / "run", 1) is None
    with monkeypatch.context() as patch:
        patch.setattr(run_folders, "run", fail)
        error = run_in_folder(given, tmp_path / "run", 1)
    outcome = Outcome(Trial("mine", given), tmp_path / "run", error)
    assert outcome.has_result and outcome.result["stopped_by"] == "max_minutes"
    board = gather([outcome], "tiny", "leave_one_out_masked", "mine")
    assert board is not None and board.models == ["mine"] and board.n_missing("mine") == 0
    assert board.failures == [("mine", 1, "ZeroDivisionError: a bug")]
    titles = [title for title, _ in remarks(board)]
    assert titles == ["Failed", "Stopped before their end"]
    assert run_in_folder(given, tmp_path / "run", 1) is None and read_result(tmp_path / "run")["epochs"] == 3
    (tmp_path / "none").mkdir()
    assert not Outcome(Trial("mine", given), tmp_path / "none", error).has_result


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_budget_limits_the_time_of_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("recbole_posattn.experiments.budget.time.time", lambda: now[0])
    budget = Budget(10)
    assert limited({"seed": 1}, 0, Budget().deadline) == {"seed": 1} and not Budget().is_spent
    now[0] = 240
    assert limited({}, 0, budget.deadline) == {"max_minutes": 6.0}
    for given in (5, 0.125, 0.004):  # kept as they are
        assert limited({"max_minutes": given}, 0, budget.deadline) == {"max_minutes": given}
    assert limited({}, 2, budget.deadline) == {"max_minutes": 8.0} and not budget.is_spent  # it trained before
    now[0] = 600
    assert budget.is_spent and Budget(0).is_spent
    assert limited({}, 2, budget.deadline) == {"max_minutes": 2.01}


def test_a_budget_counts_the_training_that_a_run_continues(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a killed run, and none of a record without the weights to continue from."""

    class PowerCut(BaseException):
        pass

    def cut(epoch: int, score: float) -> None:
        if epoch == 1:
            raise PowerCut

    given = settings(model="NoPESASRec", epochs=3)
    with pytest.raises(PowerCut):
        run_in_folder(given, tmp_path / "run", 1, callback_fn=cut)
    (checkpoint,) = tmp_path.glob("run.incomplete/saved/*/last.pth")
    content = read_checkpoint(checkpoint)
    content["training"]["seconds"] = 3600.0
    write_checkpoint(content, checkpoint)
    limits: list[float] = []
    monkeypatch.setattr(run_folders, "run", lambda config_dict, **_: limits.append(config_dict["max_minutes"]))
    deadline = time.time() + 60 * 10
    run_in_folder(given, tmp_path / "run", 1, deadline=deadline)
    (tmp_path / "record").mkdir()
    record = {"config": {"max_minutes": 60}, "seconds": {"training": 3600}, "stopped_by": "max_minutes"}
    (tmp_path / "record" / "result.json").write_text(json.dumps(record))
    run_in_folder(given, tmp_path / "record", 1, deadline=deadline)
    assert limits == [pytest.approx(70, abs=1), pytest.approx(10, abs=1)]


@pytest.mark.slow
def test_what_is_not_started_is_said(settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run is finished before; the budget is spent after another one; of a stopped one, its record is shown."""
    monkeypatch.setattr(trials, "ray_cluster", lambda where: _OneByOne())
    monkeypatch.setattr(trials, "start_run", lambda ray, settings, folder, where, **_: ray.run(settings, folder))
    monkeypatch.setattr(trials, "end_of_run", lambda ray, done, settings, folder: (done, False))
    plan = checked_folders([Trial("Pop", settings(seed=seed)) for seed in (1, 2, 3, 4)], tmp_path)
    folders = list(plan)
    for folder in (folders[0], folders[3]):
        assert run_in_folder(plan[folder].settings, folder, 1) is None
    change(folders[3], stopped_by="max_minutes", config={"max_minutes": 1})
    budget = Budget(1000)
    outcomes = []
    for outcome in run_trials(plan, Resources(), budget):
        outcomes.append(outcome)
        if not outcome.reused:
            budget.deadline = 0.0
    facts = [(o.trial.settings["seed"], o.reused, o.started, o.error) for o in outcomes]
    reason = "the budget of 1000 minutes was spent"
    assert facts == [(1, True, True, None), (2, False, True, None), (3, False, False, reason), (4, True, True, None)]
    again = list(run_trials(plan, Resources(), Budget(0)))
    assert [o.error for o in again] == [None, None, "the budget of 0 minutes was spent", None]


class _OneByOne:
    """Runs trials in this process, in place of Ray."""

    def __enter__(self) -> _OneByOne:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 64.0}

    def run(self, settings: dict, folder: Path) -> str | None:
        return run_in_folder(settings, folder, 1)

    def wait(self, running: list, num_returns: int) -> tuple[list, list]:
        return running[:num_returns], running[num_returns:]
