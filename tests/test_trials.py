"""Many runs in processes of their own: identified by what changes a result, done once, failing alone."""

from __future__ import annotations

import errno
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from recbole_posattn.errors import DataError, SettingError, TrainingError
from recbole_posattn.experiments import run_folders, trials
from recbole_posattn.experiments.budget import Budget
from recbole_posattn.experiments.cluster import Resources, ray_cluster
from recbole_posattn.experiments.identity import fingerprint
from recbole_posattn.experiments.records import Records
from recbole_posattn.experiments.run_folders import FAILURE_NAME, is_finished, run_in_folder
from recbole_posattn.experiments.run_results import read_result
from recbole_posattn.experiments.trials import Outcome, Trial, checked_folders, lacks_memory, run_trials
from recbole_posattn.training import result
from recbole_posattn.training.explained_errors import OUT_OF_MEMORY
from tests import processes


@pytest.fixture
def settings(tiny_settings: Callable) -> Callable[..., dict]:
    def settings(**changes: object) -> dict:
        given = {"model": "NoPESASRec", "dataset": "tiny", "protocol": "leave_one_out", "use_gpu": False, "epochs": 1}
        return {**tiny_settings(**given), **changes}

    return settings


def test_fingerprints_tell_what_matters(settings: Callable, tmp_path: Path) -> None:
    first = fingerprint(settings())
    assert fingerprint(settings()) == first == fingerprint(settings(checkpoint_dir="elsewhere", show_progress=True))
    moved = shutil.copytree(settings()["data_path"], tmp_path / "moved")
    assert fingerprint(settings(data_path=str(moved))) == first
    others = [{"seed": 1}, {"model": "APESASRec"}, {"epochs": 2}, {"protocol": "leave_one_out_masked"}]
    others += [{"preset": "paper"}, {"learner_args": {"eps": 1e-6}}]
    found = {fingerprint(settings(**changes)) for changes in others}
    with open(shutil.copytree(moved, tmp_path / "more") / "tiny" / "tiny.inter", "a") as file:
        file.write("1\t2\t9999\n")
    found.add(fingerprint(settings(data_path=str(tmp_path / "more"))))
    assert len(found | {first}) == len(others) + 2
    # what is a default is the same as what is given
    assert fingerprint(settings(hidden_act="gelu")) == first
    # data that change within one process, to others of the same length
    file = moved / "tiny" / "tiny.inter"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], *reversed(lines[1:])]))
    assert fingerprint(settings(data_path=str(moved))) != first


def test_files_named_in_settings_are_found_from_any_folder(empty_folder: Path) -> None:
    """Runs take place in folders of their own."""
    (empty_folder / "own.yaml").write_text("hidden_size: 8\n")
    given = {"preset": "own.yaml", "protocol": "own.yaml", "data_path": "data"}
    assert trials.from_anywhere({**given, "seed": 1}) == {
        **{key: str(empty_folder / file) for key, file in given.items()},
        "seed": 1,
    }
    Path("temporal").touch()
    beside = trials.from_anywhere({"data_path": "data", "pre_model_path": "own.yaml"}, empty_folder)
    assert beside["pre_model_path"] == str(empty_folder / "own.yaml")
    named = trials.from_anywhere({"preset": "paper", "protocol": "temporal"})
    assert (named["preset"], named["protocol"]) == ("paper", "temporal")


