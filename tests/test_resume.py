"""A run that was stopped, however and whenever, ends as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_posattn import run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training import interrupts
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.result import RunResult
from recbole_posattn.training.resume import LOCK_NAME, lock_run
from recbole_posattn.training.run_folder import LAST_NAME
from tests.systems import needs_posix

# Entries of a result that depend on where and when a run took place.
_VARYING = {"seconds", "checkpoint", "peak_mebibytes"}

# Six steps an epoch where each row is a history of its own, and not dozens
FEW_STEPS = {"train_batch_size": 128}

MODELS = {
    "PosKernelSASRec": {},
    "sampled loss": {"loss_type": "SSM", "train_neg_sample_args": {"distribution": "popularity", "sample_num": 8}},
    "augmented": {"train_objective": "augmented", "hidden_dropout_prob": 0.2, **FEW_STEPS},
    "hybrid": {"position_encoding": ["rope"], "kernel_structure": "toeplitz-adaptive_band", "n_heads": 2},
    "without validation": {"eval_step": 0},
    "every other epoch": {"eval_step": 2},
    "recipe": {
        **{"weight_averaging": "ema", "ema_decay": 0.9, "lr_scheduler": "cosine", "lr_warmup_epochs": 1.5},
        **{"learner": "adamw", "weight_decay": 0.1, "weight_decay_on": "matrices", "item_dropout_prob": 0.2},
        **{"score": "cosine", "label_smoothing": 0.1},
    },
    "swa": {"weight_averaging": "swa", "averaging_start_epoch": 1, "lr_scheduler": "constant", "lr_warmup_epochs": 4},
    "swa, SASRec": {
        "model": "SASRec",
        "n_heads": 1,
        "weight_averaging": "swa",
        "lr_scheduler": "linear",
        **FEW_STEPS,
    },
    "CAPESASRec": {"model": "CAPESASRec"},
    "branch": {"kernel_branch": "toeplitz", "kernel_structure": "identity-time_variant"},
    "branch alone": {"kernel_branch": "toeplitz", "attention": "none"},
    "FMLPRec": {"model": "FMLPRec", **FEW_STEPS},
    "BSARec": {"model": "BSARec", **FEW_STEPS},
    "TVRec": {"model": "TVRec"},
    "history_partition": {"history_partition": True, "loss_type": "BCE"},
    "train_mask_history": {"train_mask_history": "auto", "mask_history": "all"},
    "ESASRec": {"model": "ESASRec", "train_neg_sample_args": {"sample_num": 8}, "history_partition": "auto"},
    "HSTU": {"model": "HSTU", "time_is_order": False, "train_neg_sample_args": {"sample_num": 8}},
    "TiSASRec": {"model": "TiSASRec", "time_is_order": False},
    "SASRec": {"model": "SASRec", "n_heads": 1, **FEW_STEPS},
    "BERT4Rec": {"model": "BERT4Rec", "n_heads": 1, **FEW_STEPS},
    "BPR": {"model": "BPR"},
    "LightGCN": {"model": "LightGCN"},
    "MultiVAE": {"model": "MultiVAE", "total_anneal_steps": 10},  # counts its steps in an attribute
    "RecVAE": {"model": "RecVAE"},  # has two optimizers
    # these keep more than weights and numbers
    "DiffRec": {"model": "DiffRec", "history_num_per_term": 2, "dims_dnn": [8]},
    "LDiffRec": {"model": "LDiffRec", "history_num_per_term": 2, "dims_dnn": [8], "in_dims": [8], "anneal_steps": 10},
    "LINE": {"model": "LINE"},
    "SGL": {"model": "SGL"},
}


# RecBole's SGL builds its matrices by a class that torch has another name for.
of_recbole = pytest.mark.filterwarnings(r"ignore:torch\.sparse\.SparseTensor:UserWarning")


class PowerCut(BaseException):
    """Ends a run at any point; no code catches it."""


def outcome(result: RunResult) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What must be equal: the result without its times, and the weights of the best epoch."""
    plain = {key: value for key, value in result.items() if key not in _VARYING}
    plain["curve"] = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in plain["curve"]]
    return plain, read_checkpoint(result["checkpoint"])["state_dict"]


