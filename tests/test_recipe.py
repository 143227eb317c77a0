"""Learning-rate schedules, averaged weights and weight decay: their formulas, resumed runs, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.utils import init_seed
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from recbole_posattn import Config, load, run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import SettingError
from recbole_posattn.settings.properties import model_properties
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training import interrupts
from recbole_posattn.training.averaging import WeightAverage
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.schedule import Schedule
from recbole_posattn.training.trainer import trainer_class
from tests import processes

Weights = dict[str, torch.Tensor]


class Watched:
    """A trainer, fitted, with the weights and learning rates of each of its steps and the weights after each epoch."""

    def __init__(self, settings: dict, model: str = "PosKernelSASRec", saved: bool = True) -> None:
        self.config = Config(model, "tiny", config_dict=settings, command_line=[])
        init_seed(self.config["seed"], self.config["reproducibility"])
        _, (train_data, self.valid_data, self.test_data) = prepare_data(self.config)
        self.model = self.config.model_class(self.config, train_data._dataset)
        self.trainer = trainer_class(self.config)(self.config, self.model)
        self.steps: list[Weights] = []
        self.rates: list[float] = []
        self.n_batches = len(train_data)
        optimizer = self.trainer.optimizer
        optimizer.register_step_pre_hook(lambda *_: self.rates.append(optimizer.param_groups[0]["lr"]))
        optimizer.register_step_post_hook(lambda *_: self.steps.append(self.weights()))
        self.trainer.fit(train_data, self.valid_data, saved=saved)

    def weights(self) -> Weights:
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def epochs(self) -> list[Weights]:
        return self.steps[self.n_batches - 1 :: self.n_batches]


def assert_close(actual: Weights, expected: Weights) -> None:
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name], weight.to(actual[name].dtype), rtol=1e-5, atol=1e-6, msg=name)


# -- defaults --------------------------------------------------------------------------------------------------------


def test_without_the_keys_a_run_is_what_it_was_before_there_were_any(tiny_settings: Callable) -> None:
    """Figures of the version before, up to the rounding of another machine."""
    before = {
        "backbone": "sasrec",
        "inner_size": None,
        "hidden_act": "relu",
        "kernel_structure": "toeplitz-full",
        "kernel_branch": None,
        "kernel_normalization": "frobenius",
        "history_partition": False,
    }  # the defaults then
    settings = tiny_settings(metric_decimal_place=10, use_gpu=False, **before)
    result = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    losses = [point["loss"] for point in result["curve"]]
    assert losses == pytest.approx([18.322815895080566, 18.273993492126465], rel=1e-6)
    assert result["best_valid_score"] == pytest.approx(0.2225120557, rel=1e-6)
    assert result["test_result"]["ndcg@10"] == pytest.approx(0.1994069686, rel=1e-6)
    assert result["curve"][0].keys() == {"epoch", "seconds", "loss", "valid"}
    content = read_checkpoint(Path(result["checkpoint"]).with_name(LAST_NAME))
    assert content["training"]["recipe"] is None


# -- schedules -------------------------------------------------------------------------------------------------------

SCHEDULERS: dict[str, Callable[[Any, int, float], LRScheduler]] = {
    "constant": lambda optimizer, steps, end: ConstantLR(optimizer, 1.0, 1),
    "linear": lambda optimizer, steps, end: LinearLR(optimizer, 1.0, end, steps),
    "cosine": lambda optimizer, steps, end: CosineAnnealingLR(optimizer, steps, 0.1 * end),
}


@pytest.mark.parametrize("end_factor", [0.0, 0.25])
@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_are_pytorchs(name: str, warmup: int, end_factor: float) -> None:
    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)

    expected_of, actual_of = optimizer(), optimizer()
    decay = SCHEDULERS[name](expected_of, 20 - warmup, end_factor)
    expected: LRScheduler = decay
    if warmup:
        expected_of = optimizer()
        rise = (
            LinearLR(expected_of, 1 / warmup, 1.0, max(1, warmup - 1)) if warmup > 1 else ConstantLR(expected_of, 1.0)
        )
        expected = SequentialLR(
            expected_of, [rise, SCHEDULERS[name](expected_of, 20 - warmup, end_factor)], milestones=[warmup]
        )
    actual = Schedule(name, warmup, 20, end_factor).start(actual_of, 0)
    for _ in range(21):
        assert actual_of.param_groups[0]["lr"] == pytest.approx(expected_of.param_groups[0]["lr"], abs=1e-12)
        for one, scheduler in ((actual_of, actual), (expected_of, expected)):
            one.step()
            scheduler.step()
    for _ in range(20):  # and stays there, where CosineAnnealingLR rises again
        actual_of.step()
        actual.step()
    assert actual_of.param_groups[0]["lr"] == pytest.approx(
        0.1 * (1.0 if name == "constant" else end_factor), abs=1e-12
    )


def test_each_step_has_the_learning_rate_of_its_schedule(tiny_settings: Callable, caplog: Any) -> None:
    settings = tiny_settings(
        epochs=3, learning_rate=0.01, lr_scheduler="linear", lr_warmup_epochs=0.6, lr_end_factor=0.1
    )
    with caplog.at_level("INFO"):
        watched = Watched(settings)
    n = watched.n_batches
    assert n == 6 and round(0.6 * n) == 4
    expected = [0.01 * min((step + 1) / 4, 1 - 0.9 * max(0, step - 4) / (3 * n - 4)) for step in range(3 * n)]
    assert watched.rates == pytest.approx(expected, rel=1e-12)
    logged = [point["learning_rate"] for point in watched.trainer.curve]
    assert logged == pytest.approx(expected[n - 1 :: n], rel=1e-12)
    assert f"epoch 2 learning rate of the last step: {expected[-1]:.6g}" in caplog.text
    assert watched.config["lr_decay_epochs"] == 3


def test_a_constant_schedule_without_warmup_changes_nothing(tiny_settings: Callable) -> None:
    plain = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    constant = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(lr_scheduler="constant"), command_line=[])
    assert [point["loss"] for point in constant["curve"]] == [point["loss"] for point in plain["curve"]]
    assert constant["test_result"] == plain["test_result"]


def test_more_epochs_do_not_stretch_the_decay_of_a_resumed_run(tiny_settings: Callable) -> None:
    settings = tiny_settings(lr_scheduler="cosine", lr_end_factor=0.25)
    first = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    resumed = run(config_dict={"epochs": 3, "show_progress": False}, command_line=[], resume=first["checkpoint"])
    rates = [point["learning_rate"] for point in resumed["curve"]]
    assert rates[:2] == [point["learning_rate"] for point in first["curve"]] and rates[2] == 0.25e-3
    report = json.loads(Path(resumed["checkpoint"]).with_name("result.json").read_text())
    assert report["config"]["lr_decay_epochs"] == 2


@pytest.mark.parametrize(
    "changes", [{}, {"lr_end_factor": 0.1}, {"weight_averaging": "ema", "ema_decay": 0.5}], ids=str
)
def test_no_epoch_is_trained_with_the_learning_rate_0(tiny_settings: Callable, changes: dict, caplog: Any) -> None:
    """Its validation is equal to the one before, at which RecBole's early stopping does not end."""
    settings = tiny_settings(lr_scheduler="linear", lr_decay_epochs=2, epochs=5, **changes)
    with caplog.at_level("INFO"):
        result = run("NoPESASRec", "tiny", config_dict=settings, command_line=[])
    said = "training ends after 2 epochs: the learning rate is 0 then (lr_decay_epochs)" in caplog.text
    assert (result["epochs"], said) == ((5, False) if changes else (2, True))
    resumed = run(config_dict={"epochs": 7, "show_progress": False}, command_line=[], resume=result["checkpoint"])
    assert resumed["epochs"] == (7 if changes else 2)
    if not changes:
        assert resumed["test_result"] == result["test_result"]
        alone = run("NoPESASRec", "tiny", config_dict={**settings, "epochs": 2}, command_line=[])
        assert alone["test_result"] == result["test_result"]


