"""Two gloo processes: the same training and evaluation as in one, clear ends, nobody left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, RandomSampler

import recbole_posattn
from recbole_posattn import distributed, run
from recbole_posattn.data import loaders
from recbole_posattn.data.loaders import PinnedRows, ShardedBatches
from recbole_posattn.distributed import Layout, checked_layout, launch
from recbole_posattn.errors import DataError, ProcessError, SettingError
from recbole_posattn.quick_start import RunResult
from tests import processes

LAUNCHER = Path(recbole_posattn.__file__).parent.parent / "run_recbole_posattn.py"


@pytest.fixture
def two() -> Layout:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return Layout(2, 2, "localhost", str(free.getsockname()[1]), 0)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PosKernelSASRec", "GRU4Rec"])
def test_two_processes_train_and_evaluate_like_one(
    tiny_settings: Callable, two: Layout, empty_folder: Path, model: str
) -> None:
    """Without dropout, whose random numbers differ. 16 rows a batch, of which each process gets 8."""
    settings = tiny_settings(
        hidden_dropout_prob=0.0,
        attn_dropout_prob=0.0,
        dropout_prob=0.0,
        learning_rate=0.01,
        metrics=["Hit", "NDCG", "GAUC", "ItemCoverage"],
        valid_metric="NDCG@10",
        eval_batch_size=13,
        mask_history="except_target",
    )
    alone = run(model, "tiny", config_dict=settings)
    together = run(model, "tiny", config_dict=settings, nproc=2, port=two.port)
    assert together["test_result"] == alone["test_result"] and together["epochs"] == 2
    assert together["best_valid_result"] == alone["best_valid_result"]
    states = [torch.load(result["checkpoint"], weights_only=True)["state_dict"] for result in (alone, together)]
    for name, weights in states[0].items():
        torch.testing.assert_close(states[1][name], weights, rtol=1e-3, atol=2e-5, msg=name)
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
def test_two_processes_resume_each_with_its_own_random_numbers(tiny_settings: Callable, two: Layout) -> None:
    """Each draws dropout of its own, and the first one the order of the rows."""

    def run_two(checkpoint_dir: str, epochs: int, **options: object) -> RunResult:
        settings = tiny_settings(epochs=epochs, learning_rate=0.01, checkpoint_dir=checkpoint_dir)
        return run("PosKernelSASRec", "tiny", config_dict=settings, nproc=2, port=two.port, **options)

    undisturbed, _ = run_two("undisturbed", 4), run_two("saved", 2)
    resumed = run_two("saved", 4, resume="auto")
    assert resumed["epochs"] == 4 and resumed["test_result"] == undisturbed["test_result"]
    before, after = (torch.load(r["checkpoint"], weights_only=True)["state_dict"] for r in (undisturbed, resumed))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.skipif(not LAUNCHER.exists(), reason="the launcher is part of a checkout, not of the wheel")
def test_torchrun_starts_the_launcher(tiny_data_path: Path, empty_folder: Path) -> None:
    flags = ["--dataset=tiny", f"--data_path={tiny_data_path}", "--epochs=1", "--hidden_size=16", "--use_gpu=False"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, str(LAUNCHER), *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("PosKernelSASRec on tiny") == 1
    assert len(list((empty_folder / "saved").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.skipif(not LAUNCHER.exists(), reason="the launcher is part of a checkout, not of the wheel")
def test_bad_input_ends_in_one_line_and_code_2(tiny_data_path: Path, two: Layout, empty_folder: Path) -> None:
    flags = ["--dataset=tiny", f"--data_path={tiny_data_path}", "--train_batch_size=1", "--use_gpu=False"]
    command = [sys.executable, str(LAUNCHER), "--nproc=2", f"--port={two.port}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("recbole-posattn: train_batch_size must be at least the number of processes")
    assert done.stderr.count("recbole-posattn: ") == 1 and not list((empty_folder / "saved").rglob("*"))


def test_processes_exchange_rows_and_values(two: Layout, tmp_path: Path) -> None:
    told = launch(processes.exchange, {"folder": str(tmp_path)}, two)
    assert told == [2, True, [[10, 11, 12]], 3.0, "from the first"]
    assert (tmp_path / "order").read_text() == "01"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_job(two: Layout, tmp_path: Path, rank: int) -> None:
    with pytest.raises(ProcessError, match=rf"^process {rank} of 2 died \(SIGKILL\); the others were stopped$"):
        launch(processes.die, {"folder": str(tmp_path), "rank": rank}, two)
    for file in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert len(list(tmp_path.glob("*.pid"))) == 2


@pytest.mark.slow
def test_what_a_process_says_of_its_failure_arrives(two: Layout) -> None:
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
    ],
)
def test_contradictory_layouts_are_refused(given: dict, message: str) -> None:
    flags = {"nproc": 1, "world_size": -1, "ip": "localhost", "port": "5678", "group_offset": 0, **given}
    with pytest.raises(SettingError, match=message):
        checked_layout(**flags)


def test_layouts_are_recboles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked_layout(2, -1, "localhost", 5678, 0) == Layout(2, 2, "localhost", "5678", 0)
    assert checked_layout(2, 6, "10.0.0.1", "29500", 4) == Layout(2, 6, "10.0.0.1", "29500", 4)
    for name, value in zip(distributed._PLACE, ("0", "0", "2", "localhost", "1")):
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
            shares.append(list(ShardedBatches(batches())))
            assert len(shares[-1]) == len(ShardedBatches(batches()))
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
