"""Checkpoints of plain data, for our models and RecBole's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import recbole.trainer
import torch
from recbole.utils import init_seed

from recbole_posattn import Config, load, run
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.checkpointing import CheckpointMixin
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.recipe import RecipeMixin
from recbole_posattn.training.time_limit import TimeLimitMixin
from recbole_posattn.training.trainer import trainer_class

BUILT_IN = ["Pop", "BPR", "SASRec", "GRU4Rec", "BERT4Rec", "EASE", "ItemKNN", "LightGCN"]


@pytest.mark.parametrize("model", ["PosKernelSASRec", *BUILT_IN])
def test_best_checkpoint_is_plain_data_and_comes_back(tiny_settings: Callable, model: str) -> None:
    """EASE, ItemKNN and LightGCN keep NumPy, SciPy and tensor parts outside their weights."""
    settings = tiny_settings(n_heads=1) if model != "BPR" else tiny_settings()
    result = run(model, "tiny", config_dict=settings)
    checkpoint = torch.load(result["checkpoint"], weights_only=True)
    assert checkpoint["config"]["model"] == model

    config, recommender, _, _, _, test_data = load(result["checkpoint"])
    trainer = trainer_class(config)(config, recommender)
    trainer.eval_collector.data_collect(test_data)
    assert dict(trainer.evaluate(test_data, load_best_model=False)) == result["test_result"]
    assert not recommender.training


def test_the_kept_checkpoint_is_the_best_epochs(tiny_settings: Callable) -> None:
    result = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=6, learning_rate=0.01))
    config, model, _, _, valid_data, _ = load(result["checkpoint"])
    trainer = trainer_class(config)(config, model)
    score, valid_result = trainer._valid_epoch(valid_data)
    assert score == result["best_valid_score"] and dict(valid_result) == result["best_valid_result"]
    assert read_checkpoint(result["checkpoint"])["epoch"] == result["best_epoch"]


def test_training_resumes_from_a_checkpoint(tiny_settings: Callable) -> None:
    """RecBole's own ``resume_checkpoint`` on our file."""
    first = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=2, eval_step=0))
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=4, eval_step=0))
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, valid_data, _) = prepare_data(config)
    trainer = trainer_class(config)(config, config.model_class(config, train_data._dataset))
    trainer.resume_checkpoint(first["checkpoint"])
    trainer.fit(train_data, valid_data, saved=False)
    assert list(trainer.train_loss_dict) == [2, 3]


def test_runs_of_the_same_second_have_folders_of_their_own(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_posattn.training.checkpointing.get_local_time", lambda: "now")
    folders = [Path(run("Pop", "tiny", config_dict=tiny_settings())["checkpoint"]).parent.name for _ in range(2)]
    assert folders == ["Pop-tiny-now", "Pop-tiny-now-2"]


def test_a_trainer_class_is_a_subclass_of_recboles_made_once(tiny_settings: Callable) -> None:
    config = Config("BERT4Rec", "tiny", config_dict=tiny_settings(n_heads=1), command_line=[])
    made = trainer_class(config)
    assert made is trainer_class(config) and made.__name__ == made.__qualname__ == "Trainer"
    bases = (CheckpointMixin, TimeLimitMixin, RecipeMixin, EngineMixin)
    assert made.__mro__[1:5] == bases and issubclass(made, recbole.trainer.Trainer)
    pretraining = trainer_class(Config("RecVAE", "tiny", config_dict=tiny_settings(), command_line=[]))
    assert pretraining.__name__ == "RecVAETrainer" and pretraining is not made
    assert pretraining.__mro__.index(EngineMixin) < pretraining.__mro__.index(recbole.trainer.RecVAETrainer)