def test_the_last_epoch_with_a_learning_rate_is_validated(tiny_settings: Callable) -> None:
    settings = tiny_settings(lr_scheduler="linear", lr_decay_epochs=2, epochs=5, eval_step=4)
    result = run("NoPESASRec", "tiny", config_dict=settings, command_line=[])
    alone = run("NoPESASRec", "tiny", config_dict={**settings, "epochs": 2}, command_line=[])
    assert (result["epochs"], result["best_epoch"]) == (2, 1)
    assert result["best_valid_result"] == alone["best_valid_result"] is not None


def test_a_model_without_epochs_stays_without(tiny_settings: Callable) -> None:
    """RecBole trains those of the type TRADITIONAL for one epoch, whatever ``epochs`` says."""
    result = run("Pop", "tiny", config_dict=tiny_settings(epochs=5), command_line=[])
    assert (result["epochs"], len(result["curve"])) == (1, 1)


def test_a_learning_rate_that_is_changed_on_resume_keeps_its_schedule(tiny_settings: Callable) -> None:
    settings = tiny_settings(lr_scheduler="linear", lr_decay_epochs=10)
    first = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    lower = {"epochs": 3, "learning_rate": 5e-4}
    resumed = run(config_dict=lower, command_line=[], resume=first["checkpoint"])
    rates = [point["learning_rate"] for point in resumed["curve"]]
    assert rates == pytest.approx([1e-3 * (1 - 5 / 60), 1e-3 * (1 - 11 / 60), 5e-4 * (1 - 17 / 60)], rel=1e-12)


