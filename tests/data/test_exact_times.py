"""Interactions are ordered and split by the times of the file, which RecBole rounds to 32 bits before it sorts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data import create_dataset, data_preparation

from recbole_posattn import Config
from recbole_posattn.training.load import prepare_data

START = 1_600_000_000  # in steps of 128 s as a 32-bit float

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"}
RATIOS = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full", "group_by": "user"}
TIME_BOUNDARY = {"split": {"TS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full", "group_by": "user"}


@pytest.fixture
def backwards(tmp_path: Path) -> Callable[..., dict]:
    """Settings for ``backwards``: 8 users, each with 6 interactions within a minute, the newest first in the file."""
    rows = [
        f"u{user}\ti{(user + step) % 9}\t{START + user + 10 * step}\t{step % 2}"
        for user in range(8)
        for step in reversed(range(6))
    ]
    folder = tmp_path / "data" / "backwards"
    folder.mkdir(parents=True)
    header = "user_id:token\titem_id:token\ttimestamp:float\tlabel:float"
    (folder / "backwards.inter").write_text("\n".join([header, *rows, ""]))
    common = {"data_path": str(folder.parent), "show_progress": False, "load_col": None, "MAX_ITEM_LIST_LENGTH": 4}
    return lambda **settings: {**common, "eval_args": LEAVE_ONE_OUT, **settings}


def targets(part: object) -> dict[str, str]:
    """The item of each user's row in a held-out part."""
    dataset, rows = part._dataset, part._dataset.inter_feat
    tokens = (dataset.id2token(field, rows[field].numpy()) for field in (dataset.uid_field, dataset.iid_field))
    return dict(zip(*tokens))


MODELS = {
    "PosKernelSASRec": {},
    "GRU4Rec": {"train_neg_sample_args": None},
    "written out by RecBole": {"model": "GRU4Rec", "train_neg_sample_args": None, "lazy_prefixes": False},
    "DIEN": {"eval_args": {**LEAVE_ONE_OUT, "mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
    "BPR": {},
    "BPR, masked": {"model": "BPR", "mask_history": "all"},
    "FM": {"eval_args": {**LEAVE_ONE_OUT, "mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_last_interaction_is_held_out(backwards: Callable, name: str, scaled: bool) -> None:
    settings = {"model": name, **MODELS[name], "normalize_field": ["timestamp"] if scaled else None}
    config = Config(dataset="backwards", config_dict=backwards(**settings))
    _, (train, valid, test) = prepare_data(config)
    assert targets(test) == {f"u{user}": f"i{(user + 5) % 9}" for user in range(8)}
    assert targets(valid) == {f"u{user}": f"i{(user + 4) % 9}" for user in range(8)}
    for part in (train, valid, test):  # what a model sees is what RecBole gives it
        rows = part._dataset.inter_feat
        times = [rows[field] for field in rows if "timestamp" in field]
        assert times and all(value.dtype == torch.float32 for value in times)


@pytest.mark.parametrize("eval_args", [RATIOS, TIME_BOUNDARY], ids=["ratios", "time boundary"])
def test_histories_are_in_time_order(backwards: Callable, eval_args: dict) -> None:
    config = Config("GRU4Rec", "backwards", config_dict=backwards(eval_args=eval_args, train_neg_sample_args=None))
    dataset = create_dataset(config)
    for part in data_preparation(config, dataset):
        for row in part._dataset[torch.arange(len(part._dataset))].interaction["item_id_list"]:
            steps = [int(token[1:]) for token in dataset.id2token("item_id", row[row > 0].numpy())]
            assert np.all(np.diff(steps) % 9 == 1)


def test_quantiles_of_times_are_of_the_exact_ones(backwards: Callable) -> None:
    eval_args = {"split": {"TQ": [0.5, 0.75]}, "order": "TO", "mode": "full"}
    settings = backwards(model="PosKernelSASRec", eval_args=eval_args, mask_history="all")
    _, (train, valid, test) = prepare_data(Config(dataset="backwards", config_dict=settings))
    seconds = np.array([user + 10 * step for user in range(8) for step in range(6)])
    cuts = np.quantile(seconds, [0.5, 0.75])
    n_later = [int(((seconds > low) & (seconds <= high)).sum()) for low, high in zip(cuts, [cuts[1], np.inf])]
    assert [len(valid._dataset.inter_feat), len(test._dataset.inter_feat)] == n_later
    assert len(train._dataset.inter_feat) == len(seconds) - 8 - sum(n_later)  # a user's first is no target
