"""Resumed runs that go another way than before: with other settings, or from another point than the files beside."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_posattn import run
from recbole_posattn.errors import SettingError
from recbole_posattn.training import interrupts
from recbole_posattn.training.best_file import PREVIOUS_BEST_NAME
from recbole_posattn.training.checkpoint import read_checkpoint, read_plain
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.interrupts import Interrupted
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from recbole_posattn.training.schedule import Schedule
from tests.test_resume import PowerCut


def cut_after(epoch: int, keep: Callable[[int], None] = lambda number: None) -> Callable[[int, float], None]:
    def callback(number: int, score: float) -> None:
        keep(number)
        if number == epoch:
            raise PowerCut

    return callback


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Validation scores by epoch, 0.1 for others."""
    scores: dict[int, float] = {}
    validate = EngineMixin._valid_epoch

    def scripted(trainer: Any, *arguments: Any, **options: Any) -> tuple[float, dict]:
        _, result = validate(trainer, *arguments, **options)
        return scores.get(trainer._epoch, 0.1), result

    monkeypatch.setattr(EngineMixin, "_valid_epoch", scripted)
    return scores


def cut_run(settings: dict, epoch: int, **options: Any) -> Path:
    """The folder of a run that ended after the validation of an epoch, before its last checkpoint was written."""
    with pytest.raises(PowerCut):
        run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], callback_fn=cut_after(epoch, **options))
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    return last.parent


def weights(file: Path) -> torch.Tensor:
    return read_checkpoint(file)["state_dict"]["item_embedding.weight"]


# -- the best checkpoint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
def test_the_best_checkpoint_is_that_of_the_best_epoch(tiny_settings: Callable, scores: dict, every: int) -> None:
    """Epoch 5 was the best, but the run is resumed after epoch 2 or 4, and never as good again."""
    scores.update({0: 0.2, 1: 0.3, 5: 0.5})

    def copy(number: int) -> None:
        if number == 1:
            (best,) = Path("saved").glob(f"*/{BEST_NAME}")
            shutil.copyfile(best, "best_of_epoch_1.pth")

    folder = cut_run(tiny_settings(epochs=8, save_last_every=every), 5, keep=copy)
    assert read_checkpoint(folder / BEST_NAME)["epoch"] == 5
    del scores[5]
    result = run(config_dict={"learning_rate": 1e-5}, command_line=[], resume=folder)
    assert (result["best_epoch"], result["best_valid_score"]) == (1, 0.3)
    assert torch.equal(weights(folder / BEST_NAME), weights(Path("best_of_epoch_1.pth")))
    assert not (folder / PREVIOUS_BEST_NAME).exists()


def test_without_the_best_checkpoint_before_another_one_is_found(
    tiny_settings: Callable, scores: dict, caplog: pytest.LogCaptureFixture
) -> None:
    scores.update({1: 0.3, 5: 0.5, 6: 0.2})
    folder = cut_run(tiny_settings(epochs=8, save_last_every=3), 5)
    (folder / PREVIOUS_BEST_NAME).unlink()
    del scores[5]
    result = run(config_dict={"learning_rate": 1e-5}, command_line=[], resume=folder)
    assert "that of epoch 1 is lost: the best epoch is searched among the following ones" in caplog.text
    assert (result["best_epoch"], result["best_valid_score"]) == (6, 0.2)
    assert read_checkpoint(folder / BEST_NAME)["epoch"] == 6


def test_a_finished_run_keeps_no_second_best_checkpoint(tiny_settings: Callable, scores: dict) -> None:
    scores.update({1: 0.3, 2: 0.4, 4: 0.5})
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=5), command_line=[])
    assert {file.name for file in Path(result["checkpoint"]).parent.glob("*.pth")} == {BEST_NAME, LAST_NAME}


