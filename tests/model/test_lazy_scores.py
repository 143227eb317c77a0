"""Cross-entropy over all items in chunks, in the place of a model's own product and loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_posattn.models.lazy_scores import ItemScores, with_lazy_scores
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy

TARGET = torch.tensor([3, 0, 8, 8])


@pytest.fixture
def table() -> nn.Parameter:
    return nn.Parameter(torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


@pytest.fixture
def hidden() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 5, generator=generator, dtype=torch.float64).requires_grad_()


LOSSES = {
    "as in SASRec": lambda hidden, table: nn.CrossEntropyLoss()(torch.matmul(hidden, table.transpose(0, 1)), TARGET),
    "as in HRM": lambda hidden, table: nn.CrossEntropyLoss()(torch.matmul(hidden, table.t()), TARGET),
    "an operator": lambda hidden, table: F.cross_entropy(hidden @ table.T, TARGET),
    "a method": lambda hidden, table: F.cross_entropy(hidden.matmul(table.T), target=TARGET),
    "a temperature": lambda hidden, table: F.cross_entropy(hidden @ table.T / 0.07, TARGET),
    "a bias": lambda hidden, table: F.cross_entropy(table.sum(dim=1) + hidden @ table.T, TARGET),
    "the log": lambda hidden, table: F.nll_loss(F.log_softmax(hidden @ table.T, dim=1), TARGET),
    "smoothed": lambda hidden, table: F.cross_entropy(hidden @ table.T, TARGET, label_smoothing=0.1),
    "summed": lambda hidden, table: nn.CrossEntropyLoss(reduction="sum")(hidden @ table.T, TARGET),
    "without some": lambda hidden, table: F.cross_entropy(hidden @ table.T, TARGET, ignore_index=8),
    "some items": lambda hidden, table: F.cross_entropy(hidden @ table[:9].T[:, 1:], TARGET - 1, ignore_index=-1),
    "shares": lambda hidden, table: F.cross_entropy(hidden @ table.T, F.one_hot(TARGET, 9).double()),
    "one column": lambda hidden, table: (hidden @ table.T)[torch.arange(4), TARGET].square().mean(),
    "of many kinds": lambda hidden, table: torch.stack([(hidden @ table.T).sum(), (-(hidden @ table.T)).max()]).sum(),
    "square": lambda hidden, table: F.cross_entropy(hidden[:, :3] @ table[:3].T.T[:3, :3], TARGET[:4] % 3),
}


def _without_item_3(hidden: Tensor, table: Tensor, in_place: Callable[[Tensor], object]) -> Tensor:
    scores = torch.matmul(hidden, table.transpose(0, 1))
    in_place(scores)
    return F.cross_entropy(scores, torch.full((4,), 8))


LOSSES |= {
    "set": partial(_without_item_3, in_place=lambda scores: scores.__setitem__((slice(None), 3), -1e9)),
    "filled": partial(_without_item_3, in_place=lambda scores: scores.masked_fill_(torch.arange(9) == 3, -1e9)),
    "added": partial(_without_item_3, in_place=lambda scores: scores.add_(torch.arange(9.0))),
}
CHUNKED = ("as in SASRec", "as in HRM", "an operator", "a method")


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_the_same(
    monkeypatch: pytest.MonkeyPatch, hidden: Tensor, table: nn.Parameter, name: str
) -> None:
    chunked = []
    forward = CrossEntropy.forward
    monkeypatch.setattr(CrossEntropy, "forward", lambda *args: chunked.append(name) or forward(*args))
    loss: Callable = LOSSES[name]
    expected = loss(hidden, table)
    expected_gradients = torch.autograd.grad(expected, [hidden, table])
    assert not chunked
    found = with_lazy_scores(loss)(hidden, table)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, [hidden, table]), expected_gradients)
    assert bool(chunked) == (name in CHUNKED)


def test_scores_are_a_tensor_to_whoever_asks(hidden: Tensor, table: nn.Parameter) -> None:
    scores = ItemScores(hidden, table)
    expected = hidden @ table.T
    assert scores.shape == expected.shape and len(scores) == 4
    assert torch.equal(scores[1:], expected[1:]) and torch.equal(torch.topk(scores, 2).values, expected.topk(2).values)
    assert torch.equal(torch.cat([scores, scores]), torch.cat([expected, expected]))


def test_nothing_is_lazy_elsewhere(hidden: Tensor, table: nn.Parameter) -> None:
    seen = []
    with_lazy_scores(lambda: seen.append(hidden @ table.T))()
    assert isinstance(seen[0], ItemScores) and isinstance(hidden @ table.T, Tensor)
    with_lazy_scores(lambda: seen.append(hidden @ table.detach().T))()
    with_lazy_scores(lambda: seen.append(hidden[None] @ table.T))()
    assert all(isinstance(product, Tensor) for product in seen[1:])
