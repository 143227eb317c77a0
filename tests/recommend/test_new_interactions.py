"""New interactions of known users, without reading the data set again."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.data.histories import Histories
from recbole_posattn.errors import CheckpointError, DataError
from recbole_posattn.serving.recommender import Recommender
from recbole_posattn.serving.requests import Requests
from recbole_posattn.serving.user_histories import UserHistories


def requests_of(items_of: dict[str, list[int]]) -> Requests:
    count = torch.tensor([len(items) for items in items_of.values()], dtype=torch.int64)
    item = torch.tensor([item for items in items_of.values() for item in items], dtype=torch.int64)
    start = count.cumsum(0) - count
    return Requests(
        np.array(list(items_of), dtype=object),
        torch.arange(len(items_of)),
        Histories(item, start, start + count, 1.5 * item.double()),
    )


def read(requests: Requests) -> dict[str, list[int]]:
    row, item = requests.histories.flat()
    return {user: item[row == place].tolist() for place, user in enumerate(requests.user)}


ITEMS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(
    first=st.dictionaries(st.sampled_from("abcdef"), ITEMS, min_size=1),
    later=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), ITEMS, min_size=1), max_size=6),
)
def test_histories_are_those_of_plain_lists(first: dict[str, list[int]], later: list[dict[str, list[int]]]) -> None:
    """However often the store is full; requests made before do not change."""
    expected = {user: list(items) for user, items in first.items()}
    store = UserHistories(requests_of(first))
    kept = [(store.requests(), {user: list(items) for user, items in expected.items()})]
    for new in later:
        store.append(requests_of(new))
        for user, items in new.items():
            expected.setdefault(user, []).extend(items)
        kept.append((store.requests(), {user: list(items) for user, items in expected.items()}))
    for requests, then in kept:
        assert read(requests) == then
        histories = requests.histories
        times = Histories(histories.time, histories.start, histories.position).flat()[1]
        assert torch.equal(times, 1.5 * histories.flat()[1])
    some = sorted(expected)[::2]
    requests = store.requests([*some, "nobody", *some])
    assert read(requests) == {user: expected[user] for user in some}
    assert "nobody" in requests.skipped[0]
    assert (requests.user_id is None) == any(user not in first for user in some)


@pytest.mark.parametrize("changes", [{}, {"data_cache": "cache"}], ids=str)
def test_lists_are_those_of_the_whole_history(untrained: Callable, changes: dict) -> None:
    """As if the data set had the new interactions; users may be new."""
    recommender = Recommender(untrained("PosKernelSASRec", mask_history="all", **changes))
    dataset = recommender.loaded.dataset
    before = recommender.known_users(["u1", "u2"])
    histories = {user: dataset.id2token("item_id", items).tolist() for user, items in read(before).items()}
    new = {"u1": ["i3", "i5", "i7"], "stranger": ["i2", "i4"]}
    rows = pd.DataFrame(
        {
            "user": ["stranger", "u1", "u1", "u1", "stranger"],
            "item": ["i4", "i7", "i3", "i5", "i2"],
            "time": [9, 8, 1, 2, 3],
        }
    )
    recommender.add_interactions(rows)
    expected = recommender.recommend(
        {"u1": histories["u1"] + new["u1"], "u2": histories["u2"], "stranger": new["stranger"]}, 5
    )
    found = recommender.recommend_users(["u1", "u2", "stranger"], 5)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    assert len(recommender.known_users()) == 61
    assert recommender.recommend_users(split="test")["user"].nunique() == 60  # what was held out stays
    recommender.add_interactions({"u2": ["i1"]})
    assert read(recommender.known_users(["u2"]))["u2"][-1] == dataset.token2id("item_id", "i1")


def test_what_is_unknown_is_skipped_and_named(untrained: Callable, caplog: pytest.LogCaptureFixture) -> None:
    recommender = Recommender(untrained("BPR"))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        recommender.add_interactions({"u1": ["i1", "x"], "stranger": ["i2"]})
    assert [record.message for record in caplog.records] == [
        "1 of 3 interactions have an item that the model does not know, skipped: x",
        "1 of 2 users are not in the data, skipped: stranger",
    ]
    number = recommender.loaded.dataset.token2id("item_id", "i1")
    requests = recommender.known_users(["u1"])
    assert read(requests)["u1"][-1] == number and requests.user_id is not None
    assert "i1" not in recommender.recommend_users(["u1"], k=3)["item"].tolist()
    with pytest.raises(DataError, match="no history has an item that the model knows"):
        recommender.add_interactions({"u1": ["x"]})


@pytest.mark.parametrize("model", ["FPMC", "HGN"])
def test_a_model_of_users_and_histories_needs_known_users(model: str, untrained: Callable) -> None:
    """A stranger among the new interactions is skipped, and everybody else is served."""
    lines: list[str] = []
    recommender = Recommender(untrained(model), report=lines.append)
    recommender.add_interactions({"u1": ["i1"], "stranger": ["i2"]})
    assert lines == ["1 of 2 users are not in the data, skipped: stranger"]
    users = recommender.recommend_users(k=2)["user"]
    assert len(users) == 2 * len(recommender.known_users()) and "stranger" not in set(users)
    with pytest.raises(DataError, match="1 of 1 users are not in the data, skipped: stranger"):
        recommender.recommend_users(["stranger"], k=2)
    with pytest.raises(CheckpointError, match=f"{model} reads user_id"):
        recommender.recommend({"stranger": ["i2"]}, k=2)


def test_strangers_alone_are_skipped_by_a_model_without_histories(untrained: Callable) -> None:
    lines: list[str] = []
    recommender = Recommender(untrained("BPR"), report=lines.append)
    recommender.add_interactions({"stranger": ["i1"]})
    assert lines == ["1 of 1 users are not in the data, skipped: stranger"]
    assert len(recommender.recommend_users(["u1"], k=3)) == 3
