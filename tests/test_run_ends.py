"""Ends of runs that only some settings meet: what they leave in the process and on the disk, and what is said."""

from __future__ import annotations

import gc
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_posattn import Config, run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import DataError, SettingError, TrainingError
from recbole_posattn.training import interrupts
from recbole_posattn.training.load import evaluate_checkpoint
from recbole_posattn.training.result import best_epoch, result_table
from recbole_posattn.training.resume import LOCK_NAME
from recbole_posattn.training.run_folder import LAST_NAME
from tests.planted import write_atomic_file
from tests.systems import needs_posix


def test_a_run_at_its_end_is_evaluated_by_metrics_that_count_items(tiny_settings: Callable) -> None:
    counting = ["NDCG", "COV", "ItemCoverage", "GiniIndex", "AveragePopularity"]
    arguments = {"config_dict": tiny_settings(metrics=counting), "command_line": []}
    first = run("PosKernelSASRec", "tiny", **arguments)
    second = run("PosKernelSASRec", "tiny", **arguments, resume="auto")
    assert second["checkpoint"] == first["checkpoint"]
    assert second["test_result"] == first["test_result"] and len(first["test_result"]) == len(counting)


class _PowerCut(BaseException):
    """Ends a run wherever it is."""


@pytest.mark.slow
def test_a_resumed_run_has_the_negatives_that_workers_draw(tiny_settings: Callable) -> None:
    """In the validation as well, whose loader numbers its workers' seeds."""
    evaluation = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni3"}
    settings = tiny_settings(worker=1, eval_args=evaluation, epochs=4, learning_rate=0.01)
    other = {"config_dict": {**settings, "checkpoint_dir": "other"}, "command_line": []}
    undisturbed = run("BPR", "tiny", **other)

    def power_cut(epoch: int, score: float) -> None:
        if epoch == 1:
            raise _PowerCut

    with pytest.raises(_PowerCut):
        run("BPR", "tiny", config_dict=settings, command_line=[], callback_fn=power_cut)
    resumed = run("BPR", "tiny", config_dict=settings, command_line=[], resume="auto")
    curves = [[{**epoch, "seconds": 0} for epoch in result["curve"]] for result in (undisturbed, resumed)]
    assert curves[0] == curves[1] and undisturbed["test_result"] == resumed["test_result"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@needs_posix
def test_a_fork_does_not_end_as_the_training_does(capfd: pytest.CaptureFixture, signum: int) -> None:
    """A worker of a loader, say: SIGINT, which a terminal sends to both, is the training's; of SIGTERM it dies."""
    with interrupts.handled():
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signum)
            os.write(writing, b"still there")
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
    survives = signum == signal.SIGINT
    assert said == (b"still there" if survives else b"")
    assert os.waitstatus_to_exitcode(status) == (0 if survives else -signum)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["Pop", "ItemKNN"])
def test_a_model_of_one_epoch_is_validated_after_it(tiny_settings: Callable, model: str) -> None:
    """RecBole validates each ``eval_step`` epochs, but these models have one."""
    settings = tiny_settings(epochs=4, eval_step=3)
    result = run(model, "tiny", config_dict=settings, command_line=[])
    every = run(model, "tiny", config_dict={**settings, "eval_step": 1}, command_line=[])
    assert result["test_result"] == every["test_result"] and result["best_epoch"] == 0
    assert result["best_valid_result"] == every["best_valid_result"] is not None
    assert Path(result["checkpoint"]).is_file()
    assert (
        run(model, "tiny", config_dict=settings, command_line=[], resume="auto")["checkpoint"] == result["checkpoint"]
    )


@pytest.mark.parametrize("model", ["NoPESASRec", "Pop"])
def test_the_best_epoch_is_one_that_was_validated(tiny_settings: Callable, model: str) -> None:
    for saved in (True, False):
        none = run(model, "tiny", config_dict=tiny_settings(eval_step=0), saved=saved, command_line=[])
        assert (none["best_epoch"], none["best_valid_result"]) == (-1, None)
        result = run(model, "tiny", config_dict=tiny_settings(epochs=3), saved=saved, command_line=[])
        assert result["curve"][result["best_epoch"]]["valid"] == result["best_valid_result"]
    assert "(best" not in result_table(Config(model, "tiny", config_dict=tiny_settings(), command_line=[]), none)


@pytest.mark.parametrize("bigger", [True, False])
def test_of_equal_scores_the_last_epoch_is_the_best(bigger: bool) -> None:
    config = {"valid_metric": "NDCG@10", "valid_metric_bigger": bigger}
    scores = [0.1, 0.3, 0.1, math.nan, 0.3, 0.2]
    curve = [{"epoch": epoch, "valid": {"ndcg@10": score}} for epoch, score in enumerate(scores)]
    assert best_epoch([*curve, {"epoch": 6}], config) == (4 if bigger else 2)
    assert best_epoch([{"epoch": 0}, curve[3]], config) == -1


@pytest.mark.parametrize("loss_type", ["BCE", "SSM", "gBCE", "BPR"])
def test_a_loss_needs_two_items_to_draw_negatives_from(tiny_settings: Callable, tmp_path: Path, loss_type: str) -> None:
    write_atomic_file(tmp_path / "data", "one", [(f"u{user}", "i", t) for user in range(4) for t in range(5)])
    settings = tiny_settings(data_path="data", topk=[1], valid_metric="NDCG@1", loss_type=loss_type)
    for distribution in ("uniform", "popularity")[: 1 if loss_type == "gBCE" else 2]:  # which takes no other
        negatives = {"train_neg_sample_args": {"distribution": distribution}}
        with pytest.raises(DataError, match=f"loss_type {loss_type} draws negative items, .* has 1. loss_type CE"):
            run("NoPESASRec", "one", config_dict={**settings, **negatives}, command_line=[])
    assert run("NoPESASRec", "one", config_dict={**settings, "loss_type": "CE"}, command_line=[])["epochs"] == 2