# -- averaged weights ------------------------------------------------------------------------------------------------


def test_a_moving_average_is_its_formula(tiny_settings: Callable) -> None:
    settings = tiny_settings(learning_rate=0.01, weight_averaging="ema", ema_decay=0.8, averaging_start_epoch=1)
    watched = Watched(settings, saved=False)
    assert len(watched.steps) == 2 * watched.n_batches
    average = {name: weight.double() for name, weight in watched.steps[watched.n_batches].items()}
    for weights in watched.steps[watched.n_batches + 1 :]:
        average = {name: 0.8 * average[name] + 0.2 * weight for name, weight in weights.items()}
    assert_close(watched.weights(), average)  # without a checkpoint, the model has them after training
    assert not torch.allclose(watched.weights()["item_embedding.weight"], watched.steps[-1]["item_embedding.weight"])


def test_stochastic_weight_averaging_is_the_mean_of_the_epochs(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=4, learning_rate=0.01, weight_averaging="swa", averaging_start_epoch=1)
    watched = Watched(settings, saved=False)
    epochs = watched.epochs()[1:]
    assert len(epochs) == 3
    assert_close(watched.weights(), {name: sum(w[name].double() for w in epochs) / 3 for name in epochs[0]})


@pytest.mark.slow
@pytest.mark.parametrize("model", ["PosKernelSASRec", "GRU4Rec"])
@pytest.mark.parametrize("method", ["ema", "swa"])
def test_averaged_weights_are_validated_kept_and_tested(tiny_settings: Callable, model: str, method: str) -> None:
    """And training goes on with the weights themselves, as if there were no average."""
    settings = tiny_settings(epochs=3, learning_rate=0.02)
    plain = run(model, "tiny", config_dict=settings, command_line=[])
    averaging = {"weight_averaging": method, **({"ema_decay": 0.9} if method == "ema" else {})}
    result = run(model, "tiny", config_dict={**settings, **averaging}, command_line=[])
    assert [point["loss"] for point in result["curve"]] == [point["loss"] for point in plain["curve"]]
    assert [point["valid"] for point in result["curve"]] != [point["valid"] for point in plain["curve"]]

    config, recommender, _, _, valid_data, test_data = load(result["checkpoint"])
    trainer = trainer_class(config)(config, recommender)
    score, valid_result = trainer._valid_epoch(valid_data)
    assert score == result["best_valid_score"] and dict(valid_result) == result["best_valid_result"]
    assert dict(trainer.evaluate(test_data, load_best_model=False)) == result["test_result"]

    last = [read_checkpoint(Path(r["checkpoint"]).with_name(LAST_NAME)) for r in (plain, result)]
    for name, weight in last[0]["state_dict"].items():
        assert torch.equal(last[1]["state_dict"][name], weight), name  # those that training continues with
    kept = last[1]["training"]["recipe"]["average"]
    if result["best_epoch"] == 2:
        best = read_checkpoint(result["checkpoint"])["state_dict"]
        assert all(torch.equal(best[name], weight) for name, weight in kept["weights"].items())
    assert kept["n_averaged"] == (3 if method == "swa" else last[1]["training"]["recipe"]["steps"])


