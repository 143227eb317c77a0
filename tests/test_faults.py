"""What goes wrong in a training ends in one line that helps, and leaves the checkpoints as they were."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_posattn import run
from recbole_posattn.cli import main as main_module
from recbole_posattn.cli.main import main
from recbole_posattn.errors import TrainingError
from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from tests.systems import needs_posix
from tests.test_checkpoint import files_of_at_most


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a function take the place of the loss, or of the scores, from a step on."""

    def failing(method: str, step: int, instead: Callable[[torch.Tensor], Any]) -> None:
        original, calls = getattr(PosKernelSASRec, method), []

        def replaced(model: PosKernelSASRec, batch: Any) -> Any:
            value = original(model, batch)
            calls.append(value)
            return instead(value) if len(calls) > step else value

        monkeypatch.setattr(PosKernelSASRec, method, replaced)

    return failing


def arguments_of(settings: dict) -> list[str]:
    return [
        "run",
        "--model=PosKernelSASRec",
        "--dataset=tiny",
        *(f"--{key}={value}" for key, value in settings.items()),
    ]


def one_line(captured: Any) -> str:
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


def run_dir() -> Path:
    (folder,) = Path("saved").iterdir()
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number(
    tiny_settings: Callable, failing: Callable, capsys: pytest.CaptureFixture, value: float
) -> None:
    """An epoch has 6 steps: step 13 is the second of the third epoch."""
    failing("calculate_loss", 13, lambda loss: loss * value)
    assert main(arguments_of(tiny_settings(epochs=9))) == 2
    line = one_line(capsys.readouterr())
    assert f"the training loss is {value} in epoch 2, batch 1" in line
    for words in (
        "norm of the weights is",
        "gradients one step before",
        "lower learning_rate (0.001)",
        "clip_grad_norm",
    ):
        assert words in line
    assert f"--resume={run_dir()}" in line
    assert read_checkpoint(run_dir() / LAST_NAME)["epoch"] == 1
    assert all(
        torch.isfinite(weights).all() for weights in read_checkpoint(run_dir() / BEST_NAME)["state_dict"].values()
    )


def test_a_learning_rate_that_is_too_high(tiny_settings: Callable) -> None:
    """The loss of a model that really diverges."""
    with pytest.raises(TrainingError, match=r"the training loss is (nan|inf).*lower learning_rate \(1e\+30\)"):
        run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=50, learning_rate=1e30), command_line=[])


def test_no_memory_in_training(tiny_settings: Callable, failing: Callable, capsys: pytest.CaptureFixture) -> None:
    """The error is PyTorch's own: nobody has 2^60 bytes."""
    failing("calculate_loss", 7, lambda loss: torch.empty(2**58))
    assert main(arguments_of(tiny_settings(epochs=9))) == 2
    line = one_line(capsys.readouterr())
    assert "out of memory in training with 21 items, train_batch_size 16, loss_chunk_size auto, MAX_ITEM" in line
    assert "try train_batch_size 8 first, then lower the others" in line and f"--resume={run_dir()}" in line


def test_no_memory_for_sampled_negatives(
    tiny_settings: Callable, failing: Callable, capsys: pytest.CaptureFixture
) -> None:
    """Their number counts, and chunks do not; a size of 1 cannot be lowered."""
    failing("calculate_loss", 7, lambda loss: torch.empty(2**58))
    settings = tiny_settings(epochs=9, train_batch_size=1, loss_type="SSM")
    assert main(arguments_of({**settings, "train_neg_sample_args": {"sample_num": 5}})) == 2
    line = one_line(capsys.readouterr())
    assert "train_batch_size 1, MAX_ITEM" in line and "sample_num of train_neg_sample_args 5" in line
    assert "loss_chunk_size" not in line and "try MAX_ITEM_LIST_LENGTH 5 first" in line


def test_no_memory_in_evaluation(tiny_settings: Callable, failing: Callable, capsys: pytest.CaptureFixture) -> None:
    failing("full_sort_predict", 1, lambda scores: torch.empty(2**58))
    assert main(arguments_of(tiny_settings(epochs=9))) == 2
    line = one_line(capsys.readouterr())
    assert "out of memory in evaluation with 21 items, eval_batch_size 4096" in line
    assert "try eval_batch_size 2048 first" in line


