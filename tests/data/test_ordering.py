"""Orders by counting against NumPy's stable sort."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.data.ordering import grouped, sequence_order, stable_argsort
from recbole_posattn.data.splits import GroupedRows, leave_out_last

TIMES = st.one_of(st.floats(allow_nan=True, width=64), st.integers(-3, 3).map(float), st.just(-0.0))


@given(st.lists(st.integers(0, 200), max_size=60))
def test_grouped_rows_keep_their_order(numbers: list[int]) -> None:
    number = np.array(numbers, dtype=np.int64)
    assert grouped(number).tolist() == np.argsort(number, kind="stable").tolist()


@given(st.lists(TIMES, max_size=60), st.sampled_from([np.float64, np.float32]))
def test_floats_are_sorted_as_by_numpy(times: list[float], kind: type) -> None:
    with np.errstate(over="ignore"):
        key = np.array(times).astype(kind)
    assert stable_argsort(key).tolist() == np.argsort(key, kind="stable").tolist()


@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-2, 2)), max_size=60))
def test_integers_are_sorted_as_by_numpy(numbers: list[int]) -> None:
    key = np.array(numbers, dtype=np.int64)
    assert stable_argsort(key).tolist() == np.argsort(key, kind="stable").tolist()
    assert stable_argsort(key.astype(bool)).tolist() == np.argsort(key.astype(bool), kind="stable").tolist()


@given(st.lists(st.tuples(st.integers(0, 5), TIMES), max_size=60))
def test_sequences_are_ordered_as_by_two_stable_sorts(rows: list[tuple[int, float]]) -> None:
    user = np.array([user for user, _ in rows], dtype=np.int64)
    time = np.array([time for _, time in rows])
    by_time = np.argsort(time, kind="stable")
    assert sequence_order(user, time).tolist() == by_time[np.argsort(user[by_time], kind="stable")].tolist()


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 2))
def test_the_last_rows_of_groups_are_left_out_as_by_recbole(keys: list[int], n_left_out: int) -> None:
    expected: list[list[int]] = [[] for _ in range(n_left_out + 1)]
    for key in dict.fromkeys(keys):
        rows = [row for row, other in enumerate(keys) if other == key]
        n_parts = min(n_left_out, len(rows) - 1)
        expected[0] += rows[: len(rows) - n_parts]
        for part in range(n_parts):
            expected[n_left_out - n_parts + 1 + part].append(rows[len(rows) - n_parts + part])
    key = torch.tensor(keys, dtype=torch.int64)
    assert [part.tolist() for part in leave_out_last(key, n_left_out)] == expected
    of_groups = GroupedRows.by(key)
    assert of_groups.row.tolist() == [
        row for key in dict.fromkeys(keys) for row in range(len(keys)) if keys[row] == key
    ]
