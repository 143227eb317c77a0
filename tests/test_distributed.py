"""Two gloo processes: the same training and evaluation as in one, clear ends, nobody left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import HashStore
from torch.utils.data import BatchSampler, RandomSampler

import recbole_posattn
from recbole_posattn import distributed, run
from recbole_posattn.cli import main as cli
from recbole_posattn.data import loaders
from recbole_posattn.data.loaders import PinnedRows, ShardedBatches
from recbole_posattn.distributed import Layout, attendance, checked_layout, launch
from recbole_posattn.distributed.attendance import Attendance
from recbole_posattn.distributed.launching import RANK_VARIABLES
from recbole_posattn.errors import DataError, NoAnswerError, ProcessError, SettingError
from tests import processes
from tests.planted import write_atomic_file
from tests.systems import needs_posix

LAUNCHER = Path(recbole_posattn.__file__).parent.parent / "run_recbole_posattn.py"


@pytest.fixture
def two() -> Layout:
    return Layout(2, 2, "localhost", processes.free_port(), 0)


# Without dropout, whose random numbers differ. 16 rows a batch, of which each process gets 8.
ALIKE = {
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "dropout_prob": 0.0,
    "learning_rate": 0.01,
    "metrics": ["Hit", "NDCG", "GAUC", "ItemCoverage"],
    "valid_metric": "NDCG@10",
    "eval_batch_size": 13,
    "mask_history": "except_target",
}

# Lengths of the users' histories, by what they leave for validation and test.
FEW_ROWS = {"one row each": [2] * 8 + [4], "a test row": [2] * 8 + [3], "a step": [5] * 5}
SAMPLED = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni3"}}
NO_TEST = {"eval_args": {"split": {"LS": "valid_only"}, "order": "TO", "mode": "full"}}


@pytest.fixture(scope="module")
def few_rows(tiny_settings: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    """Settings without anything random for data with few rows, named as in ``FEW_ROWS``."""
    folder = tmp_path_factory.mktemp("few")

    def settings(name: str, **changes: object) -> dict:
        rows = [(f"u{u}", f"i{(3 * u + t * t) % 7}", t) for u, n in enumerate(FEW_ROWS[name]) for t in range(n)]
        write_atomic_file(folder / name, "tiny", rows)
        still = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "dropout_prob": 0.0, "stopping_step": 0}
        small = {"epochs": 3, "topk": [3], "valid_metric": "NDCG@3", "learning_rate": 0.01, "use_gpu": False}
        return tiny_settings(data_path=str(folder / name), **still, **small, **changes)

    return settings


class Together(NamedTuple):
    """Runs that the same two processes do one after the other, because processes take seconds to start."""

    cases: dict[str, tuple[str, dict]]
    results: dict[str, dict]


@pytest.fixture(scope="module")
def together(tiny_settings: Callable, few_rows: Callable, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Results of two processes: with much and with few data, equal to one process or not, whole and to be resumed."""
    in_order = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}
    cases = {
        "much": ("GRU4Rec", tiny_settings(**ALIKE)),
        "few, masked": ("PosKernelSASRec", few_rows("one row each", mask_history="all")),
        "no validation": (
            "PosKernelSASRec",
            few_rows("a test row", metrics=["NDCG", "GAUC", "AveragePopularity"]),
        ),
        "no test": ("PosKernelSASRec", few_rows("a step", train_batch_size=512, **NO_TEST)),
        "few": ("GRU4Rec", few_rows("one row each", eval_batch_size=1)),
        "drawn, sampled": ("PosKernelSASRec", few_rows("one row each", **SAMPLED)),
        "drawn": ("BPR", few_rows("a test row")),
        "drawn, pairs": ("BPR", few_rows("one row each", **SAMPLED)),
        "drawn, masked": (
            "BPR",
            few_rows("one row each", mask_history="all", metrics=["NDCG", "ItemCoverage"], **in_order),
        ),
        "undisturbed": ("PosKernelSASRec", tiny_settings(epochs=4, learning_rate=0.01)),
        "to be resumed": ("PosKernelSASRec", tiny_settings(epochs=2, learning_rate=0.01)),
        "in time": ("NoPESASRec", tiny_settings(epochs=5, max_minutes=1e-9)),
    }
    saved = tmp_path_factory.mktemp("saved")
    cases = {
        name: (model, {**settings, "checkpoint_dir": str(saved / name)}) for name, (model, settings) in cases.items()
    }
    layout = Layout(2, 2, "localhost", processes.free_port(), 0)
    results = launch(processes.run_each, {"cases": list(cases.values())}, layout)
    return Together(cases, dict(zip(cases, results)))