# -- another batch size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [4, 16, 64])
def test_the_schedule_goes_on_at_its_epoch(tiny_settings: Callable, batch: int) -> None:
    settings = tiny_settings(epochs=6, learning_rate=0.01, lr_scheduler="linear", train_batch_size=16)
    folder = cut_run(settings, 3)
    result = run(config_dict={"train_batch_size": batch}, command_line=[], resume=folder)
    n_batches = -(-read_checkpoint(folder / LAST_NAME)["training"]["recipe"]["steps"] // 6)
    schedule = Schedule("linear", 0, 6 * n_batches, 0.0)
    rates = [point["learning_rate"] for point in result["curve"]][3:]
    assert rates == pytest.approx([0.01 * schedule.factor((epoch + 1) * n_batches - 1) for epoch in (3, 4, 5)])
    assert min(rates) > 0


def test_an_epoch_whose_steps_are_done_is_not_trained_again(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(epochs=2, lr_scheduler="constant", train_batch_size=8)
    evaluate = EngineMixin._full_sort_batch_eval
    with monkeypatch.context() as patch, pytest.raises(Interrupted):

        def interrupted(trainer: Any, batch: Any) -> Any:
            if trainer._epoch == 1:
                raise Interrupted(2, between_steps=True)
            return evaluate(trainer, batch)

        patch.setattr(EngineMixin, "_full_sort_batch_eval", interrupted)
        run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    steps, before = read_checkpoint(last)["training"]["left"]["steps"], weights(last)
    result = run(config_dict={"train_batch_size": 16}, command_line=[], resume=last.parent)
    assert result["epochs"] == 2 and torch.equal(weights(last), before)
    after = read_checkpoint(last)["training"]["recipe"]["steps"]
    assert after == 2 * -(-steps // 2)  # in steps of the new size


# -- auto ------------------------------------------------------------------------------------------------------------


def test_auto_leaves_a_run_alone_that_was_begun_with_other_settings(
    tiny_settings: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = cut_run(tiny_settings(epochs=4, learning_rate=0.05), 2)
    run(config_dict={"learning_rate": 0.001}, command_line=[], resume=folder)
    settings = tiny_settings(epochs=4, learning_rate=0.001)
    found = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert found["changes"] == [] and Path(found["checkpoint"]).parent != folder
    assert f"The run in {folder} was begun with other settings: learning_rate" in caplog.text


# -- folders ---------------------------------------------------------------------------------------------------------


def test_a_run_is_continued_in_its_folder_from_any_other(
    tiny_settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ``checkpoint_dir`` may be a file, or does not exist."""
    folder = cut_run(tiny_settings(epochs=4), 2).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("saved").touch()
    result = run(resume=folder, command_line=[])
    assert result["epochs"] == 4 and Path(result["checkpoint"]).parent == folder and Path("saved").is_file()


# -- kernels ---------------------------------------------------------------------------------------------------------


def test_the_kernels_of_an_epoch_stay_if_the_next_one_is_resumed(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(epochs=3, save_kernel_every=1, kernel_structure="toeplitz-full", learning_rate=0.05)

    def kernels(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
        return {file.name: read_plain(file)["state_dict"] for file in sorted((folder / "kernels").glob("*.pth"))}

    undisturbed = run("PosKernelSASRec", "tiny", config_dict={**settings, "checkpoint_dir": "other"}, command_line=[])
    check, calls = interrupts.check, []
    with monkeypatch.context() as patch, pytest.raises(Interrupted):

        def interrupt() -> None:
            calls.append(1)
            if len(calls) == 7:  # 2 or 3 steps into the second epoch
                raise Interrupted(2, between_steps=True)
            check()

        patch.setattr("recbole_posattn.training.interrupts.check", interrupt)
        run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    assert read_checkpoint(last)["training"]["left"]["steps"] > 0
    run(config_dict={}, command_line=[], resume=last.parent)
    expected, found = kernels(Path(undisturbed["checkpoint"]).parent), kernels(last.parent)
    assert list(found) == list(expected) and len(found) == 4
    for name, state in expected.items():
        assert all(torch.equal(found[name][weight], state[weight]) for weight in state), name


# -- settings given on resume are checked together with the run's ----------------------------------------------------


@pytest.mark.parametrize(
    ("of_run", "given", "message"),
    [
        ({"loss_precision": "bfloat16"}, {"loss_chunk_size": None}, "loss_precision bfloat16 needs chunks"),
        ({"loss_type": "BCE"}, {"loss_chunk_size": 64}, "loss_chunk_size"),
        (
            {"weight_averaging": "swa", "averaging_start_epoch": 10, "epochs": 20},
            {"epochs": 5},
            "averaging_start_epoch must be below epochs, which is 5; got 10",
        ),
    ],
)
def test_settings_given_on_resume_must_fit_those_of_the_run(
    tiny_settings: Callable, of_run: dict, given: dict, message: str
) -> None:
    folder = cut_run(tiny_settings(**of_run), 1)
    with pytest.raises(SettingError, match=message):
        run(config_dict=given, command_line=[], resume=folder)


def test_a_run_with_a_preset_of_ones_own_goes_on_without_the_file(
    tiny_settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has been changed, moved or deleted since: the checkpoint has its settings."""
    Path("own.yaml").write_text("n_layers: 1\n")
    folder = cut_run(tiny_settings(epochs=3, preset="own.yaml"), 1).absolute()
    Path("own.yaml").unlink()
    assert run(resume=folder, command_line=["--epochs=4"])["epochs"] == 4


def test_the_warm_up_of_a_run_fits_its_schedule_and_not_the_new_number_of_epochs(tiny_settings: Callable) -> None:
    folder = cut_run(tiny_settings(epochs=20, lr_scheduler="cosine", lr_warmup_epochs=10), 1)
    assert run(resume=folder, command_line=["--epochs=5"])["epochs"] == 5


@pytest.mark.parametrize(
    ("of_run", "repeated"),
    [
        ({"weight_averaging": "ema", "ema_decay": 0.9}, "ema_decay"),
        ({"kernel_structure": "banded-identity", "kernel_bandwidth": 3}, "kernel_bandwidth"),
        ({"loss_type": "SSM", "train_neg_sample_args": {"sample_num": 8}}, "train_neg_sample_args"),
    ],
)
def test_a_setting_of_the_run_can_be_repeated_without_those_that_it_needs(
    tiny_settings: Callable, of_run: dict, repeated: str
) -> None:
    folder = cut_run(tiny_settings(epochs=3, **of_run), 1)
    result = run(config_dict={repeated: of_run[repeated]}, command_line=[], resume=folder)
    assert result["epochs"] == 3 and result["changes"] == []