def test_runs_leave_no_threads(tiny_settings: Callable) -> None:
    before = set(threading.enumerate())
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    evaluate_checkpoint(result["checkpoint"])
    assert set(threading.enumerate()) == before


def _abandoned(tiny_settings: Callable) -> Path:
    """A file of a run that has nothing else yet."""
    folder = Path("saved") / "PosKernelSASRec-tiny-Jan-01-2026_00-00-00"
    (folder / "kernels").mkdir(parents=True)
    (folder / LOCK_NAME).touch()
    incomplete = folder / "kernels" / "epoch-00000.pth.incomplete"
    incomplete.write_bytes(b"PK")
    return incomplete


def test_what_a_process_left_that_died_at_its_first_file_is_removed(tiny_settings: Callable) -> None:
    incomplete = _abandoned(tiny_settings)
    run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[], resume="auto")
    assert not incomplete.exists()
    assert not list(Path("saved").rglob("*.incomplete")) and len(list(Path("saved").glob(f"*/{LAST_NAME}"))) == 1


def test_what_another_process_is_writing_stays(tiny_settings: Callable) -> None:
    incomplete = _abandoned(tiny_settings)
    lock = f"FileLock({str(incomplete.parent.parent / LOCK_NAME)!r})"
    script = f"from filelock import FileLock; lock = {lock}; lock.acquire(); print('has it', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "has it\n"
        run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[], resume="auto")
    finally:
        other.kill()
        other.communicate()
    assert incomplete.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transform", "key"), [("crop_itemseq", "eta"), ("reorder_itemseq", "beta"), ("mask_itemseq", "mask_ratio")]
)
@pytest.mark.parametrize("model", ["PosKernelSASRec", "SASRec"])
def test_a_transform_needs_its_share(tiny_settings: Callable, model: str, transform: str, key: str) -> None:
    objective = {"train_objective": "augmented"} if model == "PosKernelSASRec" else {}
    settings = tiny_settings(transform=transform, **objective)
    for given in ({}, {key: 1.5}):
        with pytest.raises(SettingError, match=rf"needs {key}, a number in \[0, 1\]"):
            Config(model, "tiny", config_dict={**settings, **given}, command_line=[])
    assert run(model, "tiny", config_dict={**settings, key: 0.5, "n_heads": 1}, command_line=[])["epochs"] == 2


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("SHAN", {"weight_decay": 0.1}, r"weight_decay must be 0 with SHAN, .* reg_weight \[0.01, 0.0001\]; got 0.1"),
        ("HGN", {"weight_decay": 1}, "weight_decay must be 0 with HGN"),
        ("Pop", {"train_neg_sample_args": {"dynamic": True, "candidate_num": 4}}, "must not be dynamic with Pop"),
        (
            "BERT4Rec",
            {"transform": None},
            "transform must be mask_itemseq with BERT4Rec, .*; got None",
        ),
        ("SHAN", {"transform": "mask_itemseq", "mask_ratio": 0.5}, "transform must be inverse_itemseq with SHAN"),
        ("FEARec", {"MAX_ITEM_LIST_LENGTH": 2}, r"of which there must be at least one; got 1 × ln\(2\)"),
        ("FEARec", {"topk_factor": 0.4}, r"of which there must be at least one; got 0.4 × ln\(10\)"),
        ("BERT4Rec", {"mask_ratio": 0}, "mask_ratio × MAX_ITEM_LIST_LENGTH .* at least one; got 0 × 10"),
        ("BERT4Rec", {"MAX_ITEM_LIST_LENGTH": 4}, "of which there must be at least one; got 0.2 × 4"),
    ],
)
def test_settings_that_a_model_of_recboles_fails_on(
    tiny_settings: Callable, model: str, given: dict, words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        Config(model, "tiny", config_dict=tiny_settings(**given), command_line=[])
    Config(model, "tiny", config_dict=tiny_settings(weight_decay=0), command_line=[])


def test_a_split_in_the_order_of_time_reads_the_times(tiny_settings: Callable) -> None:
    """RecBole loads none for a general model by default, and fails on sorting by them."""
    evaluation = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"}
    settings = tiny_settings(eval_args=evaluation)
    result = run("BPR", "tiny", config_dict=settings, command_line=[])
    named = {**settings, "load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    assert run("BPR", "tiny", config_dict=named, command_line=[])["test_result"] == result["test_result"]


@pytest.mark.filterwarnings(r"ignore:torch\.sparse\.SparseTensor:UserWarning")  # RecBole's, see pyproject.toml
def test_a_model_that_knows_no_mixed_precision(tiny_settings: Callable) -> None:
    """Products with sparse matrices are not among what PyTorch does in bfloat16."""
    settings = tiny_settings(enable_amp=True)
    with pytest.raises(TrainingError, match=r"SGL cannot be trained with enable_amp \(.*BFloat16.*leave it out"):
        run("SGL", "tiny", config_dict=settings, command_line=[])


@pytest.mark.parametrize("error", [interrupts.Interrupted(signal.SIGINT), KeyboardInterrupt(), DataError("no rows")])
def test_what_an_ended_command_holds_is_released(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Before the process ends: loaders end their workers then, which otherwise leave temporary folders."""
    gone = []

    class Held:
        def __del__(self) -> None:
            gone.append(True)

    def execute(options: object) -> int:
        held = Held()  # noqa: F841
        raise error

    monkeypatch.setattr("recbole_posattn.cli.run.execute", execute)
    gc.disable()
    try:
        assert main(["run"]) in (2, 130)
        assert gone
    finally:
        gc.enable()
