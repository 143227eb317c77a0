"""The losses: in chunks as in one piece, sampled ones against loops written from their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.sampler import RepeatableSampler
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_posattn.nn.losses import cross_entropy, sampled
from recbole_posattn.nn.losses.base import ItemLoss, LossOptions
from recbole_posattn.nn.losses.build import LOSSES, SAMPLED_LOSSES, build_loss
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.nn.losses.negatives import DISTRIBUTIONS, NegativeItems
from recbole_posattn.nn.losses.sampled import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    GeneralizedBinaryCrossEntropy,
    SampledSoftmax,
    TargetSampledSoftmax,
)
from tests.watch import LargestTensor

TARGET_NEGATIVES = ("TSSM", "BCE", "gBCE", "BPR")

# Item 0 is the padding, items 3 and 7 never occur, item 2 is most of all.
COUNTS = torch.tensor([0, 5, 60, 0, 1, 12, 3, 0, 9])


def case(
    m: int, d: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, targets and item embeddings, of which the first and the last require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(m, d, dtype=dtype, generator=generator)
    item_weight = torch.randn(n, d, dtype=dtype, generator=generator)
    return hidden.requires_grad_(), torch.randint(1, n, (m,), generator=generator), item_weight.requires_grad_()


def loss_and_gradients(loss: ItemLoss, hidden: Tensor, target: Tensor, item_weight: Tensor) -> list[Tensor]:
    value = loss(hidden, target, item_weight)
    return [value.detach(), *torch.autograd.grad(value, [hidden, item_weight])]


def assert_all_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# Cross-entropy in chunks


@given(
    m=st.integers(1, 40),
    n=st.integers(2, 30),
    chunk_size=st.one_of(st.just("auto"), st.integers(1, 50)),
    precision=st.sampled_from([(torch.float32, 1e-5), (torch.float64, 1e-10)]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_chunks_change_nothing(
    m: int, n: int, chunk_size: int | str, precision: tuple[torch.dtype, float], seed: int
) -> None:
    dtype, tolerance = precision
    inputs = case(m, 5, n, dtype, seed)
    expected = loss_and_gradients(CrossEntropy(None), *inputs)
    assert_all_close(loss_and_gradients(CrossEntropy(chunk_size), *inputs), expected, tolerance)


def test_chunks_of_the_automatic_size_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "LOGIT_ELEMENTS", {"cpu": 300, "cuda": 1})
    monkeypatch.setattr(cross_entropy, "MIN_CHUNK_SIZE", 3)
    for n in (50, 200):  # six targets, and the least
        inputs = case(20, 2, n)
        with LargestTensor() as largest:
            actual = loss_and_gradients(CrossEntropy("auto"), *inputs)
        assert largest.elements == max(300 // n, 3) * n
        assert_all_close(actual, loss_and_gradients(CrossEntropy(None), *inputs), 1e-10)


# Label smoothing


@given(
    m=st.integers(1, 40),
    n=st.integers(2, 30),
    chunk_size=st.one_of(st.none(), st.just("auto"), st.integers(1, 50)),
    label_smoothing=st.one_of(st.just(0.0), st.floats(1e-3, 0.99)),
    precision=st.sampled_from([(torch.float32, 2e-5), (torch.float64, 1e-10)]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_label_smoothing_in_chunks_is_pytorchs(
    m: int, n: int, chunk_size: Any, label_smoothing: float, precision: tuple[torch.dtype, float], seed: int
) -> None:
    dtype, tolerance = precision
    hidden, target, item_weight = case(m, 5, n, dtype, seed)
    value = F.cross_entropy(hidden @ item_weight.T, target, label_smoothing=label_smoothing)
    expected = [value.detach(), *torch.autograd.grad(value, [hidden, item_weight])]
    actual = loss_and_gradients(CrossEntropy(chunk_size, label_smoothing), hidden, target, item_weight)
    assert_all_close(actual, expected, tolerance)


def test_smoothed_gradients_are_the_finite_differences_and_one_input_may_be_alone() -> None:
    hidden, target, item_weight = case(5, 3, 9)
    loss = CrossEntropy(2, 0.3)
    assert torch.autograd.gradcheck(lambda h, w: loss(h, target, w), (hidden, item_weight))
    _, grad_hidden, grad_weight = loss_and_gradients(loss, hidden, target, item_weight)
    (alone,) = torch.autograd.grad(loss(hidden, target, item_weight.detach()), [hidden])
    assert torch.equal(alone, grad_hidden)
    (alone,) = torch.autograd.grad(loss(hidden.detach(), target, item_weight), [item_weight])
    assert torch.equal(alone, grad_weight)


def test_label_smoothing_makes_no_more_products_and_no_tensor_of_all_logits() -> None:
    inputs = case(64, 4, 100, torch.float32)
    with LargestTensor() as largest, Products() as products:
        loss_and_gradients(CrossEntropy(8, 0.1), *inputs)
    assert largest.elements == 8 * 100
    assert products.count == 1 + 8 * 3  # and a matrix times a vector


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_label_smoothing_is_stable_at_large_scores(scale: float) -> None:
    hidden, target, item_weight = case(12, 4, 30, torch.float32, scale=scale)
    doubles = [tensor.detach().double().requires_grad_() for tensor in (hidden, item_weight)]
    value = F.cross_entropy(doubles[0] @ doubles[1].T, target, label_smoothing=0.1)
    expected = [part.float() for part in (value.detach(), *torch.autograd.grad(value, doubles))]
    assert_all_close(loss_and_gradients(CrossEntropy(5, 0.1), hidden, target, item_weight), expected, 1e-5)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_chunks_are_stable_where_the_target_has_no_probability_left(scale: float) -> None:
    inputs = case(12, 4, 30, torch.float32, scale=scale)
    expected = loss_and_gradients(CrossEntropy(None), *inputs)
    assert expected[0] > scale  # far beyond what the logarithm of a probability in float32 can be
    assert_all_close(loss_and_gradients(CrossEntropy(5), *inputs), expected, 1e-5)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_gradients_scale_with_what_is_made_of_the_loss(loss_type: str) -> None:
    hidden, target, item_weight = case(9, 4, len(COUNTS))
    loss = build_loss(LossOptions(loss_type, chunk_size=4, n_negatives=3), COUNTS)
    torch.manual_seed(1)
    plain = loss_and_gradients(loss, hidden, target, item_weight)[1:]
    torch.manual_seed(1)
    total = 3 * loss(hidden, target, item_weight) + (hidden**2).sum()
    scaled = list(torch.autograd.grad(total, [hidden, item_weight]))
    assert_all_close(scaled, [3 * plain[0] + 2 * hidden.detach(), 3 * plain[1]], 1e-10)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_gradients_are_the_finite_differences(loss_type: str) -> None:
    hidden, target, item_weight = case(5, 3, len(COUNTS))
    loss = build_loss(LossOptions(loss_type, chunk_size=2, n_negatives=3), COUNTS)

    def of_inputs(hidden: Tensor, item_weight: Tensor) -> Tensor:
        torch.manual_seed(0)
        return loss(hidden, target, item_weight)

    assert torch.autograd.gradcheck(of_inputs, (hidden, item_weight))


def test_the_graph_of_chunks_can_be_walked_twice() -> None:
    hidden, target, item_weight = case(5, 3, 7)
    value = CrossEntropy(2)(hidden, target, item_weight)
    first = torch.autograd.grad(value, [hidden, item_weight], retain_graph=True)
    assert_all_close(list(torch.autograd.grad(value, [hidden, item_weight])), list(first), 0.0)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_one_input_alone_may_require_a_gradient(loss_type: str) -> None:
    hidden, target, item_weight = case(7, 4, len(COUNTS))
    loss = build_loss(LossOptions(loss_type, chunk_size=3, n_negatives=3), COUNTS)
    torch.manual_seed(0)
    _, grad_hidden, grad_weight = loss_and_gradients(loss, hidden, target, item_weight)
    torch.manual_seed(0)
    (alone,) = torch.autograd.grad(loss(hidden, target, item_weight.detach()), [hidden])
    torch.testing.assert_close(alone, grad_hidden)
    torch.manual_seed(0)
    (alone,) = torch.autograd.grad(loss(hidden.detach(), target, item_weight), [item_weight])
    torch.testing.assert_close(alone, grad_weight)


class Products(TorchDispatchMode):
    """A context that counts the matrix products made in it."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += "mm" in function.__name__
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("grad_enabled", [True, False])
@pytest.mark.parametrize("requiring", [(), ("hidden",), ("item_weight",), ("hidden", "item_weight")])
def test_no_gradients_are_made_where_none_are_wanted(requiring: tuple[str, ...], grad_enabled: bool) -> None:
    hidden, target, item_weight = case(40, 4, 20)
    hidden.requires_grad_("hidden" in requiring)
    item_weight.requires_grad_("item_weight" in requiring)
    loss = CrossEntropy(2)
    with torch.set_grad_enabled(grad_enabled), Products() as products:
        value = loss(hidden, target, item_weight)
    assert value.requires_grad == (grad_enabled and bool(requiring))
    torch.testing.assert_close(value, CrossEntropy(None)(hidden, target, item_weight))
    by_chunk = 1 + grad_enabled * len(requiring)
    assert products.count == 1 + 20 * by_chunk  # the first one is empty and tells the type of the others