def test_fingerprints_of_another_version_of_the_method_differ(
    settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprint(settings())
    monkeypatch.setattr(result, "RESULTS_VERSION", result.RESULTS_VERSION + 1)
    assert fingerprint(settings()) != first


def test_bad_settings_are_found_before_anything_runs(settings: Callable, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="second: n_layers must be a positive integer; got 0"):
        checked_folders([Trial("first", settings()), Trial("second", settings(n_layers=0))], tmp_path)
    with pytest.raises(SettingError, match="first and second have the same settings"):
        checked_folders([Trial("first", settings()), Trial("second", settings(hidden_act="gelu"))], tmp_path)
    with pytest.raises(DataError, match="first: data set 'tinny' not found"):
        checked_folders([Trial("first", settings(dataset="tinny"))], tmp_path)


def test_a_killed_run_goes_on_after_its_last_epoch(settings: Callable, tmp_path: Path) -> None:
    class PowerCut(BaseException):
        pass

    def cut(epoch: int, score: float) -> None:
        if epoch == 2:
            raise PowerCut

    def epochs_of(result: dict) -> list[tuple[float, dict]]:
        return [(point["loss"], point["valid"]) for point in result["curve"]]

    given, validated = settings(epochs=4), []
    handler = signal.getsignal(signal.SIGINT)  # which a run in a process of its own ignores
    try:
        with pytest.raises(PowerCut):
            run_in_folder(given, tmp_path / "killed", 1, callback_fn=cut)
        assert (
            run_in_folder(given, tmp_path / "killed", 1, callback_fn=lambda epoch, _: validated.append(epoch)) is None
        )
        assert run_in_folder(given, tmp_path / "whole", 1) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert validated == [2, 3]
    killed, whole = (read_result(tmp_path / name) for name in ("killed", "whole"))
    assert killed["test_result"] == whole["test_result"] and epochs_of(killed) == epochs_of(whole)
    assert sorted(folder.name for folder in tmp_path.iterdir() if folder.name.startswith("killed")) == ["killed"]


@pytest.mark.parametrize("n_moved", [0, 1, 2, 3])
def test_a_run_killed_while_it_is_tidied_is_complete(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_moved: int
) -> None:
    """Killed after any of its files was moved out of ``saved/``; the run is not done again."""

    class PowerCut(BaseException):
        pass

    moved: list[Path] = []
    move = shutil.move

    def move_some(source: Path, target: Path) -> None:
        if len(moved) == n_moved:
            raise PowerCut
        moved.append(source)
        move(source, target)

    handler = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            patch.setattr(shutil, "move", move_some)
            patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(PowerCut))
            run_in_folder(settings(max_minutes=5), tmp_path / "run", 1)
        monkeypatch.setattr(run_folders, "run", lambda **_: pytest.fail("it ran again"))
        assert run_in_folder(settings(), tmp_path / "run", 1) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert sorted(file.name for file in (tmp_path / "run").iterdir() if file.is_file()) == [
        *("best.pth", "result.json", "users.parquet")
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
    result = read_result(tmp_path / "run")
    assert result["checkpoint"] == "best.pth" and result["config"]["max_minutes"] == 5


def explained(cause: Exception) -> TrainingError:
    """The error of the package that another one led to."""
    error = TrainingError(OUT_OF_MEMORY)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (explained(RuntimeError("DefaultCPUAllocator: can't allocate memory")), True),
        (TrainingError("the training loss is nan"), False),
        (SettingError("topk must be at most 3"), False),
        (DataError("no such column"), False),
        (ZeroDivisionError("a bug"), False),
    ],
    ids=repr,
)
def test_who_may_succeed_later_loses_no_epoch(
    settings: Callable, tmp_path: Path, error: Exception, goes_on: bool
) -> None:
    def fail(epoch: int, score: float) -> None:
        if epoch == 1:
            raise error

    handler, validated = signal.getsignal(signal.SIGINT), []
    try:
        assert run_in_folder(settings(epochs=3), tmp_path / "run", 1, callback_fn=fail) is not None
        again = {"callback_fn": lambda epoch, _: validated.append(epoch)}
        assert run_in_folder(settings(epochs=3), tmp_path / "run", 1, **again) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert validated == ([1, 2] if goes_on else [0, 1, 2])
    assert [folder.name for folder in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_args": {"mode": "uni10"}}, "first: eval_args: a leaderboard ranks all items for the targets of a test"),
        ({"eval_args": {"split": {"LS": "valid_only"}, "mode": "full"}}, "got mode .*, split {'LS': 'valid_only'}"),
        (
            {"metrics": ["NDCG", "AveragePopularity"], "valid_metric": "AveragePopularity@10"},
            "valid_metric 'AveragePopularity@10' is better if it is smaller; a leaderboard needs one that is better if",
        ),
        (
            {},
            "first: mask_history must be none, all or except_target with Pop in a leaderboard, which compares",
        ),
    ],
    ids=str,
)
def test_what_a_leaderboard_cannot_compare_is_refused_before_it_runs(
    settings: Callable, tmp_path: Path, changes: dict, message: str
) -> None:
    given = {key: value for key, value in settings(model="Pop").items() if key != "protocol"}
    with pytest.raises(SettingError, match=message):
        checked_folders([Trial("first", {**given, **changes})], tmp_path)


