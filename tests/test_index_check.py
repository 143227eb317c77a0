"""An index out of bounds is found before the device sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from recbole_posattn.training.index_check import IndicesChecked

X = torch.arange(12.0).reshape(3, 4)

# Each with an index of a dimension with three places.
LOOKUPS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "x[i]": lambda i: X[i],
    "x[:, i]": lambda i: X.T[:, i],
    "x[mask, i]": lambda i: X.T[torch.tensor([True, False, True, False]), i],
    "x[i] = 0": lambda i: X.clone().index_put_((i,), torch.tensor(0.0)),
    "embedding": lambda i: F.embedding(i, X),
    "gather": lambda i: X.gather(0, i[:, None]),
    "index_select": lambda i: X.T.index_select(1, i),
    "scatter": lambda i: X.scatter(0, i[:, None], 1.0),
    "scatter_add": lambda i: X.T.scatter_add(1, i[None], torch.ones(1, 2)),
    "index_add": lambda i: X.index_add(0, i, torch.ones(2, 4)),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_indices_in_bounds_change_nothing(name: str) -> None:
    index = torch.tensor([2, 0])
    expected = LOOKUPS[name](index)
    with IndicesChecked():
        assert torch.equal(LOOKUPS[name](index), expected)


@pytest.mark.parametrize("wrong", [3, -4])
@pytest.mark.parametrize("name", LOOKUPS)
def test_indices_out_of_bounds_are_refused(name: str, wrong: int) -> None:
    with IndicesChecked(), pytest.raises(IndexError, match=r"indices from .* size 3"):
        LOOKUPS[name](torch.tensor([0, wrong]))


def test_negative_indices_count_from_the_end() -> None:
    with IndicesChecked():
        assert torch.equal(X[torch.tensor([-3])], X[:1])
        assert torch.equal(X[torch.zeros(0, dtype=torch.long)], X[:0])


def test_a_gradient_is_checked_like_its_lookup() -> None:
    """The backward pass scatters to the places of the lookup."""
    weight = X.clone().requires_grad_()
    with IndicesChecked():
        weight[torch.tensor([1, 1])].sum().backward()
    assert weight.grad is not None and weight.grad.sum(1).tolist() == [0, 8, 0]