@pytest.mark.parametrize("loss_type", LOSSES)
def test_autocast_is_close_and_gradients_keep_their_type(loss_type: str) -> None:
    inputs = case(32, 8, len(COUNTS), torch.float32)
    loss = build_loss(LossOptions(loss_type, chunk_size=5, n_negatives=20, label_smoothing=0.1), COUNTS)
    torch.manual_seed(0)
    expected = loss_and_gradients(loss, *inputs)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        actual = loss_and_gradients(loss, *inputs)
    assert_all_close(actual, expected, 2e-2)


def test_autocast_makes_the_products_in_its_type_and_the_softmax_in_float32() -> None:
    inputs = case(64, 8, 50, torch.float32)
    exact = loss_and_gradients(CrossEntropy(16), *inputs)
    rounded = [tensor.detach().bfloat16() for tensor in inputs[::2]]
    logits = (rounded[0] @ rounded[1].T).float()
    with torch.autocast("cpu", torch.bfloat16):
        actual = loss_and_gradients(CrossEntropy(16), *inputs)
    torch.testing.assert_close(actual[0], F.cross_entropy(logits, inputs[1]), atol=1e-6, rtol=1e-6)
    assert (actual[0] - exact[0]).abs() > 1e-5


def test_bfloat16_products_are_those_of_autocast_with_sums_in_float32() -> None:
    inputs = case(64, 8, 50, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = loss_and_gradients(CrossEntropy(16, 0.1), *inputs)
    actual = loss_and_gradients(CrossEntropy(16, 0.1, "bfloat16"), *inputs)
    assert all(map(torch.equal, actual, expected))
    assert_all_close(actual, loss_and_gradients(CrossEntropy(16, 0.1), *inputs), 2e-2)
    with pytest.raises(ValueError, match=r"precision must be one of .*, and float32 without chunks, got 'bfloat16'"):
        CrossEntropy(None, precision="bfloat16")


@pytest.mark.parametrize("autocast", [False, True])
def test_no_tensor_of_all_logits_is_made(autocast: bool) -> None:
    inputs = case(64, 4, 100, torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), LargestTensor() as largest:
        loss_and_gradients(CrossEntropy(8), *inputs)
    assert largest.elements == 8 * 100


# Negative items


def recboles_probabilities(counts: Tensor, alpha: float) -> Tensor:
    """What RecBole's sampler draws from by its alias table, item by item."""
    dataset = SimpleNamespace(
        iid_field="item_id",
        user_num=2,
        item_num=len(counts),
        inter_feat={"item_id": torch.arange(len(counts)).repeat_interleave(counts)},
    )
    sampler = RepeatableSampler(["train"], dataset, "popularity", alpha)
    probability = torch.zeros(len(counts), dtype=torch.float64)
    for item, kept in sampler.prob.items():
        kept = min(kept, 1.0)
        probability[item] += kept / len(sampler.prob)
        if sampler.alias[item] != -1:
            probability[sampler.alias[item]] += (1 - kept) / len(sampler.prob)
    return probability


def assert_drawn_from(draws: Tensor, probability: Tensor) -> None:
    """Each item's share of the draws is within five standard deviations of its probability."""
    share = draws.flatten().bincount(minlength=len(probability)) / draws.numel()
    deviation = (probability * (1 - probability) / draws.numel()).sqrt()
    assert ((share - probability).abs() <= 5 * deviation).all(), (share, probability)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_popularity_is_that_of_recboles_sampler(alpha: float) -> None:
    negatives = NegativeItems("popularity", COUNTS, alpha)
    probability = negatives.log_probability(torch.arange(len(COUNTS))).exp()
    torch.testing.assert_close(probability, recboles_probabilities(COUNTS, alpha), atol=1e-12, rtol=1e-9)
    torch.manual_seed(0)
    assert_drawn_from(negatives.sample_shared(200_000), probability)


def test_uniform_is_all_items_but_the_padding() -> None:
    negatives = NegativeItems("uniform", COUNTS)
    probability = negatives.log_probability(torch.arange(len(COUNTS))).exp()
    torch.testing.assert_close(probability, torch.tensor([0.0] + 8 * [1 / 8], dtype=torch.float64))
    torch.manual_seed(0)
    assert_drawn_from(negatives.sample_shared(200_000), probability)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_negatives_are_drawn_given_that_they_are_not_the_target(distribution: str) -> None:
    negatives = NegativeItems(distribution, COUNTS, alpha=0.75)
    torch.manual_seed(0)
    for target in range(len(COUNTS)):  # the padding and items that never occur take nothing away
        probability = negatives.log_probability(torch.arange(len(COUNTS))).exp()
        probability[target] = 0.0
        draws = negatives.sample(torch.full((50,), target), 1000)
        assert draws.shape == (50, 1000)
        assert draws.dtype == torch.long
        assert_drawn_from(draws, probability / probability.sum())


def test_negatives_of_a_target_are_independent_of_each_other() -> None:
    torch.manual_seed(0)
    draws = NegativeItems("popularity", COUNTS).sample(torch.full((100_000,), 5), 2)
    probability = torch.where(torch.arange(len(COUNTS)) == 5, 0, COUNTS).double()
    probability /= probability.sum()
    pair = draws[:, 0] * len(COUNTS) + draws[:, 1]
    assert_drawn_from(pair, torch.outer(probability, probability).flatten())


@given(
    counts=st.lists(st.integers(0, 10**6), min_size=3, max_size=12).filter(lambda c: sum(x > 0 for x in c[1:]) >= 2),
    alpha=st.floats(0.0, 30.0),
    distribution=st.sampled_from(DISTRIBUTIONS),
    seed=st.integers(0, 2**16),
)
def test_negatives_are_never_the_target_nor_what_cannot_be_drawn(
    counts: list[int], alpha: float, distribution: str, seed: int
) -> None:
    item_counts = torch.tensor(counts)
    negatives = NegativeItems(distribution, item_counts, alpha)
    torch.manual_seed(seed)
    target = torch.randint(0, len(counts), (64,))
    draws = negatives.sample(target, 8)
    assert (draws != target[:, None]).all()
    for items in (draws, negatives.sample_shared(64)):
        assert ((items > 0) & (items < len(counts))).all()
        assert distribution == "uniform" or (item_counts[items] > 0).all()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("counts", [COUNTS, torch.arange(2000), torch.tensor([0, 2**40, 1, 1])])
def test_the_last_number_before_one_draws_the_last_item(
    monkeypatch: pytest.MonkeyPatch, distribution: str, counts: Tensor
) -> None:
    def last_number(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.full(shape, 1 - torch.finfo(dtype).eps / 2, dtype=dtype)

    monkeypatch.setattr(torch, "rand", last_number)
    negatives = NegativeItems(distribution, counts)
    *_, before, last = range(1, len(counts)) if distribution == "uniform" else counts.nonzero().flatten().tolist()
    assert negatives.sample_shared(1).tolist() == [last]
    assert negatives.sample(torch.tensor([last, before]), 1).tolist() == [[before], [last]]


def test_a_target_that_is_nearly_certain_costs_no_more() -> None:
    negatives = NegativeItems("popularity", torch.tensor([0, 10**15, 1, 1]))  # rejection would take 10^15 rounds
    torch.manual_seed(0)
    draws = negatives.sample(torch.ones(1000, dtype=torch.long), 4)
    assert set(draws.unique().tolist()) == {2, 3}


def test_a_million_items_keep_their_probabilities() -> None:
    counts = torch.randint(0, 10_000, (1_000_000,), generator=torch.Generator().manual_seed(0))
    counts[0] = 0
    negatives = NegativeItems("popularity", counts, 0.5)
    expected = counts.double().sqrt().log() - counts.double().sqrt().sum().log()
    torch.testing.assert_close(negatives.log_probability(torch.arange(1_000_000)), expected, atol=1e-8, rtol=0.0)
    torch.manual_seed(0)
    draws = negatives.sample(torch.arange(1, 1001), 100)
    assert (draws > 0.9 * len(counts)).double().mean().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("distribution", "counts"), [("uniform", [0, 3]), ("popularity", [0, 3, 0]), ("popularity", [9, 3, 0])]
)
def test_two_items_are_needed_to_draw_from(distribution: str, counts: list[int]) -> None:
    with pytest.raises(ValueError, match="two items"):
        NegativeItems(distribution, torch.tensor(counts))


def test_negatives_outlive_a_cast_to_half_precision() -> None:
    counts = torch.arange(5000)
    negatives, cast = NegativeItems("popularity", counts), NegativeItems("popularity", counts).half()
    items = torch.arange(5000)
    assert torch.equal(cast.log_probability(items), negatives.log_probability(items))


# Losses with negatives


def full_cross_entropy_of(drawable: Tensor, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:
    """Cross-entropy over some items and, for each target, itself."""
    scores = hidden @ item_weight.T
    taken = drawable | (torch.arange(len(item_weight)) == target[:, None])
    return F.cross_entropy(scores.masked_fill(~taken, -math.inf), target)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sampled_softmax_approaches_cross_entropy(distribution: str) -> None:
    hidden, target, item_weight = case(16, 4, len(COUNTS))
    assert (COUNTS[target] == 0).any()  # some targets are outside what popularity draws
    drawable = COUNTS > 0 if distribution == "popularity" else torch.arange(len(COUNTS)) > 0
    value = full_cross_entropy_of(drawable, hidden, target, item_weight)
    expected = [value.detach(), *torch.autograd.grad(value, [hidden, item_weight])]
    errors = []
    torch.manual_seed(0)
    for k in (16, 1024, 65_536):
        loss = SampledSoftmax(NegativeItems(distribution, COUNTS), k)
        runs = [loss_and_gradients(loss, hidden, target, item_weight) for _ in range(4)]
        mean = [torch.stack(parts).mean(dim=0) for parts in zip(*runs)]
        errors.append([(a - b).abs().max().item() for a, b in zip(mean, expected)])
    assert max(errors[-1]) < 5e-3
    for coarse, middle, fine in zip(*errors):
        assert fine < middle < coarse


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_sampled_softmax_is_its_formula(distribution: str) -> None:
    hidden, target, item_weight = case(6, 3, len(COUNTS))
    k = 12
    negatives = NegativeItems(distribution, COUNTS, alpha=0.5)
    torch.manual_seed(3)
    drawn = negatives.sample_shared(k).tolist()
    q = negatives.log_probability(torch.arange(len(COUNTS))).exp().tolist()
    total = 0.0
    for h, t in zip(hidden, target.tolist()):
        sampled = sum(torch.exp(h @ item_weight[j]) / (k * q[j]) for j in drawn if j != t)
        total += -(h @ item_weight[t]) + torch.log(torch.exp(h @ item_weight[t]) + sampled)
    expected = [total / 6, *torch.autograd.grad(total / 6, [hidden, item_weight])]
    torch.manual_seed(3)
    actual = loss_and_gradients(SampledSoftmax(negatives, k), hidden, target, item_weight)
    assert_all_close(actual, [part.detach() for part in expected], 1e-10)


def test_sampled_softmax_of_nothing_but_the_target_is_zero() -> None:
    hidden, _, item_weight = case(3, 4, 3)
    loss = SampledSoftmax(NegativeItems("popularity", torch.tensor([0, 10**12, 1])), 2)
    torch.manual_seed(0)
    parts = loss_and_gradients(loss, hidden, torch.tensor([1, 1, 1]), item_weight)
    assert all(part.count_nonzero() == 0 for part in parts)  # and not NaN


def log_sigmoid(x: Tensor) -> Tensor:
    return -torch.log(1 + torch.exp(-x))


def slow_bce(positive: Tensor, negative: list[Tensor], n: int, calibration: float = 0.0) -> Tensor:
    k = len(negative)
    alpha = k / (n - 2)
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    return -(torch.log(torch.sigmoid(positive) ** beta) + sum(torch.log(1 - torch.sigmoid(s)) for s in negative)) / (
        k + 1
    )


def slow_bpr(positive: Tensor, negative: list[Tensor], n: int) -> Tensor:
    return -sum(log_sigmoid(positive - s) for s in negative) / len(negative)


def slow_tssm(positive: Tensor, negative: list[Tensor], n: int) -> Tensor:
    return -positive + torch.log(torch.exp(positive) + sum(torch.exp(s) for s in negative))


SLOW: dict[str, Callable[..., Tensor]] = {
    "TSSM": slow_tssm,
    "BCE": slow_bce,
    "gBCE": lambda positive, negative, n: slow_bce(positive, negative, n, calibration=0.6),
    "BPR": slow_bpr,
}


@pytest.mark.parametrize("elements", [10**6, 40])  # in one piece, and chunks of two or three targets
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("loss_type", TARGET_NEGATIVES)
def test_losses_are_their_formulas(monkeypatch: pytest.MonkeyPatch, loss_type: str, k: int, elements: int) -> None:
    monkeypatch.setattr(sampled, "GATHERED_ELEMENTS", {"cpu": elements, "cuda": 1})
    hidden, target, item_weight = case(7, 3, len(COUNTS))
    options = LossOptions(loss_type, n_negatives=k, distribution="popularity", alpha=0.5, calibration=0.6)
    loss = build_loss(options, COUNTS)
    torch.manual_seed(5)
    negative = NegativeItems("popularity", COUNTS, 0.5).sample(target, k)
    total = sum(
        SLOW[loss_type](h @ item_weight[t], [h @ item_weight[j] for j in row], len(COUNTS))
        for h, t, row in zip(hidden, target, negative)
    )
    expected = [total / 7, *torch.autograd.grad(total / 7, [hidden, item_weight])]
    torch.manual_seed(5)
    actual = loss_and_gradients(loss, hidden, target, item_weight)
    assert_all_close(actual, [part.detach() for part in expected], 1e-10)


@pytest.mark.parametrize("loss_type", TARGET_NEGATIVES)
def test_embeddings_of_negatives_are_gathered_in_chunks(monkeypatch: pytest.MonkeyPatch, loss_type: str) -> None:
    monkeypatch.setattr(sampled, "GATHERED_ELEMENTS", {"cpu": 500, "cuda": 1})
    inputs = case(60, 8, len(COUNTS))
    loss = build_loss(LossOptions(loss_type, n_negatives=9), COUNTS)
    with LargestTensor() as largest:
        loss_and_gradients(loss, *inputs)
    assert largest.elements < 2 * 60 * 10  # about the scores; all embeddings would be 60 * 10 * 8


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("loss_type", sorted(SAMPLED_LOSSES))
def test_sampled_losses_are_stable_at_large_scores(loss_type: str, scale: float) -> None:
    inputs = case(12, 4, len(COUNTS), torch.float32, scale=scale)
    loss = build_loss(LossOptions(loss_type, n_negatives=5), COUNTS)
    value, *gradients = loss_and_gradients(loss, *inputs)
    assert value > scale / 100
    assert all(part.isfinite().all() for part in (value, *gradients))


def test_gbce_without_calibration_is_bce() -> None:
    inputs = case(7, 3, len(COUNTS))
    negatives = NegativeItems("uniform", COUNTS)
    torch.manual_seed(0)
    plain = loss_and_gradients(BinaryCrossEntropy(negatives, 4), *inputs)
    torch.manual_seed(0)
    assert_all_close(loss_and_gradients(GeneralizedBinaryCrossEntropy(negatives, 4, 0.0), *inputs), plain, 1e-12)
    torch.manual_seed(0)
    calibrated = loss_and_gradients(GeneralizedBinaryCrossEntropy(negatives, 4, 1.0), *inputs)
    assert calibrated[0] < plain[0]


def test_full_calibration_finds_the_true_probability() -> None:
    """Targets of one context fall on items 1 to 4 by p; the σ(s) that minimize gBCE with t = 1 are p."""
    p = torch.tensor([0.0, 0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    alpha = 2 / 3
    loss = GeneralizedBinaryCrossEntropy(NegativeItems("uniform", torch.ones(5, dtype=torch.long)), 2, 1.0)
    assert loss.positive_power == pytest.approx(alpha)
    score = torch.logit(p[1:]).requires_grad_()
    others = ~torch.eye(4, dtype=torch.bool)
    # Two of the three other items are drawn, so that each is expected alpha times.
    positive, negative = score, score.expand(4, 4)[others].view(4, 3)
    expected = -(loss.positive_power * F.logsigmoid(positive) + alpha * F.logsigmoid(-negative).sum(dim=-1))
    (gradient,) = torch.autograd.grad((p[1:] * expected).sum(), [score])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0.0)


def test_more_draws_than_negatives_count_as_all() -> None:
    negatives = NegativeItems("uniform", COUNTS)
    assert GeneralizedBinaryCrossEntropy(negatives, 100, 0.75).positive_power == 1.0


def test_all_of_it_is_reproducible_by_its_seed() -> None:
    inputs = case(7, 3, len(COUNTS))
    for loss_type in SAMPLED_LOSSES:
        loss = build_loss(LossOptions(loss_type, n_negatives=2), COUNTS)
        values = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            values.append(loss(*inputs).item())
        assert values[0] == values[1] != values[2]


# Building


def test_names_build_their_losses() -> None:
    classes = {
        "CE": CrossEntropy,
        "SSM": SampledSoftmax,
        "TSSM": TargetSampledSoftmax,
        "BCE": BinaryCrossEntropy,
        "gBCE": GeneralizedBinaryCrossEntropy,
        "BPR": BayesianPersonalizedRanking,
    }
    assert classes.keys() == LOSSES.keys()
    assert {"SSM", "TSSM", "BCE", "gBCE", "BPR"} == SAMPLED_LOSSES
    for name, expected in classes.items():
        loss = build_loss(LossOptions(name), COUNTS)
        assert type(loss) is expected
        assert isinstance(loss, ItemLoss)
        assert not loss.state_dict()
        assert list(loss.parameters()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": "MSE"}, "loss_type must be one of CE, SSM, TSSM, BCE, gBCE, BPR, got 'MSE'"),
        ({"loss_type": "CE", "chunk_size": 0}, "chunk_size must be a positive integer, 'auto' or None, got 0"),
        ({"loss_type": "CE", "chunk_size": "all"}, "chunk_size must be .* got 'all'"),
        ({"loss_type": "CE", "label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"loss_type": "SSM", "n_negatives": 0}, "n_negatives must be a positive integer, got 0"),
        ({"loss_type": "BPR", "n_negatives": -1}, "n_negatives must be a positive integer, got -1"),
        ({"loss_type": "BCE", "distribution": "cosine"}, "distribution must be one of .* got 'cosine'"),
        ({"loss_type": "gBCE", "calibration": 1.5}, r"calibration must be in \[0, 1\], got 1.5"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_loss(LossOptions(**changes), COUNTS)