def assert_same(first: RunResult, second: RunResult) -> None:
    (plain, weights), (other_plain, other_weights) = outcome(first), outcome(second)
    assert plain == other_plain
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def power_cut_in(epoch: int) -> Callable[[int, float], None]:
    """Ends a run after the validation of an epoch, counted from 0."""

    def callback(number: int, score: float) -> None:
        if number >= epoch:
            raise PowerCut

    return callback


IN_FAST_TESTS = ("PosKernelSASRec", "BPR", "every other epoch", "recipe")


@of_recbole
@pytest.mark.parametrize(
    "name", [name if name in IN_FAST_TESTS else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_a_resumed_run_ends_as_an_undisturbed_one(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped twice: in epoch 2, and again two epochs later."""
    settings = tiny_settings(**{"model": "PosKernelSASRec", "epochs": 6, "learning_rate": 0.01, **MODELS[name]})
    arguments = {"dataset": "tiny", "command_line": []}
    undisturbed = run(config_dict={**settings, "checkpoint_dir": "undisturbed"}, **arguments)
    train_epoch = EngineMixin._train_epoch
    for last_epoch in (2, 4):

        def stopped(
            trainer: Any, train_data: Any, epoch: int, *more: Any, stop: int = last_epoch, **options: Any
        ) -> Any:
            losses = train_epoch(trainer, train_data, epoch, *more, **options)
            if epoch == stop:
                raise PowerCut
            return losses

        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            patch.setattr(EngineMixin, "_train_epoch", stopped)
            run(config_dict=settings, resume="auto", **arguments)
        torch.manual_seed(last_epoch)  # random numbers drawn elsewhere must not matter
        (last,) = Path("saved").glob(f"*/{LAST_NAME}")
        assert read_checkpoint(last)["epoch"] == last_epoch - 1
    assert_same(undisturbed, run(config_dict=settings, resume="auto", **arguments))


@pytest.fixture
def signal_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str, int], None]:
    """Let SIGTERM come while a model does something for the n-th time, as the handler of a command would note it."""

    def signal_in(model: type, method: str, call: int) -> None:
        original, calls = getattr(model, method), []

        def noted(recommender: Any, batch: Any) -> Any:
            calls.append(method)
            if len(calls) == call:
                interrupts._now.pending = signal.SIGTERM
            return original(recommender, batch)

        monkeypatch.setattr(model, method, noted)

    return signal_in


@pytest.mark.slow
@of_recbole
@pytest.mark.parametrize(
    ("model", "method", "call", "steps"),
    [
        ("PosKernelSASRec", "calculate_loss", 1, 1),
        ("PosKernelSASRec", "calculate_loss", 15, 3),
        ("PosKernelSASRec", "calculate_loss", 18, 6),
        ("PosKernelSASRec", "full_sort_predict", 5, 6),
        ("SASRec", "calculate_loss", 70, 27),
        ("MultiVAE", "calculate_loss", 10, 2),
        ("DiffRec", "calculate_loss", 10, 2),
        ("LINE", "calculate_loss", 50, 5),
        ("SGL", "calculate_loss", 50, 5),
    ],
)
def test_a_signal_between_two_steps_loses_nothing(
    tiny_settings: Callable, signal_in: Callable, model: str, method: str, call: int, steps: int
) -> None:
    """In the first step, within an epoch, in its last step, and in its validation.

    SGL draws the graphs of an epoch before its first step.
    """
    extra = {"n_heads": 1, "trim_padding": False} if model == "SASRec" else {}  # one call a step
    arguments = {"model": model, "dataset": "tiny", "command_line": []}
    settings = tiny_settings(epochs=4, learning_rate=0.01, eval_batch_size=20, **extra)
    undisturbed = run(config_dict={**settings, "checkpoint_dir": "undisturbed"}, **arguments)
    signal_in(find_model(model), method, call)
    with pytest.raises(interrupts.Interrupted, match="all completed steps are kept"):
        run(config_dict=settings, **arguments)
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    assert read_checkpoint(last)["training"]["left"]["steps"] == steps
    torch.manual_seed(7)
    resumed = run(config_dict=settings, resume="auto", **arguments)
    assert_same(undisturbed, resumed)
    assert Path(resumed["checkpoint"]).parent == last.parent


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        ("prepare_data", "interrupted; nothing was trained; run the same command again"),
        ("evaluate_trainer", "interrupted; all completed epochs are kept: --resume="),
        ("write_users", "interrupted; all completed epochs are kept: --resume="),
    ],
)
def test_a_signal_before_or_after_training_says_how_to_continue(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, function: str, kept: str
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise interrupts.Interrupted(signal.SIGINT)

    arguments = {"model": "SASRec", "dataset": "tiny", "config_dict": tiny_settings(epochs=1), "command_line": []}
    with monkeypatch.context() as patch, pytest.raises(interrupts.Interrupted) as error:
        patch.setattr(f"recbole_posattn.training.run.{function}", interrupted)
        run(**arguments)
    assert str(error.value).startswith(kept)
    assert run(resume="auto", **arguments)["test_result"]


def test_a_finished_run_is_only_evaluated(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=3)
    first = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    best, last = (Path(first["checkpoint"]).with_name(name).read_bytes() for name in ("best.pth", LAST_NAME))
    second = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert_same(first, second)
    assert second["checkpoint"] == first["checkpoint"] and second["seconds"]["training"] > 0
    for name, content in (("best.pth", best), (LAST_NAME, last)):
        assert Path(first["checkpoint"]).with_name(name).read_bytes() == content


def test_early_stopping_counts_on_after_a_resume(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=30, stopping_step=2, learning_rate=0.05)
    undisturbed = run("PosKernelSASRec", "tiny", config_dict={**settings, "checkpoint_dir": "other"}, command_line=[])
    assert undisturbed["epochs"] < 30
    with pytest.raises(PowerCut):
        run(
            "PosKernelSASRec",
            "tiny",
            config_dict=settings,
            command_line=[],
            callback_fn=power_cut_in(undisturbed["epochs"] - 1),
        )
    resumed = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert_same(undisturbed, resumed)
    again = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert again["epochs"] == undisturbed["epochs"]  # it stopped early, and does not start again


@pytest.mark.slow
def test_a_finished_run_is_resumed_with_more_epochs(tiny_settings: Callable, finished_run: Callable) -> None:
    long = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=5, checkpoint_dir="other"), command_line=[])
    folder = finished_run(epochs=2)
    resumed = run(config_dict={"epochs": 5, "show_progress": False}, command_line=[], resume=folder)
    assert_same(long, resumed)
    assert Path(resumed["checkpoint"]).parent == folder


def test_fewer_epochs_than_trained_are_another_run(tiny_settings: Callable, finished_run: Callable) -> None:
    folder = finished_run(epochs=2)
    before = (folder / "result.json").read_text()
    with pytest.raises(SettingError, match="has trained 2 epochs, more than epochs 1: leave epochs out or raise it"):
        run(config_dict={"epochs": 1}, command_line=[], resume=folder)
    new = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=1), command_line=[], resume="auto")
    assert Path(new["checkpoint"]).parent != folder and new["epochs"] == 1
    assert (folder / "result.json").read_text() == before


def test_a_lower_stopping_step_is_on_record(tiny_settings: Callable, finished_run: Callable) -> None:
    """The run may have trained on where a new one with it had stopped."""
    folder = finished_run(epochs=2)
    settings = tiny_settings(epochs=2, stopping_step=1)
    new = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert Path(new["checkpoint"]).parent != folder
    resumed = run(config_dict={"stopping_step": 1}, command_line=[], resume=folder)
    assert resumed["changes"] == [{"epoch": 2, "key": "stopping_step", "before": 10, "now": 1}]
    assert (
        run(config_dict={"stopping_step": 20}, command_line=[], resume=folder)["changes"] == []
    )  # nothing was trained


@pytest.mark.parametrize("given", ["nope", "saved/aut0"])
def test_a_run_that_does_not_exist_is_not_its_parent(
    finished_run: Callable, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(finished_run(epochs=2))
    with pytest.raises(CheckpointError, match=f"there is no run to continue in {given}"):
        run(command_line=[], resume=given)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"kernel_branch": None}, "position_encoding"),
        ({"protocol": "leave_one_out_masked", "history_partition": False}, "history_partition"),
        ({"protocol": "leave_one_out_masked", "train_mask_history": False}, "train_mask_history"),
    ],
    ids=str,
)
def test_auto_comes_to_what_the_other_settings_of_the_run_say(finished_run: Callable, settings: dict, key: str) -> None:
    folder = finished_run(epochs=2, **settings)
    if key == "train_mask_history":  # the data decide, and so it is not what the run has
        with pytest.raises(SettingError, match="has train_mask_history False, not 'auto'"):
            run(config_dict={key: "auto"}, command_line=[], resume=folder)
    else:
        assert run(config_dict={key: "auto"}, command_line=[], resume=folder)["epochs"] == 2


def test_a_run_is_resumed_with_a_lower_learning_rate(finished_run: Callable) -> None:
    """And with smaller batches; the changes are on record."""
    folder = finished_run(epochs=2)
    assert json.loads((folder / "result.json").read_text())["changes"] == []
    lower = {"epochs": 3, "learning_rate": 1e-12, "train_batch_size": 8}
    second = run(config_dict=lower, command_line=[], resume=folder)
    before = read_checkpoint(folder / LAST_NAME)["state_dict"]
    assert json.loads((folder / "result.json").read_text())["changes"] == second["changes"]
    assert second["changes"] == [
        {"epoch": 2, "key": "learning_rate", "before": 0.001, "now": 1e-12},
        {"epoch": 2, "key": "train_batch_size", "before": 16, "now": 8},
    ]
    third = run(config_dict={"epochs": 4}, command_line=[], resume=folder)
    assert third["changes"] == second["changes"]
    after = read_checkpoint(folder / LAST_NAME)["state_dict"]
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-9) for name in before)
    assert json.loads((folder / "result.json").read_text())["config"]["learning_rate"] == 1e-12


def test_auto_starts_a_run_if_there_is_none_with_these_settings(
    tiny_settings: Callable, finished_run: Callable
) -> None:
    other = finished_run(epochs=2, seed=1)
    new = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=2), command_line=[], resume="auto")
    assert other != Path(new["checkpoint"]).parent and new["epochs"] == 2


def test_auto_takes_the_farthest_run_whatever_the_clock_says(tiny_settings: Callable) -> None:
    """The clock was put back an hour between two runs of the same settings."""
    settings = tiny_settings(epochs=4)
    for epoch in (2, 1):
        with pytest.raises(PowerCut):
            run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], callback_fn=power_cut_in(epoch))
    folders = sorted(file.parent for file in Path("saved").glob(f"*/{LAST_NAME}"))
    farthest = max(folders, key=lambda folder: read_checkpoint(folder / LAST_NAME)["epoch"])
    hour_ago = time.time() - 3600
    os.utime(farthest / LAST_NAME, (hour_ago, hour_ago))
    resumed = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert Path(resumed["checkpoint"]).parent == farthest


def test_auto_passes_over_a_run_whose_best_checkpoint_is_damaged(
    tiny_settings: Callable, finished_run: Callable
) -> None:
    damaged = finished_run(epochs=2)
    (damaged / "best.pth").write_bytes(b"half")
    new = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=2), command_line=[], resume="auto")
    assert Path(new["checkpoint"]).parent != damaged and new["epochs"] == 2


def test_a_clock_that_jumps_changes_nothing(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    jumping = iter(range(10**6, 0, -1000))
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: float(next(jumping)))
        patch.setattr("recbole.trainer.trainer.time", lambda: float(next(jumping)))
        patch.setattr("recbole_posattn.training.checkpointing.get_local_time", lambda: "Jan-01-1970_00-00-00")
        second = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    assert_same(first, second)
    assert all(seconds >= 0 for seconds in second["seconds"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume=nowhere"], "there is no run to continue in"),
        (["--resume={run}", "--hidden_size=32"], "has hidden_size 16, not 32"),
        (["--resume={run}", "--model=SASRec"], "has model 'PosKernelSASRec', not 'SASRec'"),
        (["--resume={run}", "--seed=3"], "has seed 2020, not 3"),
        (["--resume={run}", "--nproc=2"], "has 1 process, not 2"),
    ],
)
def test_a_run_is_not_resumed_with_settings_of_another(
    finished_run: Callable, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    folder = finished_run()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    capsys.readouterr()
    assert main(["run", *(argument.format(run=folder) for argument in arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_run_is_named_by_a_checkpoint_in_its_folder(tiny_settings: Callable) -> None:
    result = run("BPR", "tiny", config_dict=tiny_settings(epochs=1), command_line=[])
    resumed = run(config_dict={"epochs": 2}, command_line=[], resume=result["checkpoint"])
    assert resumed["epochs"] == 2 and resumed["checkpoint"] == result["checkpoint"]


@pytest.mark.parametrize("name", ["best.pth", LAST_NAME])
def test_a_damaged_checkpoint_is_not_resumed(finished_run: Callable, name: str) -> None:
    file = finished_run() / name
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=name):
        run(command_line=[], resume=file.parent)
    lock_run(file.parent).release()  # and is not locked either


def test_two_processes_do_not_train_the_same_run(finished_run: Callable) -> None:
    folder = finished_run()
    lock = f"FileLock({str(folder / LOCK_NAME)!r})"
    script = f"from filelock import FileLock; lock = {lock}; lock.acquire(); print('has it', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(CheckpointError, match="is being trained by another process"):
            run(config_dict={"epochs": 4}, command_line=[], resume=folder)
    finally:
        other.kill()
        other.communicate()
    assert run(config_dict={"epochs": 4}, command_line=[], resume=folder)["epochs"] == 4


def test_a_setting_that_makes_it_another_run_releases_the_lock(finished_run: Callable) -> None:
    folder = finished_run()
    with pytest.raises(SettingError):
        run(config_dict={"hidden_size": 32}, command_line=[], resume=folder)
    lock_run(folder).release()


# Ends its process by SIGKILL at the n-th call of a function that writing checkpoints needs, once a last one is there.
_KILLED = """
import os, pathlib, signal, sys
from recbole_posattn.cli.main import launch

function, fatal, *arguments = sys.argv[1:]
original, calls = getattr(os, function), 0

def counted(*given, **options):
    global calls
    calls += any(pathlib.Path("saved").glob("*/last.pth"))
    if calls == int(fatal):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **options)

setattr(os, function, counted)
sys.exit(launch(arguments))
"""


def _process(tiny_settings: Callable, *arguments: str, script: list[str], **changes: object) -> subprocess.Popen:
    settings = tiny_settings(epochs=4, learning_rate=0.01, **changes)
    named = {argument.split("=")[0].removeprefix("--") for argument in arguments}
    given = [f"--{key}={value}" for key, value in settings.items() if key not in named]
    return subprocess.Popen(
        [sys.executable, *script, "--model=PosKernelSASRec", "--dataset=tiny", *given, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize(("function", "call"), [("fsync", 4), ("replace", 2)], ids=["written", "not yet renamed"])
@needs_posix
def test_a_process_killed_while_it_writes_a_checkpoint(tiny_settings: Callable, function: str, call: int) -> None:
    """The file is there but not yet on the disk, or on the disk but under its other name."""
    settings = tiny_settings(epochs=4, learning_rate=0.01, checkpoint_dir="undisturbed")
    undisturbed = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    process = _process(tiny_settings, script=["-c", _KILLED, function, str(call)])
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    (folder,) = Path("saved").iterdir()
    assert list(folder.glob("*.incomplete"))
    resumed = run(
        "PosKernelSASRec", "tiny", config_dict={**settings, "checkpoint_dir": "saved"}, command_line=[], resume="auto"
    )
    assert_same(undisturbed, resumed)
    assert Path(resumed["checkpoint"]).parent == folder and not list(folder.glob("*.incomplete"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted; all completed steps are kept"),
        (signal.SIGTERM, 143, "stopped by SIGTERM; all completed steps are kept"),
    ],
)
@needs_posix
def test_a_signal_ends_a_training_after_its_step(tiny_settings: Callable, signum: int, code: int, words: str) -> None:
    """One long training, of which at least one epoch has ended."""
    script = ["-m", "recbole_posattn", "run"]
    process = _process(tiny_settings, "--epochs=100000", "--stopping_step=100000", script=script)
    while not list(Path("saved").glob(f"*/{LAST_NAME}")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signum)
    _, errors = process.communicate()
    assert process.returncode == code
    (folder,) = Path("saved").iterdir()
    assert "stopping after this step; once more stops at once" in errors
    line = errors.strip().splitlines()[-1]
    assert words in line and f"--resume={folder}" in line and "Traceback" not in errors
    kept = max(read_checkpoint(folder / LAST_NAME)["epoch"], 0)
    more = {"epochs": kept + 3, "stopping_step": 100000}
    assert run(config_dict=more, command_line=[], resume=folder)["epochs"] == kept + 3
    report = json.loads((folder / "result.json").read_text())
    assert len(report["curve"]) == kept + 3
