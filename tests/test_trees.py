"""RecBole's boosted trees: the figures of plain RecBole, and checkpoints that load again."""

from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import recbole.config
import recbole.trainer
import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbole_posattn import Config, load, run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.load import evaluate_checkpoint
from recbole_posattn.training.tracking import TRACKERS

TREES = {"XGBoost": ("xgb", "xgboost"), "LightGBM": ("lgb", "lightgbm")}


@pytest.fixture(params=list(TREES))
def model(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(TREES[request.param][1])
    return request.param


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data_path`` with ratings that depend on the age of the user and the price of the item."""
    folder, draw = tmp_path_factory.mktemp("data") / "rated", random.Random(1)
    folder.mkdir()
    age = [draw.randint(18, 80) for _ in range(40)]
    price = [draw.randint(1, 60) for _ in range(30)]
    rows = []
    for user in range(40):
        for item in draw.sample(range(30), 15):
            likes = (age[user] > price[item] + 20) != (draw.random() < 0.1)
            rows.append(f"u{user}\ti{item}\t{5 if likes else 2}\t{len(rows)}")
    files = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rows],
        "user": ["user_id:token\tage:float\tgender:token", *(f"u{u}\t{age[u]}\t{'fm'[u % 2]}" for u in range(40))],
        "item": ["item_id:token\tprice:float\tgenre:token", *(f"i{i}\t{price[i]}\tg{i % 3}" for i in range(30))],
    }
    for suffix, lines in files.items():
        (folder / f"rated.{suffix}").write_text("\n".join(lines) + "\n")
    return folder.parent


@pytest.fixture
def settings(model: str, rated: Path) -> Callable[..., dict]:
    """Settings of a run of a moment; RecBole does not find its defaults of the parameters, so that they are given."""

    def settings(**changes: object) -> dict:
        short = TREES[model][0]
        parameters = {
            "XGBoost": {"objective": "binary:logistic", "max_depth": 3, "eta": 0.3, "nthread": 1},
            "LightGBM": {"objective": "binary", "num_leaves": 8, "verbose": -1, "num_threads": 1},
        }
        base = {f"{short}_params": parameters[model], f"{short}_num_boost_round": 10, "threshold": {"rating": 4}}
        columns = {"load_col": None, "data_path": str(rated), "epochs": 2, "state": "error"}
        return {**base, **columns, "metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", **changes}

    return settings


def of_recbole(model: str, given: dict) -> dict[str, float]:
    """The test result of plain RecBole."""
    config = recbole.config.Config(model, "rated", config_dict=given)
    init_seed(config["seed"], config["reproducibility"])
    train, valid, test = data_preparation(config, create_dataset(config))
    trainer = getattr(recbole.trainer, f"{model}Trainer")(config, get_model(model)(config, train._dataset))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of xgboost, at how RecBole calls it
        trainer.fit(train, valid, saved=True)
        trainer.tensorboard.close()
        return trainer.evaluate(test, load_best_model=True)


def test_the_figures_are_recboles(model: str, settings: Callable) -> None:
    result = run(model, "rated", config_dict=settings(), command_line=[])
    assert result["test_result"] == pytest.approx(of_recbole(model, settings()), abs=1e-4)
    assert result["test_result"]["auc"] > 0.8, "it learns what was planted"
    assert result["epochs"] == len(result["curve"]) == 2 and result["trainable_parameters"] == 0
    assert [point["valid"] for point in result["curve"]][result["best_epoch"]] == result["best_valid_result"]


def test_a_checkpoint_is_plain_and_loads_again(model: str, settings: Callable, empty_folder: Path) -> None:
    result = run(model, "rated", config_dict=settings(), command_line=[])
    (folder,) = (empty_folder / "saved").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["best.pth", "result.json"]
    assert torch.load(folder / "best.pth", weights_only=True)["config"]["model"] == model
    assert evaluate_checkpoint(result["checkpoint"]) == (result["test_result"], None)
    assert isinstance(load(result["checkpoint"]).model, importlib.import_module(TREES[model][1]).Booster)


def test_one_hot_encoding(model: str, settings: Callable) -> None:
    result = run(model, "rated", config_dict=settings(convert_token_to_onehot=True), saved=False, command_line=[])
    assert result["test_result"]["auc"] > 0.8


def test_recboles_defaults_are_found_whatever_the_spelling(model: str) -> None:
    config = Config(model, "rated", command_line=[])
    short = TREES[model][0]
    assert config[f"{short}_params"]["objective"] in ("binary", "binary:logistic")
    assert config[f"{short}_num_boost_round"] >= 100 and config["token_num_threshold"] == 10000
    with pytest.raises(SettingError, match=f"Did you mean '{short}_params'"):
        Config(model, "rated", config_dict={f"{short}_param": {}}, command_line=[])


@pytest.mark.parametrize(
    "changes",
    [{"eval_step": 0}, {"eval_args": {"mode": "labeled", "split": {"RS": [0.8, 0.2, 0]}}}, {"stopping_step": 0}],
    ids=str,
)
def test_without_validations_or_test_rows(model: str, settings: Callable, changes: dict) -> None:
    result = run(model, "rated", config_dict=settings(epochs=3, **changes), command_line=[])
    assert Path(result["checkpoint"]).is_file()
    assert (result["test_result"] is None) == ("eval_args" in changes)
    assert (result["best_valid_result"] is None) == ("eval_step" in changes)


def test_max_minutes_end_the_training_after_a_round(model: str, settings: Callable) -> None:
    result = run(model, "rated", config_dict=settings(epochs=3, max_minutes=1e-9), command_line=[])
    assert (result["epochs"], result["stopped_by"], result["best_epoch"]) == (1, "max_minutes", 0)
    one = run(model, "rated", config_dict=settings(epochs=1), command_line=[])
    assert result["test_result"] == one["test_result"] and one["stopped_by"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1 with"),
        ({"eval_args": {"mode": "labeled", "split": {"RS": [0.8, 0, 0.2]}}}, "needs a validation split"),
        ({"metrics": ["NDCG"], "valid_metric": "NDCG@10"}, "the mode labeled is for metrics of single rows"),
        (
            {"xgb_params": {"objective": "nope"}, "lgb_params": {"objective": "nope"}},
            "cannot be trained with these settings: .*nope",
        ),
    ],
    ids=str,
)
def test_what_trees_cannot_be_asked_is_one_line(
    model: str, settings: Callable, changes: dict, message: str, empty_folder: Path
) -> None:
    with pytest.raises(SettingError, match=message) as error:
        run(model, "rated", config_dict=settings(**changes), command_line=[])
    assert "\n" not in str(error.value)
    assert not list((empty_folder / "saved").glob("*")), "nothing half written"


def test_commands_for_other_models_refuse_trees(
    model: str, settings: Callable, capsys: pytest.CaptureFixture, empty_folder: Path
) -> None:
    checkpoint = Path(run(model, "rated", config_dict=settings(), command_line=[])["checkpoint"])
    for command in ("recommend", "inspect", "interference", "export"):
        capsys.readouterr()
        assert main([command, str(checkpoint)]) == 2
        assert model in capsys.readouterr().err
    assert main(["run", f"--resume={checkpoint.parent}"]) == 2
    content = read_checkpoint(checkpoint)
    write_checkpoint({**content, "trees": "no trees"}, checkpoint)
    with pytest.raises(CheckpointError, match=f"{checkpoint}: the checkpoint holds no trees of {model}"):
        load(checkpoint)


def test_trees_log_their_metrics(
    model: str, settings: Callable[..., dict], monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    """To TensorBoard and the services, of which one is replaced here."""
    logged: list[tuple] = []
    tracker = SimpleNamespace(
        run_id="1",
        log=lambda metrics, step: logged.append((step, metrics)),
        summarize=lambda metrics: logged.append(("final", metrics)),
        finish=lambda ok: logged.append(("finished", ok)),
    )
    monkeypatch.setitem(TRACKERS, "log_mlflow", lambda config, name, run_id: tracker)
    monkeypatch.setattr("recbole_posattn.settings.run_keys.find_spec", lambda name: name)
    result = run(model, "rated", config_dict=settings(log_mlflow=True), command_line=[])
    epochs = [(point["epoch"], point["valid"]["auc"]) for point in result["curve"]]
    assert [(step, metrics["valid/auc"]) for step, metrics in logged[:-2]] == [
        (s, pytest.approx(auc)) for s, auc in epochs
    ]
    assert logged[-2][1]["test/auc"] == pytest.approx(result["test_result"]["auc"]) and logged[-1] == ("finished", True)
    (folder,) = (empty_folder / "log_tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload().Scalars("Valid/auc")
    assert [(event.step, event.value) for event in events] == [(step, pytest.approx(auc)) for step, auc in epochs]