def test_without_validation_the_average_is_kept(tiny_settings: Callable) -> None:
    settings = tiny_settings(weight_averaging="swa", eval_step=0)
    result = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    last = read_checkpoint(Path(result["checkpoint"]).with_name(LAST_NAME))
    average = last["training"]["recipe"]["average"]["weights"]
    best = read_checkpoint(result["checkpoint"])["state_dict"]
    assert all(torch.equal(best[name], weight) for name, weight in average.items())
    assert not all(torch.equal(last["state_dict"][name], weight) for name, weight in average.items())


def test_a_run_that_max_minutes_ended_goes_on_with_its_average(tiny_settings: Callable) -> None:
    settings = tiny_settings(epochs=4, learning_rate=0.02, weight_averaging="swa", lr_scheduler="cosine")
    arguments: dict = {"model": "PosKernelSASRec", "dataset": "tiny", "command_line": []}
    undisturbed = run(config_dict={**settings, "checkpoint_dir": "undisturbed"}, **arguments)
    assert run(config_dict={**settings, "max_minutes": 1e-9}, **arguments)["epochs"] < 4
    resumed = run(config_dict=settings, resume="auto", **arguments)
    assert [point["loss"] for point in resumed["curve"]] == [point["loss"] for point in undisturbed["curve"]]
    for name in ("best.pth", LAST_NAME):
        states = [read_checkpoint(Path(r["checkpoint"]).with_name(name)) for r in (undisturbed, resumed)]
        weights, other = (state["state_dict"] for state in states)
        assert all(torch.equal(weight, other[key]) for key, weight in weights.items())


def test_kernels_kept_by_epoch_are_the_averaged_ones(tiny_settings: Callable) -> None:
    settings = tiny_settings(weight_averaging="swa", save_kernel_every=1, learning_rate=0.02)
    result = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    folder = Path(result["checkpoint"]).parent
    last = read_checkpoint(folder / LAST_NAME)["training"]["recipe"]["average"]["weights"]
    kernels = torch.load(folder / "kernels" / "epoch-00002.pth", weights_only=True)["state_dict"]
    assert kernels and all(torch.equal(weight, last[name]) for name, weight in kernels.items() if name in last)


