"""Batches cut to shorter histories: nothing but padding goes, and the groups are the cheapest."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.data.shorter import HistoryCutter, group_ends, spread_over_lengths, targets_per_row

L = 8
lengths = st.lists(st.integers(1, L), min_size=1, max_size=12)


def cutter(features: tuple[str, ...] = ()) -> HistoryCutter:
    config = {
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "MAX_ITEM_LIST_LENGTH": L,
        "LIST_SUFFIX": "_list",
        "INVERSE_ITEM_SEQ": "Inverse_item_id_list",
        "POS_ITEMS": "Pos_item_id",
        "NEG_ITEMS": "Neg_item_id",
    }
    return HistoryCutter(config, SimpleNamespace(user_feat=None, item_feat=dict.fromkeys(features)))


def batch_of(length: list[int], seed: int = 0) -> Interaction:
    """Rows with every kind of column that RecBole's batches have."""
    n_rows, rng = len(length), np.random.default_rng(seed)
    behind = np.arange(L) >= np.array(length)[:, None]
    items = np.where(behind, 0, rng.integers(1, 99, (n_rows, L)))
    masked = [np.flatnonzero(rng.random(each) < 0.3)[:3] for each in length]
    in_front = [[0] * (3 - len(each)) for each in masked]
    return Interaction(
        {
            "user_id": torch.arange(n_rows),
            "item_length": torch.tensor(length),
            "item_id_list": torch.from_numpy(items),
            "class_list": torch.from_numpy(np.where(behind[..., None], 0, rng.integers(1, 9, (n_rows, L, 2)))),
            "Inverse_item_id_list": torch.tensor(
                [[0] * (L - each) + row[:each].tolist() for each, row in zip(length, items)]
            ),
            "MASK_INDEX": torch.tensor([[*front, *each] for front, each in zip(in_front, masked)]),
            "Pos_item_id": torch.tensor([[*f, *row[m]] for f, m, row in zip(in_front, masked, items)]),
            "Neg_item_id": torch.tensor([[*f, *(row[m] + 1)] for f, m, row in zip(in_front, masked, items)]),
            "tags_list": torch.from_numpy(rng.integers(0, 9, (n_rows, L))),
        }
    )


def cost(n_rows: np.ndarray, ends: tuple[int, ...], group_cost: float) -> float:
    begins = (-1, *ends[:-1])
    return sum(n_rows[begin + 1 : end + 1].sum() * end + group_cost for begin, end in zip(begins, ends))


@given(lengths, st.sampled_from([0.5, 3.0, 20.0, 1000.0]))
def test_no_other_groups_cost_less(length: list[int], group_cost: float) -> None:
    n_rows = np.bincount(length)
    ends = tuple(group_ends(n_rows, group_cost))
    assert ends[-1] == max(length) and all(n_rows[end] for end in ends)
    present = sorted(set(length))
    others = [
        (*some, present[-1]) for size in range(len(present)) for some in itertools.combinations(present[:-1], size)
    ]
    assert cost(n_rows, ends, group_cost) == pytest.approx(min(cost(n_rows, other, group_cost) for other in others))


def test_groups_of_no_rows_are_none() -> None:
    assert len(group_ends(np.zeros(0, dtype=np.int64), 1.0)) == 0


@given(lengths, st.booleans(), st.sampled_from([0.5, 20.0]))
def test_groups_divide_the_rows_that_count(length: list[int], by_targets: bool, group_cost: float) -> None:
    batch = batch_of(length)
    weights = targets_per_row(batch) if by_targets else torch.ones(len(length))
    groups = cutter().groups(batch, by_targets, group_cost)
    rows = torch.cat([group.rows for group in groups]).tolist() if groups else []
    assert sorted(rows) == torch.nonzero(weights).flatten().tolist()
    for group in groups:
        assert group.longest == batch["item_length"][group.rows].max()
        assert group.share == pytest.approx(float(weights[group.rows].sum() / weights.sum()))


@given(lengths, st.data())
def test_only_padding_is_cut(length: list[int], data: st.DataObject) -> None:
    batch = batch_of(length)
    before = {name: column.clone() for name, column in batch.interaction.items()}
    rows = data.draw(st.none() | st.lists(st.integers(0, len(length) - 1), min_size=1, unique=True).map(torch.tensor))
    kept = torch.arange(len(length)) if rows is None else rows
    longest = int(batch["item_length"][kept].max()) if rows is not None else None
    shorter = cutter(("tags_list",)).cut(batch, longest, rows)
    longest = int(batch["item_length"][kept].max())
    assert list(shorter.interaction) == list(before)
    for name in ("user_id", "item_length", "tags_list"):
        assert torch.equal(shorter[name], before[name][kept])
    for name in ("item_id_list", "class_list"):
        assert shorter[name].shape[1] == longest and shorter[name].is_contiguous()
        assert torch.equal(shorter[name], before[name][kept, :longest]) and not before[name][kept, longest:].any()
    name = "Inverse_item_id_list"
    assert torch.equal(shorter[name], before[name][kept, L - longest :]) and not before[name][kept, : L - longest].any()
    most = shorter["MASK_INDEX"].shape[1]
    for name in ("MASK_INDEX", "Pos_item_id", "Neg_item_id"):
        assert torch.equal(shorter[name], before[name][kept, 3 - most :]) and not before[name][kept, : 3 - most].any()
    assert most == 1 or bool(shorter["Pos_item_id"][:, 0].any())
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_targets_of_a_row() -> None:
    plain = Interaction({"item_id": torch.tensor([4, 5])})
    window = Interaction({"item_id": torch.tensor([4, 5]), TARGET_LIST_FIELD: torch.tensor([[3, 0, 2], [0, 0, 0]])})
    masked = Interaction({"item_id": torch.tensor([4, 5]), "MASK_INDEX": torch.tensor([[0, 2], [0, 0]])})
    assert [targets_per_row(batch).tolist() for batch in (plain, window, masked)] == [[1, 1], [2, 0], [1, 0]]


@given(lengths, st.integers(1, 15))
def test_rows_of_all_lengths(length: list[int], n_rows: int) -> None:
    of_rows: Tensor = torch.tensor(length)
    rows = spread_over_lengths(of_rows, n_rows)
    assert len(set(rows.tolist())) == len(rows) == min(n_rows, len(length))
    assert of_rows[rows].min() == min(length)
    assert n_rows == 1 or of_rows[rows].max() == max(length)
