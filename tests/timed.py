"""A data set whose users' items stand at irregular times, and a plain reading of the times before each target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_posattn import Config
from recbole_posattn.training.load import Loaded, prepare_data
from tests.planted import write_atomic_file

TIMED = "timed"
START = 1_700_000_000  # in steps of 128 s as a 32-bit float
TIME_BIAS = {"position_encoding": ["time_bias"]}

# Rows of user, item, seconds since START: an item occurs once with a user, so that it tells the time.
Rows = list[tuple[str, str, int]]


def timed_rows(n_users: int = 24, lengths: range = range(2, 14), n_items: int = 20, seed: int = 3) -> Rows:
    """Gaps of 0 s to 12 days; equal times, which keep the order of the file, are among them."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        items = rng.permutation(n_items)[: rng.choice(lengths)]
        seconds = np.cumsum(np.floor(10.0 ** rng.uniform(0, 6, len(items)) - 1)).astype(int) + int(rng.integers(10**6))
        rows += [(f"u{user}", f"i{item}", int(second)) for item, second in zip(items, seconds)]
    return rows


def write_timed(folder: Path, rows: Sequence[tuple[str, str, int]] | None = None) -> Path:
    """The data set ``timed``; returns the ``data_path``."""
    write_atomic_file(folder, TIMED, [(user, item, START + second) for user, item, second in rows or timed_rows()])
    return folder


def seconds_of(rows: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str], int]:
    """The second of each user's item."""
    return {(user, item): second for user, item, second in rows}


def assert_exact(batch: Any, dataset: Any, rows: Sequence[tuple[str, str, int]]) -> int:
    """The times of a batch are those of the file to the second, relative to the newest item; returns the histories."""
    seconds = seconds_of(rows)
    users = dataset.id2token("user_id", batch["user_id"].numpy())
    for user, items, length, times in zip(
        users, batch["item_id_list"], batch["item_length"].tolist(), batch["relative_time_list"].tolist()
    ):
        tokens = dataset.id2token("item_id", items[:length].numpy())
        expected = [seconds[str(user), str(token)] for token in tokens]
        assert times[:length] == [second - expected[-1] for second in expected]
        assert times[length:] == [0] * (len(times) - length)
    return len(users)


def loaded_timed(data_path: Path, model: str = "PosKernelSASRec", **changes: Any) -> Loaded:
    """What ``load`` gives, of a model with random weights on ``timed``, for settings given as keywords."""
    common = {"data_path": str(data_path), "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 16, "train_batch_size": 16}
    config = Config(model, TIMED, config_dict={**common, "show_progress": False, **changes}, command_line=[])
    dataset, loaders = prepare_data(config)
    torch.manual_seed(0)
    recommender = config.model_class(config, loaders[0]._dataset).eval()
    with torch.no_grad():
        for name, parameter in recommender.named_parameters():
            parameter.normal_(std=1.0 if "kernel" in name or "encoding" in name or ".branch." in name else 0.3)
    return Loaded(config, recommender, dataset, *loaders)
