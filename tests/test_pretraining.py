"""Models that are trained in stages: each pretraining has a folder of its own, and resumes like any other run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recbole_posattn import run
from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.identity import fingerprint
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.run_folder import LAST_NAME
from tests.planted import lagged_sequences, write_atomic_file
from tests.test_resume import PowerCut, assert_same

# Small models, pretrained for more epochs than ``epochs`` says.
MODELS = {
    "S3Rec": {"train_stage": "pretrain", "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1},
    "RaCT": {"train_stage": "actor_pretrain", "latent_dimension": 8, "mlp_hidden_size": [8]},
}


@pytest.fixture
def settings(tiny_settings: Callable, tmp_path: Path) -> Callable[..., dict]:
    """Settings of a pretraining on ``tiny`` with a class for each item."""
    rows = lagged_sequences(20, range(4, 12), n_items=12, lag=3, noise=0.1, seed=1)
    file = write_atomic_file(tmp_path / "data", "tiny", rows)
    classes = [f"i{item}\tc{item % 3} c{item % 4}" for item in range(12)]
    file.with_name("tiny.item").write_text("\n".join(["item_id:token\tclass:token_seq", *classes]) + "\n")

    def settings(model: str, **changes: object) -> dict:
        columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}
        stage = {"pretrain_epochs": 4, "save_step": 2, "epochs": 1, "load_col": columns, "data_path": "data"}
        return tiny_settings(**{**stage, **MODELS[model], **changes})

    return settings


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_second_pretraining_leaves_the_first_alone(settings: Callable, model: str) -> None:
    first = run(model, "tiny", config_dict=settings(model), command_line=[])
    own = Path(first["checkpoint"]).parent
    before = {file.name: file.read_bytes() for file in own.iterdir()}
    assert {"result.json", "users.parquet", f"{model}-tiny-2.pth", f"{model}-tiny-4.pth"} <= before.keys()
    second = run(model, "tiny", config_dict=settings(model, seed=7), command_line=[])
    assert Path(second["checkpoint"]).parent != own
    assert {file.name: file.read_bytes() for file in own.iterdir()} == before
    for result in (first, second):
        assert json.loads(Path(result["checkpoint"]).with_name("result.json").read_text())["seed"] in (2020, 7)
    # where RecBole's users look for it, and pre_model_path names it, is the latest one, and nothing else but folders
    latest = Path("saved", f"{model}-tiny-4.pth")
    assert latest.read_bytes() == Path(second["checkpoint"]).read_bytes() != Path(first["checkpoint"]).read_bytes()
    assert {file.name for file in Path("saved").iterdir() if file.is_file()} == {
        f"{model}-tiny-{n}.pth" for n in (2, 4)
    }


def test_the_next_stage_begins_with_what_was_pretrained(settings: Callable) -> None:
    for checkpoint in (run("S3Rec", "tiny", config_dict=settings("S3Rec"), command_line=[])["checkpoint"], None):
        stage = {"train_stage": "finetune", "epochs": 1, "learning_rate": 1e-12}
        path = checkpoint or "saved/S3Rec-tiny-4.pth"
        result = run("S3Rec", "tiny", config_dict=settings("S3Rec", **stage, pre_model_path=path), command_line=[])
        before, after = (read_checkpoint(file)["state_dict"] for file in (path, result["checkpoint"]))
        assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-9) for name in before)
        assert Path(result["checkpoint"]).name == "best.pth"


def test_a_trial_finds_the_checkpoint_it_draws(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is that of the folder in which the search was started, not of the trial's."""
    from recbole_posattn.experiments.tuning import ray_tune

    given = {}
    monkeypatch.setattr(ray_tune, "run_in_folder", lambda settings, *_, **options: given.update(settings, **options))
    monkeypatch.setattr(ray_tune, "read_result", lambda _: {})
    monkeypatch.setattr(ray_tune, "finished_curve", lambda _: [])
    Path("first.pth").touch()
    drawn = {"pre_model_path": "first.pth"}
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir("/")
        config = {"trial": {"number": 0, "settings": drawn}}
        ray_tune._run_trial(config, {"model": "S3Rec"}, "trials", 1, str(empty_folder), "max", None)
    assert given["pre_model_path"] == str(empty_folder / "first.pth")
    assert given["drawn"] == drawn


