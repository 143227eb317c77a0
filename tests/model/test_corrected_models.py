"""RecBole's Pop and Random, which depend on no batch size, no seed and no other user any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.config import Config as PlainConfig
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender.pop import Pop as PlainPop
from recbole.utils import get_model

from recbole_posattn import Config, run
from recbole_posattn.evaluation.target_ranks import metric_by_target
from recbole_posattn.settings.properties import ML_100K
from recbole_posattn.training.load import load

USERS = {"u1": "abcxy", "u2": "abdxy", "u3": "acdxy"}
TRAINED_ON = {"a": 3, "b": 2, "c": 2, "d": 2, "x": 0, "y": 0}  # leave-one-out: x is the valid item and y the test item


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, Any]:
    rows = [(user, item, time) for user, items in USERS.items() for time, item in enumerate(items, start=1)]
    table = pd.DataFrame(rows, columns=["user_id:token", "item_id:token", "timestamp:float"])
    (tmp_path / "toy").mkdir()
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "toy" / "toy.inter", sep="\t", index=False)
    return {
        "data_path": str(tmp_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "topk": [2],
        "valid_metric": "MRR@2",
        "show_progress": False,
    }


@pytest.mark.parametrize(("batch", "seed"), [(1, 2020), (2, 2021), (2048, 2022)])
@pytest.mark.parametrize("negatives", [None, {"distribution": "uniform", "sample_num": 2}])
def test_pop_counts_training_interactions(toy: dict, batch: int, seed: int, negatives: dict | None) -> None:
    settings = {**toy, "train_batch_size": batch, "seed": seed, "train_neg_sample_args": negatives}
    model, dataset = load(run("Pop", "toy", config_dict=settings, command_line=[])["checkpoint"])[1:3]
    items = dataset.token2id("item_id", list(TRAINED_ON))
    assert model.item_cnt[items, 0].tolist() == list(TRAINED_ON.values())
    assert model.item_cnt.sum() == sum(TRAINED_ON.values()) and model.max_cnt.tolist() == [3]
    scores = model.full_sort_predict({"user_id": torch.tensor([1, 2])}).view(2, -1)
    assert scores[:, items].numpy() == pytest.approx(np.array([list(TRAINED_ON.values())] * 2) / 3)
    assert model.predict({"item_id": torch.tensor(items)}).numpy() == pytest.approx(scores[0, items].numpy())


def test_pop_counts_repeated_interactions(toy: dict) -> None:
    file = Path(toy["data_path"]) / "toy" / "toy.inter"
    file.write_text(file.read_text() + "u1\tb\t0.5\nu1\tb\t0.6\n")
    model, dataset = load(run("Pop", "toy", config_dict=toy, command_line=[])["checkpoint"])[1:3]
    assert model.item_cnt[dataset.token2id("item_id", "b")].tolist() == [4]


def test_pop_of_ml_100k_is_as_good_as_popularity() -> None:
    results = []
    for batch, seed in ((2048, 2020), (100_000, 2021)):
        settings = {"protocol": "leave_one_out_masked", "train_batch_size": batch, "seed": seed, "show_progress": False}
        result = run("Pop", "ml-100k", config_dict=settings, command_line=[])
        results.append(pd.read_parquet(Path(result["checkpoint"]).with_name("users.parquet")))
    pd.testing.assert_frame_equal(*results)
    worst, best = popularity_ranks()
    for metric, lowest, highest in (("ndcg@10", 0.0432, 0.0450), ("hit@10", 0.084, 0.086)):
        ends = [metric_by_target(pd.DataFrame({"rank": rank}), metric).mean() for rank in (worst, best)]
        assert ends == pytest.approx([lowest, highest], abs=0.0005)
        assert ends[0] <= metric_by_target(results[0], metric).mean() <= ends[1]


def popularity_ranks() -> tuple[np.ndarray, np.ndarray]:
    """By the file alone: each user's newest item among those that are new to it, behind and before its equals."""
    rows = pd.read_csv(ML_100K / "ml-100k.inter", sep="\t").sort_values("timestamp:float", kind="stable")
    from_newest = rows.groupby("user_id:token").cumcount(ascending=False)
    count = (
        rows["item_id:token"].where(from_newest >= 2).value_counts().reindex(rows["item_id:token"].unique()).fillna(0)
    )
    ranks = []
    for _, items in rows.groupby("user_id:token")["item_id:token"]:
        target = count[items.iloc[-1]]
        others = count.drop(items)
        ranks.append(((others >= target).sum() + 1, (others > target).sum() + 1))
    return tuple(np.array(ranks).T)


def test_recboles_own_class_stays_as_it_is(toy: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, given = (Config(model, "toy", config_dict=toy, command_line=[]) for model in ("Pop", PlainPop))
    assert ours.model_class is given.model_class is not PlainPop and issubclass(ours.model_class, PlainPop)
    assert ours.model_class.__name__ == ours["model"] == "Pop"
    assert Config.from_plain(ours.plain(), toy["data_path"]).model_class is ours.model_class
    assert get_model("Pop") is PlainPop
    assert PlainConfig("Pop", "toy", config_dict=toy).model_class is PlainPop


def test_random_scores_depend_on_the_user_alone(tiny_settings: Callable) -> None:
    settings = tiny_settings(metrics=["NDCG", "ItemCoverage"], valid_metric="NDCG@10", topk=[10], epochs=1)
    results = [
        run("Random", "tiny", config_dict={**settings, "eval_batch_size": size}, command_line=[])["test_result"]
        for size in (1, 7, 4096)
    ]
    assert results[0] == results[1] == results[2]
    assert results[0]["itemcoverage@10"] > 0.9  # one list for all would cover half of the 20 items

    config = Config("Random", "tiny", config_dict=settings, command_line=[])
    train_data = data_preparation(config, create_dataset(config))[0]
    model = config.model_class(config, train_data._dataset)
    scores = model.full_sort_predict({"user_id": torch.tensor([3, 5, 3])}).view(3, -1)
    assert torch.equal(scores[0], scores[2]) and not torch.equal(scores[0], scores[1])
    pairs = {"user_id": torch.tensor([5, 3, 5]), "item_id": torch.tensor([2, 4, 9])}
    assert torch.equal(model.predict(pairs), torch.stack([scores[1, 2], scores[0, 4], scores[1, 9]]))
