"""Masked and temporal evaluation against a plain one in NumPy, for models that read sequences and for others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_posattn import Config, run
from recbole_posattn.evaluation.target_ranks import metric_by_target
from recbole_posattn.settings.properties import ML_100K
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.result import USERS_NAME
from recbole_posattn.training.trainer import trainer_class

METRICS = ["hit", "ndcg", "mrr", "recall", "cov"]
TOPK = [3, 10]


class Event:
    """A held-out interaction: the user, the items before it in time order, and its own item."""

    def __init__(self, user: int, history: list[int], item: int) -> None:
        self.user, self.history, self.item = user, history, item


def plain_cuts(config: Config, table: pd.DataFrame) -> tuple[float, float]:
    """The times up to which training and validation go."""
    if config["protocol"] == "temporal_paper":  # of all interactions, also those that are left out
        time = pd.read_csv(ML_100K / "ml-100k.inter", sep="\t")["timestamp:float"].sort_values(ignore_index=True)
        first = time.quantile(0.92, interpolation="nearest")
        second = time[time >= first].quantile(0.625, interpolation="nearest")
        return time[time < first].iloc[-1], time[time < second].iloc[-1]
    quantiles = (0.95, 0.97) if config["dataset"] == "ml-100k" else (0.7, 0.85)
    first, second = np.quantile(table["timestamp"].to_numpy(), quantiles)
    return first, second


def plain_events(table: pd.DataFrame, protocol: str, cuts: tuple[float, float]) -> dict[str, list[Event]]:
    """Validation and test events, interaction by interaction."""
    first, second = cuts
    events: dict[str, list[Event]] = {"valid": [], "test": []}
    trained = set()
    for user, rows in table.groupby("user_id"):
        rows = rows.sort_values("timestamp", kind="stable")
        items, times = rows["item_id"].tolist(), rows["timestamp"].tolist()
        for nth, (item, time) in enumerate(zip(items, times)):
            if protocol.startswith("temporal"):
                part = "train" if time <= first else "valid" if time <= second else "test"
            else:
                from_end = len(items) - 1 - nth
                part = {0: "test", 1: "valid"}.get(from_end, "train")
                # RecBole keeps the first target of a user for training, whatever else there is
                part = "train" if nth <= 1 else part
            if part == "train":
                trained.add(item)
            elif nth > 0:
                events[part].append(Event(user, items[:nth], item))
    if protocol.startswith("temporal"):
        events = {part: [event for event in found if event.item in trained] for part, found in events.items()}
    return events


def plain_metrics(events: list[Event], scores: Iterator[np.ndarray], mask: str, n_items: int) -> dict:
    """Metrics from whole rankings, one event after the other."""
    found: dict[str, list[float]] = {f"{name}@{k}": [] for name in METRICS[:-1] for k in TOPK}
    lists = []
    for event, score in zip(events, scores, strict=True):
        left_out = {"none": [], "all": event.history, "except_target": set(event.history) - {event.item}}[mask]
        score[[0, *left_out]] = -np.inf
        ranking = np.argsort(-score, kind="stable")
        lists.append([item for item in ranking[: max(TOPK)] if np.isfinite(score[item])])
        rank = int(np.flatnonzero(ranking == event.item)[0]) + 1
        for k in TOPK:
            hit = rank <= k and np.isfinite(score[event.item])
            found[f"hit@{k}"].append(float(hit))
            found[f"recall@{k}"].append(float(hit))
            found[f"ndcg@{k}"].append(1 / np.log2(rank + 1) if hit else 0.0)
            found[f"mrr@{k}"].append(1 / rank if hit else 0.0)
    result = {name: float(np.mean(values)) for name, values in found.items()}
    result |= {f"cov@{k}": len({item for ranking in lists for item in ranking[:k]}) / (n_items - 1) for k in TOPK}
    return result


def all_scores(model: torch.nn.Module, config: Config, events: list[Event]) -> Iterator[np.ndarray]:
    """Scores of all items for each event, from its user or from its newest items."""
    max_length = config["MAX_ITEM_LIST_LENGTH"]
    for first in range(0, len(events), 100):
        some = events[first : first + 100]
        batch = {"user_id": torch.tensor([event.user for event in some])}
        if max_length is not None:
            newest = [event.history[-max_length:] for event in some]
            padded = [items + [0] * (max_length - len(items)) for items in newest]
            batch |= {"item_id_list": torch.tensor(padded), "item_length": torch.tensor([*map(len, newest)])}
        with torch.no_grad():
            yield from model.full_sort_predict(Interaction(batch)).view(len(some), -1).double().numpy()


def evaluated(config: Config) -> Iterator[tuple[str, dict, pd.DataFrame, dict]]:
    """For both splits: metrics and results by user of ours, and the plain metrics, of a model with random weights.

    In float64, in which no two items are as good as each other and the order of sums does not matter.
    """
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    table = dataset.inter_feat[["user_id", "item_id", "timestamp"]].copy()
    train_data, *held_out = data_preparation(config, dataset)
    torch.manual_seed(3)
    model = config.model_class(config, train_data._dataset)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter)
    if config["model"] != "MultiVAE":  # which makes its input of float32 by itself
        model.double()
    model.eval()
    trainer = trainer_class(config)(config, model)
    assert isinstance(trainer, EngineMixin)
    trainer.eval_collector.data_collect(train_data)
    events = plain_events(table, config["protocol"], plain_cuts(config, table))
    for (part, found), loader in zip(events.items(), held_out):
        metrics, users = trainer.evaluate_users(loader, load_best_model=False)
        plain = plain_metrics(found, all_scores(model, config, found), config["mask_history"], dataset.item_num)
        assert len(users) == len(found) > 0
        histories = sorted((dataset.id2token("user_id", event.user), len(event.history)) for event in found)
        assert sorted(zip(users["user"], users["history_length"])) == histories
        assert users["seen"].sum() == sum(event.item in event.history for event in found)
        yield part, dict(metrics), users, plain


KNOWLEDGE_GRAPH = {
    "inter": ["user_id", "item_id", "timestamp"],
    "kg": ["head_id", "relation_id", "tail_id"],
    "link": ["item_id", "entity_id"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "model"),
    [
        *itertools.product(["leave_one_out_masked", "temporal"], ["PosKernelSASRec", "BPR", "CKE"]),
        *itertools.product(["temporal_paper"], ["PosKernelSASRec", "BPR"]),
    ],
)
def test_real_data_are_evaluated_as_in_numpy(protocol: str, model: str) -> None:
    settings = {"protocol": protocol, "metrics": METRICS, "topk": TOPK, "metric_decimal_place": 12}
    settings |= {"load_col": KNOWLEDGE_GRAPH} if model == "CKE" else {"normalize_all": False}
    settings |= {"hidden_size": 16, "n_layers": 1} if model == "PosKernelSASRec" else {}
    config = Config(model, "ml-100k", config_dict={**settings, "valid_metric": "ndcg@10", "use_gpu": False})
    for _, metrics, _, plain in evaluated(config):
        assert metrics == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("mask", ["none", "all", "except_target"])
@pytest.mark.parametrize("model", ["PosKernelSASRec", "GRU4Rec", "BPR", "MultiVAE"])
@pytest.mark.parametrize("protocol", ["leave_one_out", "temporal"])
def test_every_way_of_masking_is_that_of_numpy(tiny_settings: Callable, protocol: str, model: str, mask: str) -> None:
    """On data in which users repeat items, so that a target may be in its own history."""
    changes = {"mask_history": mask, "metrics": METRICS, "topk": TOPK, "metric_decimal_place": 12}
    if protocol == "temporal":
        changes["eval_args"] = {"split": {"TQ": [0.7, 0.85]}, "order": "TO", "group_by": "none", "mode": "full"}
    settings = tiny_settings(protocol=protocol, valid_metric="ndcg@10", use_gpu=False, **changes)
    for _, metrics, users, plain in evaluated(Config(model, "tiny", config_dict=settings)):
        assert metrics == pytest.approx(plain, abs=1e-9)
        assert 0 < users["seen"].mean() < 1
        assert (users["rank"].isna() == (users["seen"] & (mask == "all"))).all()
        for name, value in metrics.items():
            if not name.startswith("cov"):
                assert metric_by_target(users, name).mean() == pytest.approx(value, abs=1e-9)


@pytest.mark.slow
def test_all_models_answer_for_the_same_targets(tiny_settings: Callable) -> None:
    """Trained and saved, among them one that has equal scores for many items."""
    tables = []
    for model in ("Pop", "BPR", "SASRec", "NoPESASRec"):
        changes = {"train_neg_sample_args": None} if model == "SASRec" else {}
        settings = tiny_settings(protocol="leave_one_out_masked", topk=[5], valid_metric="NDCG@5", **changes)
        result = run(model, "tiny", config_dict=settings)
        users = pd.read_parquet(result["checkpoint"].replace("best.pth", USERS_NAME))
        assert metric_by_target(users, "NDCG@5").mean() == pytest.approx(result["test_result"]["ndcg@5"], abs=1e-4)
        assert result["seen_targets"] == users["seen"].mean()
        tables.append(users.drop(columns="rank").sort_values(["user", "history_length"]).reset_index(drop=True))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_leave_one_out_is_recboles_for_sequential_models(tiny_settings: Callable) -> None:
    settings = tiny_settings(metrics=["Hit", "NDCG"], topk=[3], valid_metric="NDCG@3")
    recboles = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}}
    found = [
        run("PosKernelSASRec", "tiny", config_dict={**settings, **changes}, saved=False)
        for changes in (recboles, {"protocol": "leave_one_out"})
    ]
    assert found[0]["test_result"] == found[1]["test_result"]
    assert [epoch["loss"] for epoch in found[0]["curve"]] == [epoch["loss"] for epoch in found[1]["curve"]]
    assert found[0]["seen_targets"] is None and 0 < found[1]["seen_targets"] < 1


def test_metrics_of_targets_have_a_cut_off() -> None:
    table = pd.DataFrame({"rank": pd.array([1, 3, None, 11], dtype="Int64")})
    assert metric_by_target(table, "NDCG@10").tolist() == [1.0, 0.5, 0.0, 0.0]
    assert metric_by_target(table, "Hit@20").tolist() == [1.0, 1.0, 0.0, 1.0]
    for metric in ("NDCG", "GAUC@10", "hit@all"):
        with pytest.raises(ValueError, match="metric must be one of hit, recall, mrr, ndcg"):
            metric_by_target(table, metric)