def test_runs_that_begin_with_other_weights_are_other_runs(settings: Callable, tmp_path: Path) -> None:
    checkpoints = [tmp_path / name for name in ("a.pth", "b.pth", "c.pth")]
    for file, content in zip(checkpoints, (b"one", b"one", b"two")):
        file.write_bytes(content)
    given = [
        {**settings("S3Rec", train_stage="finetune", pre_model_path=str(file)), "model": "S3Rec", "dataset": "tiny"}
        for file in checkpoints
    ]
    first, copied, other = map(fingerprint, given)
    assert first == copied != other
    checkpoints[0].write_bytes(b"two")
    assert fingerprint(given[0]) == other


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_schedule_lasts_as_long_as_the_pretraining(settings: Callable, model: str) -> None:
    """``epochs`` is the number of the next stage."""
    falling = settings(model, lr_scheduler="linear")
    result = run(model, "tiny", config_dict=falling, command_line=[])
    rates = [point["learning_rate"] for point in result["curve"]]
    assert len(rates) == 4 and all(now > after for now, after in itertools.pairwise(rates))
    shorter = run(model, "tiny", config_dict={**falling, "lr_decay_epochs": 3}, command_line=[])
    assert shorter["epochs"] == 4 and Path(shorter["checkpoint"]).name == f"{model}-tiny-4.pth"
    with pytest.raises(SettingError, match=r"lr_decay_epochs \(by default pretrain_epochs\), which is 4; got 4"):
        run(model, "tiny", config_dict={**falling, "lr_warmup_epochs": 4}, command_line=[])
    if model == "S3Rec":  # the other one has batch normalization, which cannot be averaged
        averaged = settings(model, weight_averaging="swa", averaging_start_epoch=2)
        assert run(model, "tiny", config_dict=averaged, command_line=[])["epochs"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_pretraining_goes_on(settings: Callable, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has more epochs than the training, and no validation; once finished, it is only evaluated."""
    arguments = {"model": model, "dataset": "tiny", "command_line": []}
    undisturbed = run(config_dict=settings(model, checkpoint_dir="undisturbed"), **arguments)
    original = EngineMixin._train_epoch

    def stopped(self: object, data: object, epoch: int, *more: object, **options: object) -> object:
        if epoch == 3:
            raise PowerCut
        return original(self, data, epoch, *more, **options)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(EngineMixin, "_train_epoch", stopped)
        run(config_dict=settings(model), **arguments)
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    assert read_checkpoint(last)["epoch"] == 2
    for _ in range(2):
        resumed = run(config_dict=settings(model), resume="auto", **arguments)
        assert_same(undisturbed, resumed)
        assert Path(resumed["checkpoint"]) == last.with_name(f"{model}-tiny-4.pth")


def test_unsaved_it_writes_what_the_next_stage_reads_and_no_more(settings: Callable) -> None:
    result = run("S3Rec", "tiny", config_dict=settings("S3Rec"), command_line=[], saved=False)
    assert result["checkpoint"] is None
    assert {path.name for path in Path("saved").iterdir()} == {"S3Rec-tiny-2.pth", "S3Rec-tiny-4.pth"}
    stage = {"train_stage": "finetune", "pre_model_path": "saved/S3Rec-tiny-4.pth"}
    assert run("S3Rec", "tiny", config_dict=settings("S3Rec", **stage), command_line=[], saved=False)["test_result"]


@pytest.mark.parametrize(
    ("model", "stage", "message"),
    [
        ("S3Rec", {"train_stage": "finetune"}, "a checkpoint that an earlier stage of S3Rec has written.*; got none"),
        ("S3Rec", {"train_stage": "finetune", "pre_model_path": "no.pth"}, "there is no file 'no.pth'"),
        ("S3Rec", {"train_stage": "finetune", "pre_model_path": "saved"}, "there is no file 'saved'"),
        (
            "S3Rec",
            {"train_stage": "finetune", "pre_model_path": "text"},
            "text is not a complete checkpoint written by this",
        ),
        ("S3Rec", {"train_stage": "finetune", "pre_model_path": "other.pth"}, "other.pth does not fit S3Rec: "),
        ("S3Rec", {"train_stage": "pretraining"}, "train_stage must be one of pretrain, finetune; got 'pretraining'"),
        ("RaCT", {"train_stage": "critic_pretrain"}, "a checkpoint that an earlier stage of RaCT has written"),
        ("RaCT", {"train_stage": "pretrain"}, "train_stage must be one of actor_pretrain, critic_pretrain, finetune"),
        (
            "ConvNCF",
            {"train_method": "after_pretrain"},
            "pre_model_path must be a checkpoint of BPR, with train_method",
        ),
    ],
    ids=str,
)
def test_a_stage_without_the_one_before_is_one_line(
    settings: Callable, model: str, stage: dict, message: str, empty_folder: Path
) -> None:
    (empty_folder / "text").write_text("no checkpoint")
    (empty_folder / "saved").mkdir()
    write_checkpoint({"config": {"model": "S3Rec"}, "state_dict": {"other": torch.ones(2)}}, "other.pth")
    changes = {**MODELS.get(model, {}), "pretrain_epochs": 1, **stage}
    with pytest.raises(SettingError, match=message) as error:
        run(model, "tiny", config_dict=settings("S3Rec", **changes), command_line=[])
    assert "\n" not in str(error.value)