def test_a_finished_run_without_its_ranks_runs_again(settings: Callable, tmp_path: Path) -> None:
    trial = Trial("Pop", settings(model="Pop"))
    (folder,) = checked_folders([trial], tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert run_in_folder(trial.settings, folder, 1) is None
        (folder / "users.parquet").write_text("version https://git-lfs.github.com/spec/v1")
        checked_folders([trial], tmp_path, Records([]))
        assert (tmp_path / f".{folder.name}.damaged" / "result.json").is_file()  # nothing is lost
        assert run_in_folder(trial.settings, folder, 1) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(Outcome(trial, folder).users)


@pytest.mark.parametrize("key", ["test_result", "curve", "seconds", "epochs"])
def test_a_record_without_what_reports_read_runs_again(settings: Callable, tmp_path: Path, key: str) -> None:
    trial = Trial("Pop", settings(model="Pop"))
    ((folder, planned),) = checked_folders([trial], tmp_path / "runs").items()
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert run_in_folder(trial.settings, folder, 1, data=planned.data) is None
        file = folder / "result.json"
        file.write_text(
            json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != key})
        )
        assert not is_finished(folder, trial.settings)
        checked_folders([trial], tmp_path / "other", Records([folder.parent]))
        assert not list((tmp_path / "other").glob("*"))  # nor is it taken elsewhere
        assert run_in_folder(trial.settings, folder, 1, data=planned.data) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert is_finished(folder, trial.settings)


def test_data_replaced_after_the_plan_give_no_run_of_that_name(settings: Callable, tmp_path: Path) -> None:
    """The folder is named by the data that were there when the runs were planned."""
    moved = shutil.copytree(settings()["data_path"], tmp_path / "moved")
    trial = Trial("Pop", settings(model="Pop", data_path=str(moved)))
    ((folder, planned),) = checked_folders([trial], tmp_path / "runs").items()
    file = moved / "tiny" / "tiny.inter"
    before = file.read_text()
    file.write_text(before + "u1\ti2\t9999\n")
    handler = signal.getsignal(signal.SIGINT)
    try:
        error = run_in_folder(trial.settings, folder, 1, data=planned.data)
        assert error is not None and error.startswith("the data set tiny has changed since this run was planned; ")
        assert run_in_folder(trial.settings, folder, 1) is None  # as earlier versions did
    finally:
        signal.signal(signal.SIGINT, handler)
    file.write_text(before)
    checked_folders([trial], tmp_path / "runs", Records([]))
    assert not folder.exists() and (folder.parent / f".{folder.name}.damaged" / "result.json").is_file()


def test_a_run_on_data_with_a_byte_order_mark_is_done_once(settings: Callable, tmp_path: Path) -> None:
    """The mark is found in the file; the record of the run does not have it."""
    marked = shutil.copytree(settings()["data_path"], tmp_path / "marked")
    file = marked / "tiny" / "tiny.inter"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    trial = Trial("Pop", settings(model="Pop", data_path=str(marked)))
    ((folder, planned),) = checked_folders([trial], tmp_path / "runs", Records([])).items()
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert run_in_folder(trial.settings, folder, 1, data=planned.data) is None
    finally:
        signal.signal(signal.SIGINT, handler)
    assert list(checked_folders([trial], tmp_path / "runs", Records([folder.parent]))) == [folder]
    assert (folder / "result.json").is_file() and not (folder.parent / f".{folder.name}.damaged").exists()


