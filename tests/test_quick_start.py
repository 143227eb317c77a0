"""run and load: what they return and write, and that the same seed gives the same numbers."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recbole.utils import init_seed

import recbole_posattn
from recbole_posattn import load, run
from recbole_posattn.analysis.interference import interference
from recbole_posattn.experiments.identity import identify
from recbole_posattn.settings.config import Config
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.load import build_model, evaluate_checkpoint, prepare_data
from recbole_posattn.training.result import result_table
from recbole_posattn.training.trainer import trainer_class


def test_returns_what_recbole_returns_and_more(tiny_settings: Callable) -> None:
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings())
    assert set(result) == {
        *("best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"),  # RecBole's
        *("checkpoint", "epochs", "best_epoch", "seconds", "trainable_parameters", "learned"),
        *("changes", "stopped_by"),
        *("peak_mebibytes", "seen_targets", "curve"),
    }
    assert result["valid_score_bigger"] is True
    assert result["best_valid_score"] == result["best_valid_result"]["ndcg@10"]
    assert set(result["test_result"]) == {"recall@10", "mrr@10", "ndcg@10", "hit@10", "precision@10"}
    assert result["epochs"] == 2 and 0 <= result["best_epoch"] < 2
    seconds = result["seconds"]
    assert set(seconds) == {"data", "training", "test", "total"} and all(value >= 0 for value in seconds.values())
    assert [point["epoch"] for point in result["curve"]] == [0, 1] and result["peak_mebibytes"] > 50
    assert result["curve"][result["best_epoch"]]["valid"] == result["best_valid_result"]
    assert all(point["seconds"] > 0 and point["loss"] > 0 for point in result["curve"])
    model = load(result["checkpoint"]).model
    assert result["trainable_parameters"] == sum(p.numel() for p in model.parameters())


def test_writes_result_json_beside_the_checkpoint(tiny_settings: Callable, empty_folder: Path) -> None:
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(seed=7))
    folder = Path(result["checkpoint"]).parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.pth",
        "last.pth",
        "result.json",
        "run.lock",
        "users.parquet",
    ]
    report = json.loads((folder / "result.json").read_text())
    assert {key: report[key] for key in result} == result
    assert (report["model"], report["dataset"], report["seed"]) == ("PosKernelSASRec", "tiny", 7)
    assert report["config"]["hidden_size"] == 16 and report["config"]["kernel_structure"] == "identity-identity"
    assert report["versions"]["torch"] == torch.__version__ and report["versions"]["recbole"].startswith("1.2.")
    assert report["command"] == sys.argv
    in_checkout = (Path(recbole_posattn.__file__).parent.parent / ".git").exists()
    revision = report["git_revision"]
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", revision) if in_checkout else revision is None


def test_the_record_names_the_data_that_were_trained_on(tiny_settings: Callable, tmp_path: Path) -> None:
    """Not those that replaced them in the meantime, of which a leaderboard would take it for a run."""
    shutil.copytree(Path(tiny_settings()["data_path"]) / "tiny", tmp_path / "tiny")
    settings = tiny_settings(data_path=str(tmp_path), epochs=1, model="PosKernelSASRec", dataset="tiny")
    before, file = identify(settings), tmp_path / "tiny" / "tiny.inter"

    def replace(epoch: int, score: float) -> None:
        file.write_text(file.read_text() + file.read_text().splitlines()[-1] + "\n")

    result = run(config_dict=settings, command_line=[], callback_fn=replace)
    record = json.loads((Path(result["checkpoint"]).parent / "result.json").read_text())
    assert before.is_of(record) and not identify(settings).is_of(record)


def test_the_flags_of_ones_own_program_are_no_settings(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["mine.py", "--hidden_size=8", "--model=BPR", "--no-such-key=1", "file.txt"])
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=1))
    assert load(result["checkpoint"]).config["hidden_size"] == 16
    assert "command line arguments without effect" not in caplog.text
    given = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=1), command_line=["--hidden_size=8"])
    assert load(given["checkpoint"]).config["hidden_size"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PosKernelSASRec", "SASRec"])
def test_same_seed_gives_identical_metrics(tiny_settings: Callable, model: str) -> None:
    settings = tiny_settings(hidden_dropout_prob=0.3, n_heads=1, epochs=1)
    first, again = (run(model, "tiny", config_dict=settings) for _ in range(2))
    other = run(model, "tiny", config_dict={**settings, "seed": 1})
    weights = [load(result["checkpoint"]).model.state_dict() for result in (first, again, other)]
    assert first["best_valid_result"] == again["best_valid_result"] and first["test_result"] == again["test_result"]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_training_lowers_the_loss_on_both_objectives(tiny_settings: Callable, objective: str) -> None:
    """Items are drawn from 20: ln 20 = 3.0 is what guessing costs, and the planted pattern is worth most of it."""
    batch_size = {"sequence": 16, "augmented": 64}[objective]
    epochs = {"sequence": 30, "augmented": 8}[objective]
    settings = tiny_settings(train_objective=objective, train_batch_size=batch_size, epochs=epochs, learning_rate=0.01)
    config = Config("PosKernelSASRec", "tiny", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, _, _) = prepare_data(config)
    trainer = trainer_class(config)(config, config.model_class(config, train_data._dataset))
    trainer.fit(train_data, saved=False)
    first, *_, last = (loss / len(train_data) for loss in trainer.train_loss_dict.values())
    assert first == pytest.approx(math.log(21), rel=0.1) and last < 0.9 * first


def test_nothing_is_written_when_not_saved(tiny_settings: Callable, empty_folder: Path) -> None:
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), saved=False)
    assert result["checkpoint"] is None and result["test_result"]["hit@10"] >= 0
    assert list((empty_folder / "saved").iterdir()) == []


def test_loaded_model_gives_the_scores_it_was_saved_with(tiny_settings: Callable) -> None:
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings())
    first, second = load(result["checkpoint"]), load(result["checkpoint"])
    for (batch, *_), (other_batch, *_) in zip(first.test_data, second.test_data):
        scores = first.model.full_sort_predict(batch)
        assert torch.equal(scores, second.model.full_sort_predict(other_batch))
        assert scores.shape == (len(batch), first.dataset.item_num)


def test_table_names_metrics_and_facts(tiny_settings: Callable) -> None:
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings())
    table = result_table(
        config,
        {
            "best_valid_score": 0.1,
            "valid_score_bigger": True,
            "best_valid_result": {"hit@10": 0.25},
            "test_result": None,
            "checkpoint": "saved/x/best.pth",
            "epochs": 12,
            "best_epoch": 3,
            "seconds": {"data": 1.0, "training": 2.0, "test": 0.5, "total": 3.5},
            "trainable_parameters": 12345,
            "peak_mebibytes": 300,
            "seen_targets": 0.125,
            "curve": [],
            "stopped_by": None,
            "learned": {"kernel_widths": {"u": [[7], [3]]}},
        },
    )
    for part in (
        "PosKernelSASRec on tiny",
        "valid",
        "test",
        "hit@10",
        "0.2500",
        "–",
        "12 (best: 3)",
        "12,345",
        "seen before    12.5 % of the test targets",
        "kernel widths  {u: [[7], [3]]}",
        "best.pth",
    ):
        assert part in table


@pytest.mark.parametrize("model", ["NoPESASRec", "Pop"])
def test_a_checkpoint_is_evaluated_as_at_the_end_of_its_run(tiny_settings: Callable, model: str) -> None:
    """By all metrics of a protocol, some of which count the training items."""
    settings = tiny_settings(protocol="leave_one_out_masked", epochs=1)
    result = run(model, "tiny", config_dict=settings)
    assert "cov@10" in result["test_result"]
    metrics, users = evaluate_checkpoint(result["checkpoint"])
    assert metrics == result["test_result"] and len(users) == 60


def test_evaluation_elsewhere_needs_neither_the_checkpoint_dir_nor_a_compiler(
    tiny_settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as here:
        here.setattr("recbole_posattn.training.engine._compile", lambda model, device: None)
        result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(checkpoint_dir="kept", torch_compile=True))
    checkpoint = Path(result["checkpoint"]).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("CXX", "no-compiler")
    metrics, _ = evaluate_checkpoint(checkpoint)
    assert metrics == result["test_result"]
    assert interference(checkpoint).metrics["ndcg@10"].iloc[0] == result["best_valid_result"]["ndcg@10"]
    assert not Path("kept").exists()


def test_without_a_test_the_learned_values_are_those_of_the_checkpoint(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a test ends with the weights of its last epoch."""
    monkeypatch.setattr(EngineMixin, "_valid_epoch", lambda trainer, *_, **__: (1.0 - trainer._epoch, {"ndcg@10": 0.5}))
    settings = tiny_settings(epochs=3, learning_rate=0.05)
    result = run("PosKernelSASRec", "tiny", config_dict=settings, test=False)
    assert (result["best_epoch"], result["epochs"], result["test_result"]) == (0, 3, None)
    assert result["learned"] == load(result["checkpoint"]).model.learned()
    last = load(Path(result["checkpoint"]).with_name("last.pth")).model.learned()
    assert result["learned"] != last


def test_the_largest_seed_has_one_for_each_process(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config("NoPESASRec", "tiny", config_dict=tiny_settings(seed=2**32 - 1), command_line=[])
    _, (train_data, *_) = prepare_data(config)
    monkeypatch.setattr("recbole_posattn.distributed.rank", lambda: 1)
    second = build_model(config, train_data).item_embedding.weight
    monkeypatch.setattr("recbole_posattn.distributed.rank", lambda: 0)
    config["seed"] = 0
    assert torch.equal(second, build_model(config, train_data).item_embedding.weight)