def test_a_run_stopped_in_its_validation_takes_an_epoch_in_once(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the epoch are in the mean already when the validation is interrupted."""
    settings = tiny_settings(
        epochs=3, learning_rate=0.02, eval_batch_size=20, weight_averaging="swa", lr_scheduler="cosine"
    )
    arguments: dict = {"model": "PosKernelSASRec", "dataset": "tiny", "command_line": []}
    undisturbed = run(config_dict={**settings, "checkpoint_dir": "undisturbed"}, **arguments)
    scored, full_sort_predict = [], find_model("PosKernelSASRec").full_sort_predict

    def noted(model: Any, batch: Any) -> Any:
        scored.append(1)
        if len(scored) == 4:
            interrupts._now.pending = 15
        return full_sort_predict(model, batch)

    with monkeypatch.context() as patch, pytest.raises(interrupts.Interrupted, match="all completed steps are kept"):
        patch.setattr(find_model("PosKernelSASRec"), "full_sort_predict", noted)
        run(config_dict=settings, **arguments)
    resumed = run(config_dict=settings, resume="auto", **arguments)
    states = [read_checkpoint(Path(r["checkpoint"]).with_name(LAST_NAME)) for r in (undisturbed, resumed)]
    averages = [state["training"]["recipe"]["average"] for state in states]
    assert averages[0]["n_averaged"] == averages[1]["n_averaged"] == 3
    for name, weight in averages[0]["weights"].items():
        assert torch.equal(averages[1]["weights"][name], weight)
    assert resumed["test_result"] == undisturbed["test_result"]


@pytest.mark.slow
def test_two_processes_average_as_one(tiny_settings: Callable) -> None:
    still = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "learning_rate": 0.01}
    recipe = {"weight_averaging": "ema", "ema_decay": 0.9, "lr_scheduler": "cosine", "lr_warmup_epochs": 0.5}
    settings = tiny_settings(score="cosine", label_smoothing=0.1, **still, **recipe)
    alone = run("PosKernelSASRec", "tiny", config_dict=settings)
    together = run("PosKernelSASRec", "tiny", config_dict=settings, nproc=2, port=processes.free_port())
    assert together["test_result"] == alone["test_result"]
    assert [p["learning_rate"] for p in together["curve"]] == [p["learning_rate"] for p in alone["curve"]]
    states = [read_checkpoint(result["checkpoint"])["state_dict"] for result in (alone, together)]
    for name, weights in states[0].items():
        if not name.endswith("key.bias"):  # its gradient is zero: what Adam makes of rounding errors differs
            torch.testing.assert_close(states[1][name], weights, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("damage", ["weights", "shape", "count"])
def test_an_average_that_does_not_fit_is_refused(tiny_settings: Callable, damage: str) -> None:
    watched = Watched(tiny_settings(epochs=1, weight_averaging="swa"), saved=False)
    state = watched.trainer._recipe_state()
    average = state["average"]
    name = next(iter(average["weights"]))
    if damage == "weights":
        del average["weights"][name]
    elif damage == "shape":
        average["weights"][name] = torch.zeros(3)
    else:
        average["n_averaged"] = "3"
    with pytest.raises(ValueError, match="average"):
        watched.trainer._restore_recipe(state)


# -- weight decay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", ["adamw", "adam"])
def test_decay_is_decoupled_with_adamw_and_added_to_the_gradient_with_adam(
    tiny_settings: Callable, learner: str
) -> None:
    settings = tiny_settings(learner=learner, weight_decay=0.1, weight_decay_on="matrices")
    config = Config("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])
    _, (train_data, *_) = prepare_data(config)
    model = config.model_class(config, train_data._dataset)
    optimizer = trainer_class(config)(config, model).optimizer
    assert type(optimizer).__name__.lower() == learner
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {id(weight) for weight in decayed["params"]} == {id(weight) for weight in model.matrices()}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))
    before = model.item_embedding.weight.detach().clone()
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    after = model.item_embedding.weight.detach()
    gradient = 0.1 * before
    adam = before - 0.001 * gradient / (gradient.abs() + 1e-8)
    expected = before * (1 - 0.001 * 0.1) if learner == "adamw" else adam
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)  # a step is 1e-3 or 1e-4


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "euclid"}, "score must be one of dot, cosine; got 'euclid'."),
        ({"score": "cosine", "score_temperature": 0}, "score_temperature must be a number of at least 1e-4; got 0."),
        ({"score_temperature": 0.1}, "score_temperature 0.1 is for score cosine; got 'dot'."),
        ({"label_smoothing": 1.0}, "label_smoothing must be a number in [0, 1); got 1.0."),
        (
            {"label_smoothing": 0.1, "loss_type": "gBCE"},
            "label_smoothing 0.1 is for loss_type CE, with probabilities of all items; got gBCE.",
        ),
        (
            {"loss_precision": "bfloat16", "loss_type": "SSM"},
            "loss_precision bfloat16 is for loss_type CE; got SSM.",
        ),
        (
            {"loss_precision": "bfloat16", "loss_chunk_size": None},
            "loss_precision bfloat16 needs chunks: leave loss_chunk_size ~ out.",
        ),
        (
            {"score": "cosine", "score_temperature": 1e-30},
            "score_temperature must be a number of at least 1e-4; got 1e-30.",
        ),
        ({"item_dropout_prob": 1}, "item_dropout_prob must be a number in [0, 1); got 1."),
        ({"weight_decay_on": "biases"}, "weight_decay_on must be one of all, matrices; got 'biases'."),
        ({"lr_scheduler": "step"}, "lr_scheduler must be one of constant, linear, cosine, or ~; got 'step'."),
        ({"lr_warmup_epochs": 9}, "lr_warmup_epochs 9 is for lr_scheduler constant, linear, cosine; got ~."),
        (
            {"lr_scheduler": "constant", "lr_end_factor": 0.1},
            "lr_end_factor 0.1 is for lr_scheduler linear, cosine; got 'constant'.",
        ),
        (
            {"lr_scheduler": "cosine", "lr_warmup_epochs": 2.0},
            "lr_warmup_epochs must be below lr_decay_epochs (by default epochs), which is 2; got 2.0.",
        ),
        ({"lr_decay_epochs": 3}, "lr_decay_epochs 3 is for lr_scheduler linear, cosine; got ~."),
        ({"weight_averaging": "mean"}, "weight_averaging must be one of ema, swa, or ~; got 'mean'."),
        ({"weight_averaging": "swa", "ema_decay": 0.9}, "ema_decay 0.9 is for weight_averaging ema; got 'swa'."),
        ({"averaging_start_epoch": 1}, "averaging_start_epoch 1 is for weight_averaging ema, swa; got ~."),
        (
            {"weight_averaging": "ema", "averaging_start_epoch": 2},
            "averaging_start_epoch must be below epochs, which is 2; got 2.",
        ),
        (
            {"model": "Pop", "weight_averaging": "ema"},
            "weight_averaging must be ~ with Pop, which is not trained by gradients.",
        ),
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(tiny_settings: Callable, settings: dict, message: str) -> None:
    given = {**tiny_settings(), "model": "PosKernelSASRec", **settings}
    with pytest.raises(SettingError) as raised:
        Config(given.pop("model"), "tiny", config_dict=given, command_line=[])
    assert str(raised.value) == message


def test_only_given_keys_are_refused_and_only_of_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not a default, and not a key in a file for several models that RecBole's do not have."""
    file = tmp_path / "defaults.yaml"
    file.write_text("score: cosine\nscore_temperature: 0.1\nlabel_smoothing: 0.2\n")
    monkeypatch.setitem(model_properties, "PosKernelSASRec", (*model_properties["PosKernelSASRec"], file))
    config = Config("PosKernelSASRec", "ml-100k", config_dict={"score": "dot", "loss_type": "gBCE"}, command_line=[])
    assert (config["score"], config["score_temperature"], config["label_smoothing"]) == ("dot", 0.1, 0.2)
    Config("GRU4Rec", "ml-100k", config_dict={"label_smoothing": 0.1, "loss_type": "BPR"}, command_line=[])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["--model=RecVAE", "--weight_averaging=ema"],
            "weight_averaging must be ~ with RecVAE, which has its own training loop; got 'ema'.",
        ),
    ],
    ids=str,
)
def test_one_line_says_what_a_model_or_its_data_do_not_allow(
    tiny_settings: Callable, capsys: pytest.CaptureFixture, settings: list[str], message: str
) -> None:
    flags = [f"--{key}={value}" for key, value in tiny_settings().items()]
    code = main(["run", "--dataset=tiny", *flags, *settings])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and message in last and not list(Path("saved").glob("*"))


def test_batch_normalization_is_not_averaged() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with pytest.raises(SettingError, match="weight_averaging must be ~ with Sequential, which has batch normalization"):
        WeightAverage(model, "swa", 0.9, 0)


def test_sparse_adam_needs_sparse_gradients(tiny_settings: Callable) -> None:
    """PyTorch's error comes in the first step, without the name of a setting."""
    settings = tiny_settings(learner="sparse_adam", epochs=1)
    for model in ("NoPESASRec", "BPR"):
        with pytest.raises(SettingError, match=rf"learner sparse_adam is for models with sparse .*; {model} has none"):
            run(model, "tiny", config_dict=settings, command_line=[])
