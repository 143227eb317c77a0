"""Blockwise collection against RecBole's own collector and evaluator, to the last digit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.evaluator import Collector, Evaluator
from recbole.utils import init_seed

from recbole_posattn import Config
from recbole_posattn.data import loaders
from recbole_posattn.evaluation.collector import BlockwiseCollector, list_rank, mean_rank
from recbole_posattn.training.load import prepare_data
from recbole_posattn.training.trainer import trainer_class

RANKING = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP", "GAUC"]
BEYOND_ACCURACY = ["ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"]
USER_SPLIT = {"split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user", "order": "RO"}


class RecBolesCollector(Collector):
    """RecBole's, but values from the training data need not be tensors to be returned."""

    def get_data_struct(self):
        values = {key: value for key, value in self.data_struct._data_dict.items() if key.startswith("data.")}
        if "data.label" not in values:
            for key in values:
                del self.data_struct[key]
        struct = super().get_data_struct()
        for key, value in values.items():
            struct.set(key, value)
            self.data_struct.set(key, value)
        return struct


def results(config: Config) -> list[dict]:
    """What an untrained model scores by our collector and by RecBole's."""
    init_seed(config["seed"], config["reproducibility"])
    _, (train_data, _, test_data) = prepare_data(config)
    model = config.model_class(config, train_data._dataset)
    trainer = trainer_class(config)(config, model)
    found = []
    for collector in (trainer.eval_collector, RecBolesCollector(config)):
        trainer.eval_collector = collector
        collector.data_collect(train_data)
        init_seed(0, True)  # negatives of a sampled evaluation
        found.append(dict(trainer.evaluate(test_data, load_best_model=False)))
        assert isinstance(trainer.evaluator, Evaluator) and found[-1]
    return found


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("PosKernelSASRec", {"metrics": RANKING}),
        ("PosKernelSASRec", {"metrics": [*BEYOND_ACCURACY, "NDCG"]}),
        ("GRU4Rec", {"metrics": RANKING, "eval_batch_size": 9}),
        ("BPR", {"metrics": RANKING, "eval_args": {**USER_SPLIT, "mode": "full"}}),
        ("BPR", {"metrics": RANKING, "eval_args": {**USER_SPLIT, "mode": "uni4"}, "eval_batch_size": 60}),
        ("BPR", {"metrics": ["AUC", "LogLoss"], "eval_args": {**USER_SPLIT, "mode": "uni4"}, "valid_metric": "AUC"}),
    ],
)
def test_results_are_recboles(tiny_settings: Callable, model: str, changes: dict) -> None:
    config = Config(
        model,
        "tiny",
        config_dict={**tiny_settings(metric_decimal_place=12, valid_metric="NDCG@7", topk=[3, 7]), **changes},
    )
    ours, recboles = results(config)
    assert ours == recboles and any(0 < value < 1 for value in ours.values())


def test_results_on_real_data_are_recboles() -> None:
    config = Config("PosKernelSASRec", "ml-100k", config_dict={"metrics": RANKING, "metric_decimal_place": 12})
    ours, recboles = results(config)
    assert ours == recboles and 0 < ours["ndcg@10"] < 1


@given(scores=st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=5), data=st.data())
def test_ranks_with_ties_are_recboles(scores: list[list[int]], data: st.DataObject) -> None:
    """Scores of few values; the padding item's is −∞, as in RecBole's evaluation."""
    table = torch.tensor(scores, dtype=torch.float32)
    table[:, 0] = -torch.inf
    positives = [data.draw(st.sets(st.integers(1, 5), min_size=1, max_size=4)) for _ in scores]
    user = torch.tensor([row for row, items in enumerate(positives) for _ in items])
    item = torch.tensor([item for items in positives for item in items])
    config = Config("Pop", "ml-100k", config_dict={"metrics": ["GAUC"], "valid_metric": "GAUC", "topk": [3]})
    rows = []
    for collector in (BlockwiseCollector(config), Collector(config)):
        collector.eval_batch_collect(table, None, user, item)
        rows.append(collector.get_data_struct().get("rec.meanrank"))
    assert torch.equal(*rows)


def test_a_score_that_is_no_number_has_no_rank() -> None:
    """As in RecBole's metrics, in which such an item is no hit, although torch.topk lists it first."""
    scores = torch.tensor([[0.1, torch.nan, 0.3, -torch.inf]])
    best = torch.topk(scores, 2).indices
    rank = list_rank(scores, best, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert rank[[1, 3]].tolist() == [0, 0] and rank[2] == 2


def test_ranks_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scores = torch.randn(20, 30)
    user, item = torch.randint(20, (50,)), torch.randint(30, (50,))
    whole = mean_rank(scores, user, item)
    monkeypatch.setattr("recbole_posattn.evaluation.collector._COMPARISONS", 100)
    assert torch.equal(mean_rank(scores, user, item), whole)
    assert torch.equal(whole, (scores[user] > scores[user, item][:, None]).sum(dim=1) + 1.0)


def test_a_batch_has_no_more_scores_than_fit(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the metrics do not depend on how the users are batched."""
    found = []
    for most in (2**24, 21 * 7):
        monkeypatch.setattr(loaders, "SCORES_PER_BATCH", {"cpu": most})
        config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings())
        init_seed(config["seed"], config["reproducibility"])
        _, (train_data, _, test_data) = prepare_data(config)
        assert next(len(batch) for batch, *_ in test_data) == (len(test_data._dataset) if most > 1000 else 7)
        trainer = trainer_class(config)(config, config.model_class(config, train_data._dataset))
        found.append(dict(trainer.evaluate(test_data, load_best_model=False)))
    assert found[0] == found[1] and found[0]["hit@10"] > 0