def test_numbers_of_one_value_have_one_fingerprint(settings: Callable, tmp_path: Path) -> None:
    assert fingerprint(settings(weight_decay=0)) == fingerprint(settings(weight_decay=0.0)) == fingerprint(settings())
    with pytest.raises(SettingError, match="a and b have the same settings"):
        checked_folders([Trial("a", settings()), Trial("b", settings(weight_decay=0))], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_runs_are_done_once_and_fail_alone_in_the_ray_of_the_host_program(settings: Callable, tmp_path: Path) -> None:
    """One after the other: the second runs although the first failed. The Ray of the program stays."""
    import ray

    nodes = ray.nodes()
    trials = [
        Trial("exploding", settings(seed=1, model="BPR", learning_rate=1e30, epochs=30)),
        Trial("good", settings(seed=1)),
    ]
    found = {
        outcome.trial.name: outcome for outcome in run_trials(checked_folders(trials, tmp_path), Resources(cpus=1))
    }
    assert ray.is_initialized() and ray.nodes()[0]["NodeID"] == nodes[0]["NodeID"]
    assert list(found) == ["exploding", "good"] and found["good"].error is None
    assert "nan" in found["exploding"].error
    failure = json.loads((found["exploding"].folder / FAILURE_NAME).read_text())
    assert failure["error"] == found["exploding"].error and failure["settings"]["model"] == "BPR"
    good = found["good"]
    assert sorted(file.name for file in good.folder.iterdir() if file.is_file()) == [
        "best.pth",
        "result.json",
        "users.parquet",
    ]
    assert good.result["seed"] == 1 and len(good.users) > 0
    assert not list(tmp_path.glob("*.incomplete"))

    before = (good.folder / "result.json").stat().st_mtime_ns
    again = list(run_trials(checked_folders([trials[1]], tmp_path), Resources(address="nowhere")))  # which needs no Ray
    assert [outcome.reused for outcome in again] == [True]
    assert (good.folder / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_runs_that_die_run_once_more_alone(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed for its memory, say: one finishes when it runs alone, one is killed again and fails."""
    monkeypatch.setattr("recbole_posattn.experiments.trials.run_in_folder", processes.run_or_die)
    given = [Trial(name, settings(seed=seed)) for name, seed in (("fatal", 3), ("once", 2), ("good", 1))]
    outcomes = list(run_trials(checked_folders(given, tmp_path), Resources(jobs=2, cpus=1)))
    assert outcomes[0].trial.name == "good" and len(outcomes) == 3
    failed = {outcome.trial.name: outcome for outcome in outcomes if outcome.error is not None}
    assert set(failed) == {"fatal"} and failed["fatal"].error.startswith("the process of the run died")
    assert (failed["fatal"].folder / FAILURE_NAME).is_file()
    order = (tmp_path / "order").read_text().split()
    assert sorted(order[:3]) == ["1", "2†", "3†"] and sorted(order[3:]) == ["2", "3†"]
    assert caplog.text.count("it runs once more, alone") == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_who_lacks_memory_runs_again_only_if_others_were_beside_it(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    starts: list[str] = []

    def side_by_side(ray: object, waiting: list, where: Resources, budget: Budget) -> Iterator[Outcome]:
        for trial, folder in waiting:
            starts.append(trial.name)
            error = "out of memory in training" if trial.name == "big" and starts.count("big") == 1 else None
            yield Outcome(trial, folder, error, lacks_memory(error))

    monkeypatch.setattr("recbole_posattn.experiments.trials.ray_cluster", lambda where: nullcontext())
    monkeypatch.setattr("recbole_posattn.experiments.trials._run_in_parallel", side_by_side)
    given = {tmp_path / name: Trial(name, settings()) for name in ("big", "small")}
    outcomes = {outcome.trial.name: outcome.error for outcome in run_trials(given, Resources(jobs=jobs))}
    again = jobs == 2
    assert starts == ["big", "small", *["big"] * again]
    assert outcomes == {"big": None if again else "out of memory in training", "small": None}
    assert not lacks_memory("no memory of it") and not lacks_memory(None)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_a_run_that_lacks_memory_anywhere_is_known(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("recbole_posattn.experiments.run_folders.run", fail)
    assert lacks_memory(run_in_folder(settings(), tmp_path / "run", n_threads=1))


def test_who_lacked_memory_has_failed_if_no_time_is_left_to_run_again(
    settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def side_by_side(ray: object, waiting: list, where: Resources, budget: Budget) -> Iterator[Outcome]:
        monkeypatch.setattr("recbole_posattn.experiments.budget.Budget.is_spent", True)
        yield from (Outcome(trial, folder, "out of memory", lacked_memory=True) for trial, folder in waiting)

    monkeypatch.setattr("recbole_posattn.experiments.trials.ray_cluster", lambda where: nullcontext())
    monkeypatch.setattr("recbole_posattn.experiments.trials._run_in_parallel", side_by_side)
    given = {tmp_path / name: Trial(name, settings()) for name in ("a", "b")}
    outcomes = list(run_trials(given, Resources(jobs=2), Budget(60)))
    assert [(outcome.error, outcome.started) for outcome in outcomes] == [("out of memory", True)] * 2


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Resources(cpus=3), "a run needs 3 CPUs, and the Ray that this program is connected to has 2: lower cpus"),
        (Resources(cpus=1, gpus=0.5), "a run needs 0.5 GPUs, and the Ray that this program is connected to has 0"),
        (
            Resources(address="ray://far:1"),
            "is already connected to Ray and cannot join the cluster at address 'ray://far",
        ),
    ],
)
@pytest.mark.slow
@pytest.mark.usefixtures("connected_ray")
def test_the_ray_of_the_host_program_stays_where_it_does_not_fit(where: Resources, message: str) -> None:
    import ray

    with pytest.raises(SettingError, match=message), ray_cluster(where):
        pass
    assert ray.is_initialized()
