"""RecBole's models without loops over rows have RecBole's results to the last digit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.model.sequential_recommender import bert4rec, gcsan, srgnn

from recbole_posattn import Config
from recbole_posattn.models.faster import FASTER, BERT4Rec, session_graphs

S = 7
sequences = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=S), min_size=1, max_size=6)


def padded(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor([row + [0] * (S - len(row)) for row in rows])


@given(sequences, st.booleans())
def test_graphs_are_those_of_recbole(rows: list[list[int]], cut: bool) -> None:
    items = padded(rows)[:, : max(map(len, rows)) if cut else S]
    of_recbole = SimpleNamespace(device=torch.device("cpu"))
    alias, adjacency, nodes, mask = srgnn.SRGNN._get_slice(of_recbole, items)
    ours = session_graphs(items)
    for theirs in ((alias, adjacency, nodes), gcsan.GCSAN._get_slice(of_recbole, items)):
        assert [each.dtype for each in ours] == [each.dtype for each in theirs]
        assert all(torch.equal(each, other) for each, other in zip(ours, theirs, strict=True))
    assert torch.equal(mask, items > 0)


@given(sequences)
def test_the_mask_is_where_recbole_puts_it(rows: list[list[int]]) -> None:
    model = SimpleNamespace(mask_token=9)
    items, length = padded(rows), torch.tensor(list(map(len, rows)))
    expected = bert4rec.BERT4Rec.reconstruct_test_data(model, items.clone(), length)
    assert torch.equal(BERT4Rec.reconstruct_test_data(model, items, length), expected)


@pytest.mark.parametrize("of_recbole", FASTER, ids=lambda model: model.__name__)
def test_settings_have_the_faster_class(of_recbole: type) -> None:
    model = Config(of_recbole.__name__, "ml-100k", command_line=[]).model_class
    assert model is FASTER[of_recbole] and model.__name__ == of_recbole.__name__ and issubclass(model, of_recbole)
