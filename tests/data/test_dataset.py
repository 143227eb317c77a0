"""The two training objectives on RecBole's own splits of the tiny data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.utils import init_seed

from recbole_posattn import Config
from recbole_posattn.data.dataset import SequenceDataset
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.data.prefixes import PrefixColumn

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"}
GLOBAL_TIME = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full", "group_by": "none"}
TIME_BOUNDARY = {"split": {"TS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full", "group_by": "user"}
SPLITS = {"leave one out": LEAVE_ONE_OUT, "global time": GLOBAL_TIME, "time boundary": TIME_BOUNDARY}
splits = pytest.mark.parametrize("eval_args", SPLITS.values(), ids=SPLITS)

MAX_LENGTH = 10  # users have up to 24 interactions


def prepare(settings: dict) -> tuple:
    config = Config("PosKernelSASRec", "tiny", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return config, dataset, data_preparation(config, dataset)


def triples(loader: object, index: torch.Tensor) -> Counter:
    """(user, target item, target time) of rows of a training split."""
    rows = loader._dataset.inter_feat
    columns = (rows["user_id"][index], rows["item_id"][index], rows["timestamp"][index])
    return Counter(zip(*(column.tolist() for column in columns)))


@splits
def test_both_objectives_train_on_the_same_targets_once_an_epoch(tiny_settings: Callable, eval_args: dict) -> None:
    _, _, (sequence, _, _) = prepare(tiny_settings(eval_args=eval_args, train_objective="sequence"))
    _, _, (augmented, _, _) = prepare(tiny_settings(eval_args=eval_args, train_objective="augmented"))

    from_prefixes = Counter()
    for batch in augmented:
        from_prefixes += Counter(zip(*(batch[field].tolist() for field in ("user_id", "item_id", "timestamp"))))
    labels = Counter()
    for batch in sequence:
        user = batch["user_id"][:, None].expand_as(batch[TARGET_LIST_FIELD])
        given = batch[TARGET_LIST_FIELD] > 0
        labels += Counter(zip(user[given].tolist(), batch[TARGET_LIST_FIELD][given].tolist()))
    assert labels == Counter((user, item) for user, item, _ in from_prefixes.elements())

    windows = sequence._dataset.windows
    _, length, labels, row = windows.gather(torch.arange(len(windows)), MAX_LENGTH)
    assert triples(sequence, row[row >= 0]) == from_prefixes
    assert sum(from_prefixes.values()) > 100 and max(length) == MAX_LENGTH < len(windows)
    # what is served as a label is what the row says
    items = sequence._dataset.inter_feat["item_id"]
    assert torch.equal(labels[row >= 0], items[row[row >= 0]]) and (labels[row < 0] == 0).all()
    served = sequence._dataset[torch.arange(len(windows))]
    assert torch.equal(served[TARGET_LIST_FIELD], labels)


@splits
@pytest.mark.parametrize("changes", [{"lazy_prefixes": False}, {"window_stride": 4}], ids=["eager", "overlapping"])
def test_labels_do_not_depend_on_how_windows_are_made(tiny_settings: Callable, eval_args: dict, changes: dict) -> None:
    labels = []
    for settings in ({}, changes):
        _, _, (sequence, _, _) = prepare(tiny_settings(eval_args=eval_args, **settings))
        dataset = sequence._dataset
        _, length, _, row = dataset.windows.gather(torch.arange(len(dataset.windows)), MAX_LENGTH)
        labels.append((triples(sequence, row[row >= 0]), sorted(length.tolist())))
    assert labels[0][0] == labels[1][0]
    assert (labels[0][1] == labels[1][1]) == ("lazy_prefixes" in changes)


@splits
def test_labels_are_the_next_items(tiny_settings: Callable, eval_args: dict) -> None:
    _, _, (sequence, _, _) = prepare(tiny_settings(eval_args=eval_args))
    for batch in sequence:
        items, labels, length = batch["item_id_list"], batch[TARGET_LIST_FIELD], batch["item_length"]
        inside = torch.arange(MAX_LENGTH - 1) < (length - 1)[:, None]
        assert (labels[:, :-1] == items[:, 1:])[inside & (labels[:, :-1] > 0)].all()


@splits
@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_evaluation_rows_are_recboles_own(tiny_settings: Callable, eval_args: dict, objective: str) -> None:
    config, _, (_, *ours) = prepare(tiny_settings(eval_args=eval_args, train_objective=objective))
    _, *recboles = SequentialDataset(config).build()
    for split, reference in zip(ours, recboles):
        rows = split._dataset.inter_feat
        assert len(rows) > 0 and rows.columns == reference.inter_feat.columns
        for field in rows.columns:
            column = rows[field]
            whole = column.tensor() if isinstance(column, PrefixColumn) else column
            assert torch.equal(whole, reference.inter_feat[field]), field


def test_counts_and_popularity_are_those_of_the_rows(tiny_settings: Callable) -> None:
    """RecBole's evaluator asks the training split for item counts."""
    _, _, (train, _, _) = prepare(tiny_settings())
    assert isinstance(train._dataset, SequenceDataset)
    assert train._dataset.inter_num == sum(train._dataset.item_counter.values()) > len(train._dataset)