def test_other_errors_are_not_taken_for_these(tiny_settings: Callable, failing: Callable) -> None:
    def broken(loss: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    failing("calculate_loss", 0, broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])


@needs_posix
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
def test_the_disk_is_full_in_the_midst_of_training(
    tiny_settings: Callable, failing: Callable, capsys: pytest.CaptureFixture
) -> None:
    """From the third epoch on the system refuses what is behind 10 kB of a file; a checkpoint has some 70 kB."""
    limits = []

    def fill(loss: torch.Tensor) -> torch.Tensor:
        if not limits:
            limits.append(files_of_at_most(10_000))
            limits[0].__enter__()
        return loss

    failing("calculate_loss", 13, fill)
    try:
        code = main(arguments_of(tiny_settings(epochs=9, learning_rate=0.01)))
    finally:
        limits[0].__exit__(None, None, None)
    line = one_line(capsys.readouterr())
    assert code == 2 and "cannot be written: File too large; the one before, if any, is untouched" in line
    assert read_checkpoint(run_dir() / LAST_NAME)["epoch"] == 1
    assert read_checkpoint(run_dir() / BEST_NAME)["epoch"] <= 1
    assert not list(run_dir().glob("*.incomplete"))
    resumed = run("PosKernelSASRec", "tiny", config_dict={"epochs": 4}, command_line=[], resume=run_dir())
    assert resumed["epochs"] == 4


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_told_before_training(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, reason: int
) -> None:
    """Root may write anywhere, so that the system's answer is given here."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(arguments_of(tiny_settings())) == 2
    assert f"checkpoint_dir saved cannot be written: {os.strerror(reason)}" in one_line(capsys.readouterr())
    assert not Path("log").exists()


def test_a_file_in_the_place_of_the_folder(tiny_settings: Callable, capsys: pytest.CaptureFixture) -> None:
    Path("saved").write_text("mine")
    assert main(arguments_of(tiny_settings())) == 2
    assert "checkpoint_dir saved cannot be written: File exists" in one_line(capsys.readouterr())
    assert Path("saved").read_text() == "mine"


@pytest.mark.parametrize("name", ["log", "log_tensorboard"])
def test_a_file_in_the_place_of_recboles_logs(
    tiny_settings: Callable, capsys: pytest.CaptureFixture, name: str
) -> None:
    Path(name).write_text("mine")
    assert main(arguments_of(tiny_settings())) == 2
    assert name in one_line(capsys.readouterr()) and Path(name).read_text() == "mine"


def test_what_the_machine_refuses_elsewhere_is_one_line(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The results are written last; by then the disk may be full."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "users.parquet")

    monkeypatch.setattr("pandas.DataFrame.to_parquet", refuse)
    assert main(arguments_of(tiny_settings())) == 2
    assert one_line(capsys.readouterr()) == "recbole-posattn: users.parquet: No space left on device"
    assert sorted(file.name for file in run_dir().iterdir()) == [BEST_NAME, LAST_NAME, "run.lock"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errno.ENOSPC, "recbole-posattn: output cannot be written: No space left on device\n"),
        (errno.EACCES, "recbole-posattn: Permission denied\n"),
    ],
)
def test_standard_output_on_a_full_disk(capsys: pytest.CaptureFixture, error: int, line: str) -> None:
    def write() -> int:
        raise OSError(error, os.strerror(error))

    assert main_module._guarded(write) == 2 and capsys.readouterr().err == line


def test_no_memory_for_the_model(
    tiny_settings: Callable, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PosKernelSASRec, "to", lambda model, device: torch.empty(2**58))
    assert main(arguments_of(tiny_settings(n_layers=3))) == 2
    line = one_line(capsys.readouterr())
    assert "out of memory: the weights of PosKernelSASRec do not fit on cpu: lower hidden_size 16" in line
    assert "or n_layers 3, or free memory there" in line
