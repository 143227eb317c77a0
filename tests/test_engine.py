"""The engine under RecBole's trainers: equal to RecBole's own classes, mixed precision, compilation."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable

import pytest
import recbole.config
import recbole.trainer.trainer
import torch
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_posattn import Config, run
from recbole_posattn.errors import SettingError
from recbole_posattn.training import trainer as trainer_module
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class


def trained(model: str, settings: dict, scaler: bool = False) -> tuple[Trainer, float]:
    """A trainer of ours after one epoch, and the epoch's loss; ``scaler``: with a GradScaler, as in float16."""
    config = Config(model, "tiny", config_dict=settings, command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, _, _) = prepare_data(config)
    init_seed(config["seed"], config["reproducibility"])
    trainer = trainer_class(config)(config, config.model_class(config, train_data._dataset).to(config["device"]))
    trainer.enable_scaler = scaler
    return trainer, trainer._train_epoch(train_data, 0)


def _distance(one: Trainer, other: Trainer) -> float:
    """Between the weights of two trained models, as one vector."""
    vectors = (torch.nn.utils.parameters_to_vector(each.model.parameters()) for each in (one, other))
    return (next(vectors) - next(vectors)).norm().item()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
def test_a_model_of_recboles_gets_the_metrics_of_recboles_own_classes(tiny_settings: Callable, model: str) -> None:
    settings = tiny_settings(
        n_heads=1,
        inner_size=16,
        epochs=3,
        metrics=["Hit", "NDCG", "MRR"],
        train_neg_sample_args=None,
        load_col={"inter": ["user_id", "item_id", "timestamp"]},
        trim_padding=False,
    )
    ours = run(model, "tiny", config_dict=settings, saved=False)

    config = recbole.config.Config(model, "tiny", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = SequentialDataset(config).build()
    train_data = TrainDataLoader(config, train, None, shuffle=True)
    valid_data, test_data = (FullSortEvalDataLoader(config, part, None) for part in (valid, test))
    init_seed(config["seed"], config["reproducibility"])
    trainer = Trainer(config, Config(model, "tiny", command_line=[]).model_class(config, train))
    score, result = trainer.fit(train_data, valid_data, saved=False)
    assert (ours["best_valid_score"], ours["best_valid_result"]) == (score, dict(result))
    assert ours["test_result"] == dict(trainer.evaluate(test_data, load_best_model=False))
    assert 0 < score < 1


def test_mixed_precision_computes_in_bfloat16_and_keeps_weights_in_float32(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain_loss = trained("PosKernelSASRec", tiny_settings())
    seen = []
    score = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: seen.append(score(self, x).dtype) or score(self, x))
    mixed, mixed_loss = trained("PosKernelSASRec", tiny_settings(enable_amp=True))
    assert set(seen) == {torch.bfloat16} and not mixed.enable_scaler
    assert {weights.dtype for weights in mixed.model.parameters()} == {torch.float32}
    assert mixed_loss != plain_loss and mixed_loss == pytest.approx(plain_loss, rel=0.02)
    assert {state["exp_avg"].dtype for state in mixed.optimizer.state.values()} == {torch.float32}


@pytest.mark.parametrize("model", ["PosKernelSASRec", "RecVAE"])
def test_gradients_are_clipped_as_they_are_and_not_as_a_scaler_scales_them(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """RecBole clips the scaled ones, thousands of times too large, so that a step of SGD hardly moves the weights."""
    monkeypatch.setattr(recbole.trainer.trainer.amp, "GradScaler", functools.partial(torch.amp.GradScaler, "cpu"))
    settings = tiny_settings(clip_grad_norm={"max_norm": 0.05}, learner="sgd", learning_rate=0.5)
    plain, loss = trained(model, settings)
    scaled, scaled_loss = trained(model, settings, scaler=True)
    start, _ = trained(model, {**settings, "learning_rate": 1e-30})
    if model == "RecVAE":  # without a scaler, as in RecBole, each of its optimizers counts the other's gradients
        assert _distance(scaled, start) > 0.5 * _distance(plain, start) > 0
    else:
        assert scaled_loss == pytest.approx(loss, rel=1e-4)
        assert _distance(scaled, plain) < 0.01 * _distance(plain, start) > 0


def test_clipping_gives_the_weights_of_recboles_own_loop(tiny_settings: Callable) -> None:
    """Without a scaler, to the digit."""
    settings = tiny_settings(clip_grad_norm={"max_norm": 0.05}, trim_padding=False)
    ours, loss = trained("GRU4Rec", settings)
    config = Config("GRU4Rec", "tiny", config_dict=settings, command_line=[])
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, _, _) = prepare_data(config)
    init_seed(config["seed"], config["reproducibility"])
    recboles = Trainer(config, config.model_class(config, train_data._dataset))
    assert loss == recboles._train_epoch(train_data, 0)
    for one, two in zip(ours.model.parameters(), recboles.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert loss != trained("GRU4Rec", tiny_settings(trim_padding=False))[1]


@pytest.mark.parametrize("model", [pytest.param("PosKernelSASRec", marks=pytest.mark.slow), "GRU4Rec"])
def test_a_compiled_model_is_the_model(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Traced as for compilation, and run by PyTorch: compiling takes minutes."""
    compiled = []

    def compile_eagerly(function: Callable, **options: object) -> Callable:
        compiled.append(options)
        return original(function, **{**options, "backend": "eager"})

    original = torch.compile
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    settings = tiny_settings(hidden_dropout_prob=0.0, attn_dropout_prob=0.0, dropout_prob=0.0)
    _, loss = trained(model, settings)
    assert not compiled
    trainer, compiled_loss = trained(model, {**settings, "torch_compile": True})
    assert compiled == [{"dynamic": True}] and compiled_loss == pytest.approx(loss, rel=1e-4)
    plain = trained(model, settings)[0].model.state_dict()
    assert trainer.model.state_dict().keys() == plain.keys()


def test_compiling_without_a_compiler_is_refused(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SettingError, match=r"torch_compile needs a C\+\+ compiler"):
        trained("PosKernelSASRec", tiny_settings(torch_compile=True))


def test_adam_of_our_models_is_fused_on_a_cpu_and_trains_alike(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RecBole's own models keep the digits of RecBole's optimizer."""
    settings = tiny_settings(
        weight_decay=0.01, weight_decay_on="matrices", learner_args={"betas": [0.9, 0.98]}, learning_rate=0.01
    )
    fused, loss = trained("PosKernelSASRec", settings)
    assert [(group["fused"], *group["betas"]) for group in fused.optimizer.param_groups] == [(True, 0.9, 0.98)] * 2
    assert [group["weight_decay"] for group in fused.optimizer.param_groups] == [0.01, 0.0]
    monkeypatch.setattr(trainer_module, "Adam", ())
    plain, plain_loss = trained("PosKernelSASRec", settings)
    assert not any(group["fused"] for group in plain.optimizer.param_groups)
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    others, _ = trained("GRU4Rec", tiny_settings())
    assert not any(group["fused"] for group in others.optimizer.param_groups)
