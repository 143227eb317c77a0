"""Cutting windows against a plain-Python reading of what they must be."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.data.windows import cut_windows, lay_out


def prefixes(sequence: list[int], first_target: int, max_length: int) -> list[tuple[list[int], int]]:
    """(history, target) for the targets from ``first_target`` on, as RecBole augments a sequence."""
    return [(sequence[max(0, t - max_length) : t], sequence[t]) for t in range(first_target, len(sequence))]


class Cut(NamedTuple):
    """All windows, as they are served."""

    item_list: torch.Tensor
    item_length: torch.Tensor
    target: torch.Tensor
    target_row: torch.Tensor


def cut(rows: list[tuple[int, list[int], int]], max_length: int, stride: int | None = None) -> Cut:
    """Windows of rows (user, history, target)."""
    history = torch.tensor([item for _, items, _ in rows for item in items])
    user, target = (torch.tensor([row[column] for row in rows]) for column in (0, 2))
    length = torch.tensor([len(items) for _, items, _ in rows])
    item, position = lay_out(user, history, length, target, max_length)
    windows = cut_windows(item, position, length, max_length, stride or max_length)
    return Cut(*windows.gather(torch.arange(len(windows)), max_length))


def check(windows: Cut, rows: list[tuple[int, list[int], int]], max_length: int) -> None:
    """Every row once; the window's items up to a label are the newest part of its row's history."""
    labelled = windows.target_row >= 0
    assert sorted(windows.target_row[labelled].tolist()) == list(range(len(rows)))
    assert labelled.any(dim=1).all() and (windows.target[~labelled] == 0).all()
    for items, length, targets, target_rows in zip(*windows):
        assert 1 <= length <= max_length
        assert (items[:length] > 0).all() and (items[length:] == 0).all() and (target_rows[length:] < 0).all()
        for position, row in enumerate(target_rows.tolist()):
            if row >= 0:
                _, history, target = rows[row]
                seen = items[: position + 1].tolist()
                assert seen == history[-len(seen) :] and targets[position] == target


sequences = st.lists(st.integers(1, 9), min_size=2, max_size=30)


@given(users=st.lists(sequences, min_size=1, max_size=5), max_length=st.integers(1, 8), seed=st.integers(0, 99))
def test_each_row_is_a_label_once_with_its_own_history(users: list[list[int]], max_length: int, seed: int) -> None:
    by_user = [[(u, *row) for row in prefixes(items, 1, max_length)] for u, items in enumerate(users)]
    rows = interleave(by_user, seed)
    windows = cut(rows, max_length)
    check(windows, rows, max_length)
    # no more windows than needed: ⌈targets / L⌉ a user
    assert len(windows.target) == sum(-(-len(own) // max_length) for own in by_user)


@given(items=sequences, first=st.integers(1, 29), max_length=st.integers(1, 8))
def test_split_that_starts_inside_a_sequence_keeps_its_context(items: list[int], first: int, max_length: int) -> None:
    first = min(first, len(items) - 1)
    rows = [(0, *row) for row in prefixes(items, first, max_length)]
    windows = cut(rows, max_length)
    check(windows, rows, max_length)
    if len(items) - 1 <= max_length:  # all in one window: each label sees its whole history
        (window,) = windows.target_row
        for position, row in enumerate(window.tolist()):
            if row >= 0:
                assert windows.item_list[0, : position + 1].tolist() == rows[row][1]


@given(rows=st.lists(st.tuples(st.integers(0, 2), sequences, st.integers(1, 9)), min_size=1, max_size=12))
def test_rows_that_do_not_continue_each_other_stand_alone(rows: list[tuple[int, list[int], int]]) -> None:
    """Session files (``benchmark_filename``) give ready-made rows in any order."""
    check(cut(rows, 30), rows, 30)


def test_windows_are_cut_from_the_newest_item_backwards() -> None:
    rows = [(0, *row) for row in prefixes([1, 2, 3, 4, 5, 6, 7, 8], 1, 3)]
    windows = cut(rows, 3)
    assert {tuple(items) for items in windows.item_list.tolist()} == {(1, 0, 0), (2, 3, 4), (5, 6, 7)}
    assert {tuple(row) for row in windows.target_row.tolist()} == {(0, -1, -1), (1, 2, 3), (4, 5, 6)}


@given(
    users=st.lists(sequences, min_size=1, max_size=4),
    first=st.integers(1, 12),
    max_length=st.integers(1, 8),
    data=st.data(),
)
def test_overlapping_windows_give_each_label_more_context(
    users: list[list[int]], first: int, max_length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, max_length))
    by_user = [
        [(u, *row) for row in prefixes(items, min(first, len(items) - 1), max_length)] for u, items in enumerate(users)
    ]
    rows = interleave(by_user, 0)
    windows = cut(rows, max_length, stride)
    check(windows, rows, max_length)
    for target_rows in windows.target_row.tolist():
        for position, row in enumerate(target_rows):
            if row >= 0:
                assert position + 1 >= min(len(rows[row][1]), max_length - stride + 1)


def test_a_stride_of_one_gives_each_label_its_whole_history() -> None:
    rows = [(0, *row) for row in prefixes([1, 2, 3, 4, 5, 6, 7, 8], 1, 3)]
    windows = cut(rows, 3, stride=1)
    assert windows.item_list.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6, 7]]
    assert windows.target_row.tolist() == [[0, 1, 2], [-1, -1, 3], [-1, -1, 4], [-1, -1, 5], [-1, -1, 6]]


def interleave(by_user: list[list[tuple]], seed: int) -> list[tuple]:
    """Rows of all users shuffled together, each user's own order kept, as a split by time leaves them."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.tensor([u for u, rows in enumerate(by_user) for _ in rows])
    queues = [iter(rows) for rows in by_user]
    return [next(queues[u]) for u in owners[torch.randperm(len(owners), generator=generator)].tolist()]