def weights_in(checkpoint_dir: str) -> dict[str, torch.Tensor]:
    (file,) = Path(checkpoint_dir).glob("*/best.pth")
    return torch.load(file, weights_only=True)["state_dict"]


def assert_close_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    for name, weights in first.items():
        if name.endswith("attention.key.bias"):  # no gradient but rounding, which Adam makes as large as any
            continue
        torch.testing.assert_close(second[name], weights, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(tiny_settings: Callable, two: Layout, empty_folder: Path) -> None:
    settings = tiny_settings(**ALIKE)
    model = "PosKernelSASRec"
    alone = run(model, "tiny", config_dict=settings)
    together = run(model, "tiny", config_dict=settings, nproc=2, port=two.port)
    assert together["test_result"] == alone["test_result"] and together["epochs"] == 2
    assert together["best_valid_result"] == alone["best_valid_result"]
    assert_close_weights(*(torch.load(run["checkpoint"], weights_only=True)["state_dict"] for run in (alone, together)))
    # one folder, log and TensorBoard log for each run: only the first process writes
    files = ["best.pth", "last.pth", "result.json", "run.lock", "users.parquet"]
    assert sorted(file.name for file in Path(together["checkpoint"]).parent.iterdir()) == files
    users = [pd.read_parquet(Path(result["checkpoint"]).with_name("users.parquet")) for result in (alone, together)]
    pd.testing.assert_frame_equal(*users)
    assert users[0]["history_length"].min() >= 1
    for folder in ("saved", f"log/{model}", "log_tensorboard"):
        assert len(list((empty_folder / folder).iterdir())) == 2
    assert json.loads(Path(together["checkpoint"]).with_name("result.json").read_text())["config"]["world_size"] == 2


@pytest.mark.slow
def test_two_processes_train_a_recbole_model_like_one(together: Together) -> None:
    model, settings = together.cases["much"]
    alone = run(model, "tiny", config_dict={**settings, "checkpoint_dir": "alone"}, command_line=[])
    assert together.results["much"] == {key: alone[key] for key in processes.COMPARED}
    assert_close_weights(weights_in("alone"), weights_in(settings["checkpoint_dir"]))


@pytest.mark.slow
def test_two_processes_resume_each_with_its_own_random_numbers(together: Together, two: Layout) -> None:
    """Each draws dropout of its own, and the first one the order of the rows."""
    model, settings = together.cases["to be resumed"]
    arguments = {"config_dict": {**settings, "epochs": 4}, "nproc": 2, "port": two.port}
    resumed = run(model, "tiny", **arguments, resume="auto")
    assert resumed["epochs"] == 4 and resumed["test_result"] == together.results["undisturbed"]["test_result"]
    assert len(list(Path(settings["checkpoint_dir"]).iterdir())) == 1
    before, after = (weights_in(together.cases[name][1]["checkpoint_dir"]) for name in ("undisturbed", "to be resumed"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_two_processes_end_in_time_together(together: Together) -> None:
    _, settings = together.cases["in time"]
    (file,) = Path(settings["checkpoint_dir"]).glob("*/result.json")
    result = json.loads(file.read_text())
    assert together.results["in time"] == {key: result[key] for key in processes.COMPARED}
    assert (result["stopped_by"], result["epochs"], result["best_epoch"]) == ("max_minutes", 1, 0)


@pytest.mark.slow
@pytest.mark.skipif(not LAUNCHER.exists(), reason="the launcher is part of a checkout, not of the wheel")
def test_torchrun_starts_the_launcher(tiny_data_path: Path, empty_folder: Path) -> None:
    flags = ["--dataset=tiny", f"--data_path={tiny_data_path}", "--epochs=1", "--hidden_size=16", "--use_gpu=False"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, str(LAUNCHER), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PosKernelSASRec on tiny") == 1 and "PosKernelSASRec on tiny" not in done.stderr
    assert len(list((empty_folder / "saved").iterdir())) == 1


@pytest.mark.slow
def test_bad_input_ends_in_one_line_and_code_2(
    tiny_data_path: Path, two: Layout, empty_folder: Path, capfd: pytest.CaptureFixture
) -> None:
    flags = ["--dataset=tiny", f"--data_path={tiny_data_path}", "--train_batch_size=1", "--use_gpu=False"]
    assert cli.main(["run", "--nproc=2", f"--port={two.port}", *flags]) == cli.EXIT_USER_ERROR == 2
    errors = capfd.readouterr().err  # of all processes
    last = errors.splitlines()[-1]
    assert last.startswith("recbole-posattn: train_batch_size must be at least 2, the number of processes")
    assert errors.count("recbole-posattn: ") == 1 and "Traceback" not in errors
    assert not list((empty_folder / "saved").rglob("*"))


@pytest.mark.slow
def test_processes_exchange_rows_and_values(two: Layout, tmp_path: Path) -> None:
    exchanged = launch(processes.exchange, {"folder": str(tmp_path)}, two)
    assert exchanged == [2, True, [[10, 11, 12]], 3.0, "from the first"]
    assert (tmp_path / "order").read_text() == "01"
    # Exit handlers ran, and the interpreter was not finalized: that would have aborted the process.
    assert (tmp_path / "0.exited").exists() and (tmp_path / "1.exited").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@needs_posix
def test_a_process_that_dies_ends_the_job(two: Layout, tmp_path: Path, rank: int) -> None:
    with pytest.raises(ProcessError, match=rf"^process {rank} of 2 died \(SIGKILL\); the others were stopped$"):
        launch(processes.die, {"folder": str(tmp_path), "rank": rank}, two)
    for file in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert len(list(tmp_path.glob("*.pid"))) == 2


@pytest.mark.slow
def test_splits_with_fewer_rows_than_processes(together: Together) -> None:
    """Processes without a row take part in all that the others do; random draws differ from those of one process."""
    for name in ("few, masked", "no validation", "no test", "few"):
        model, settings = together.cases[name]
        alone = run(model, "tiny", config_dict={**settings, "checkpoint_dir": "alone"}, command_line=[])
        assert together.results[name] == {key: alone[key] for key in processes.COMPARED}, name
    missing = {
        name: [key for key, value in result.items() if value is None]
        for name, result in together.results.items()
        if None in result.values()
    }
    assert missing == {"no validation": ["best_valid_result"], "no test": ["test_result"]}
    refused = {name: result["error"] for name, result in together.results.items() if "error" in result}
    assert refused == {}


@pytest.mark.slow
def test_three_processes_share_one_row_or_say_that_they_cannot(two: Layout, few_rows: Callable) -> None:
    cases = [("PosKernelSASRec", few_rows("one row each")), ("GRU4Rec", few_rows("a step", train_batch_size=2))]
    result, refused = launch(processes.run_each, {"cases": cases}, two._replace(nproc=3, world_size=3))
    alone = run(cases[0][0], "tiny", config_dict={**cases[0][1], "checkpoint_dir": "alone"}, command_line=[])
    assert result == {key: alone[key] for key in processes.COMPARED}
    assert refused["error"].startswith("train_batch_size must be at least 3, the number of processes")


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_named(two: Layout) -> None:
    with pytest.raises(NoAnswerError, match=r"^process 0 of 2 waited 600 s for process 1, without an answer: it hangs"):
        launch(processes.stay_away, {}, two)


def test_processes_with_fewer_collective_calls_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    late, store = RuntimeError("[gloo/buffer.cc:81] Timed out waiting 5000ms for recv operation"), HashStore()
    present = [Attendance(store, rank, 4, 5, store_is_in_rank_0=True) for rank in range(4)]
    for n_calls, one in zip((2, 1, 2, 1), present):
        for _ in range(n_calls):
            one.enter()
    assert "process 0 of 4 waited 5 s for processes 1, 3, without" in str(present[0].explained(late))
    assert "for another process, without" in str(present[1].explained(late))  # as all have entered as many calls
    bug = RuntimeError("shapes do not match")
    assert present[0].explained(bug) is bug

    class Silent(HashStore):
        def get(self, key: str) -> bytes:
            threading.Event().wait()

    monkeypatch.setattr(attendance, "_STORE_ANSWERS_WITHIN", 0.01)
    for in_rank_0, name in ((True, "process 0"), (False, "another process")):
        lonely = Attendance(Silent(), 1, 2, 5, in_rank_0)
        assert f"waited 5 s for {name}, without" in str(lonely.explained(late))


@pytest.mark.slow
def test_a_port_in_use_and_processes_that_are_not_started(two: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(RANK_VARIABLES, ("0", "0", "2", "localhost", two.port)):
        monkeypatch.setenv(name, value)
    with pytest.raises(
        NoAnswerError, match=rf"process 0 of 2 waited 1 s at localhost, port {two.port}, and the others did not connect"
    ):
        distributed.join(torch.device("cpu"), timeout=1)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(SettingError, match="is in use; name a free one, such as --port="):
            distributed.join(torch.device("cpu"), timeout=1)


@pytest.mark.slow
def test_the_failure_of_a_process_is_raised(two: Layout) -> None:
    with pytest.raises(DataError, match=r"^column missing$"):
        launch(processes.fail, {"kind": "user"}, two)
    with pytest.raises(ProcessError, match=r"process 1 of 2 failed:(\n.*)+ZeroDivisionError: a bug"):
        launch(processes.fail, {"kind": "bug"}, two)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nproc": 0}, "got nproc 0"),
        ({"nproc": 2, "world_size": 1}, "got nproc 2, group_offset 0, world_size 1"),
        ({"nproc": 2, "world_size": 4, "group_offset": 3}, "group_offset 3"),
        ({"group_offset": -1}, "group_offset -1"),
        ({"nproc": 10**9}, "nproc must be at most 1024"),
        ({"port": "http"}, "port must be a number from 1 to 65535; got 'http'"),
        *(({"port": port}, "port must be a number from 1 to 65535") for port in ("²", "٣", "１", "9" * 5000, "", "0")),
    ],
)
def test_contradictory_layouts_are_refused(given: dict, message: str) -> None:
    flags = {"nproc": 1, "world_size": -1, "ip": "localhost", "port": "5678", "group_offset": 0, **given}
    with pytest.raises(SettingError, match=message):
        checked_layout(**flags)


def test_layouts_are_recboles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_layout(2, -1, "localhost", 5678, 0) == Layout(2, 2, "localhost", "5678", 0)
    assert checked_layout(2, 6, "10.0.0.1", "29500", 4) == Layout(2, 6, "10.0.0.1", "29500", 4)
    for name, value in zip(RANK_VARIABLES, ("0", "0", "2", "localhost", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match="torchrun has started the processes already"):
        checked_layout(2, -1, "localhost", "5678", 0)


@given(n_rows=st.integers(4, 60), batch_size=st.integers(4, 20), n_processes=st.integers(1, 4), seed=st.integers(0, 9))
def test_each_row_goes_to_one_process_in_the_same_number_of_steps(
    n_rows: int, batch_size: int, n_processes: int, seed: int
) -> None:
    def batches() -> BatchSampler:
        order = RandomSampler(range(n_rows), generator=torch.Generator().manual_seed(seed))
        return BatchSampler(order, batch_size, drop_last=False)

    shares = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "world_size", lambda: n_processes)
        for rank in range(n_processes):
            patch.setattr(loaders, "rank", lambda rank=rank: rank)
            shares.append(list(ShardedBatches(batches(), n_rows)))
            assert len(shares[-1]) == len(ShardedBatches(batches(), n_rows))
    whole = list(batches())
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) in (len(whole), len(whole) - 1)
    assert all(part for share in shares for part in share)
    assert sorted(row for share in shares for part in share for row in part) == list(range(n_rows))
    for step, batch in enumerate(whole[: len(shares[0]) - 1]):  # the same batch in all, dealt out
        assert sorted(row for share in shares for row in share[step]) == sorted(batch)


def test_evaluation_rows_are_shared_out_once(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    monkeypatch.setattr(loaders, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(loaders, "rank", lambda rank=rank: rank)
        loader = loaders.FullSortEvalLoader.__new__(loaders.FullSortEvalLoader)
        loader.sample_size = 10
        rows += loader._rows()
    assert rows == list(range(10))


def test_pinned_rows_are_the_rows() -> None:
    rows = PinnedRows({"item": torch.arange(3), "time": torch.rand(3)})
    moved = rows.to("cpu")
    assert torch.equal(moved["item"], rows["item"]) and torch.equal(moved["time"], rows["time"])
    assert torch.equal(rows.to("cpu", selected_field="item")["item"], rows["item"])
