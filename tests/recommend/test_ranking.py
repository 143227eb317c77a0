"""The best items of rows of scores against a stable sort of them all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn.serving import ranking
from recbole_posattn.serving.ranking import best_items


def sorted_whole(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    best, item = torch.sort(scores, dim=1, descending=True, stable=True)
    return best[:, :k], item[:, :k]


@given(
    n_items=st.integers(1, 60),
    n_values=st.integers(1, 40),
    chunk=st.sampled_from([1, 2, 3, 64]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_are_the_first_of_a_stable_sort(
    n_items: int, n_values: int, chunk: int, seed: int, data: st.DataObject
) -> None:
    """With few values, and so many equal ones, −∞ among them; in chunks and not."""
    k = data.draw(st.integers(1, n_items))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(n_values, (5, n_items), generator=generator).float()
    scores[scores == 0] = -math.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "CHUNK", chunk)
        best, item = best_items(scores, k)
    expected, expected_item = sorted_whole(scores, k)
    assert torch.equal(best, expected)
    there = best > -math.inf
    assert torch.equal(item[there], expected_item[there])


@pytest.mark.parametrize("n_items", [2816, 5000, 12102])
def test_large_catalogues_are_looked_at_by_chunks(n_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(20, n_items, generator=torch.Generator().manual_seed(0))
    scores[3, 7:9] = scores[4, -2:] = 9.0
    seen = []
    whole = torch.topk
    monkeypatch.setattr(
        torch, "topk", lambda x, *args, **options: seen.append(x.shape[1]) or whole(x, *args, **options)
    )
    assert all(map(torch.equal, best_items(scores, 10), sorted_whole(scores, 10)))
    assert max(seen) < n_items / 3


def test_what_is_no_number_comes_first() -> None:
    scores = torch.randn(3, 5000)
    scores[1, 4321] = math.nan
    best, _ = best_items(scores, 5)
    assert best.isnan().nonzero().tolist() == [[1, 0]]


@pytest.mark.parametrize("n_nan", [1, 2, 3])
def test_what_is_no_number_comes_first_where_others_are_equal(n_nan: int) -> None:
    scores = torch.full((2, 6), 5.0)
    scores[1, 2 : 2 + n_nan] = math.nan
    best, item = best_items(scores, 3)
    assert best.isnan().sum(dim=1).tolist() == [0, n_nan]
    assert item[1, :n_nan].tolist() == list(range(2, 2 + n_nan))
