"""``history_partition`` and ``train_mask_history``: equal to slow readings of their formulas."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from recbole_posattn import Config, register_loss
from recbole_posattn.data import earlier_items
from recbole_posattn.data.earlier_items import density, history_use
from recbole_posattn.data.fields import EARLIER_LIST_FIELD
from recbole_posattn.errors import SettingError
from recbole_posattn.nn.history_partition import GAIN, HistoryPartition
from recbole_posattn.nn.losses.base import ItemLoss, LossOptions
from recbole_posattn.nn.losses.build import SAMPLED_LOSSES, build_loss
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.nn.losses.histories import (
    EARLIER,
    NOT_IN_HISTORY,
    HistoryBias,
    HistoryMask,
    TargetHistories,
    next_occurrence,
)
from recbole_posattn.nn.losses.sampled import TargetNegativesLoss
from tests.watch import LargestTensor

N_ITEMS, LENGTH = 9, 12


class Case:
    """Sequences with many repeats and padding, a target at some of their positions, and a partition."""

    def __init__(self, seed: int, b: int = 4, m: int = 17, n_items: int = N_ITEMS, length: int = LENGTH) -> None:
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, length + 1, (b,), generator=random)
        item = torch.randint(1, n_items, (b, length), generator=random)
        self.item = item.masked_fill(torch.arange(length) >= lengths[:, None], 0)
        self.sequence = torch.randint(b, (m,), generator=random)
        self.position = (torch.rand(m, generator=random) * lengths[self.sequence]).long()
        earlier = torch.randint(1, n_items, (b, 3), generator=random)
        self.earlier = earlier.masked_fill(torch.arange(3) >= torch.arange(b)[:, None] % 4, 0)
        self.target = torch.randint(1, n_items, (m,), generator=random)
        self.hidden = torch.randn(m, 5, dtype=torch.float64, generator=random).requires_grad_()
        self.item_weight = torch.randn(n_items, 5, dtype=torch.float64, generator=random).requires_grad_()
        self.partition = HistoryPartition(length).double()
        with torch.no_grad():
            self.partition.weight.copy_(torch.randn(self.partition.weight.shape, generator=random) / GAIN)

    def histories(self, kind: str) -> TargetHistories:
        if kind == "bias":
            return self.partition.of_targets(self.item, self.sequence, self.position)
        return HistoryMask(
            self.item, self.sequence, self.position, self.earlier if kind == "mask, earlier items" else None
        )

    def history(self, j: int) -> list[int]:
        return self.item[self.sequence[j], : self.position[j] + 1].tolist()

    def scores(self, kind: str) -> Tensor:
        """All scores, shape (m, n), item by item; −∞ for items that leave the loss."""
        rows = []
        for j in range(len(self.target)):
            history, target = self.history(j), int(self.target[j])
            earlier = self.earlier[self.sequence[j]].tolist() if kind == "mask, earlier items" else []
            score = []
            for i in range(len(self.item_weight)):
                s = self.hidden[j] @ self.item_weight[i]
                if kind == "bias":
                    lag = history[::-1].index(i) if i in history else None
                    s = s + GAIN * self.partition.weight[0 if lag is None else 1 + int(math.log2(lag + 1))]
                elif i > 0 and i != target and i in (*history, *earlier):
                    s = s * 0 - math.inf
                score.append(s)
            rows.append(torch.stack(score))
        return torch.stack(rows)

    def weights(self, kind: str) -> list[Tensor]:
        return [self.hidden, self.item_weight, *([self.partition.weight] if kind == "bias" else [])]


KINDS = ["bias", "mask", "mask, earlier items"]


def assert_equal(value: Tensor, expected: Tensor, weights: list[Tensor], tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)
    for own, slow in zip(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(own, slow, rtol=tolerance, atol=tolerance)


def smoothed(scores: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """Cross-entropy with ε spread over the items that are left, target by target."""
    losses = []
    for row, label in zip(scores, target.tolist(), strict=True):
        log_p = torch.stack([s - row[row > -math.inf].logsumexp(0) for s in row if s > -math.inf])
        losses.append(-(1 - epsilon) * (row[label] - row[row > -math.inf].logsumexp(0)) - epsilon * log_p.mean())
    return torch.stack(losses).mean()


@given(
    kind=st.sampled_from(KINDS),
    chunk_size=st.sampled_from([None, "auto", 1, 4, 50]),
    label_smoothing=st.sampled_from([0.0, 0.0, 0.3]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40)
def test_cross_entropy_is_that_of_all_scores(kind: str, chunk_size: Any, label_smoothing: float, seed: int) -> None:
    """And its gradients, also of the biases."""
    case = Case(seed)
    value = CrossEntropy(chunk_size, label_smoothing)(case.hidden, case.target, case.item_weight, case.histories(kind))
    assert_equal(value, smoothed(case.scores(kind), case.target, label_smoothing), case.weights(kind))


@given(
    kind=st.sampled_from(KINDS),
    loss_type=st.sampled_from(sorted(SAMPLED_LOSSES)),
    distribution=st.sampled_from(["uniform", "popularity"]),
    k=st.sampled_from([1, 3, 20]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_sampled_losses_are_those_of_the_drawn_scores(
    kind: str, loss_type: str, distribution: str, k: int, seed: int
) -> None:
    case = Case(seed)
    counts = torch.tensor([0, 5, 60, 1, 1, 12, 3, 2, 9])
    distribution = "uniform" if loss_type == "gBCE" else distribution
    loss = build_loss(LossOptions(loss_type, n_negatives=k, distribution=distribution), counts)
    torch.manual_seed(seed)
    value = loss(case.hidden, case.target, case.item_weight, case.histories(kind))
    torch.manual_seed(seed)
    scores = case.scores(kind)
    positive = scores.gather(1, case.target[:, None])[:, 0]
    if isinstance(loss, TargetNegativesLoss):
        negative = loss.negatives.sample(case.target, k)
        expected = loss.of_scores(positive, scores.gather(1, negative)).mean()
    else:
        drawn = loss.negatives.sample_shared(k)
        losses = []
        for j, target in enumerate(case.target.tolist()):
            others = [scores[j, i] - loss.negatives.log_probability(i) - math.log(k) for i in drawn if i != target]
            others = [s for s in others if s > -math.inf]
            total = torch.stack([positive[j], *others]).logsumexp(0)
            losses.append(total - positive[j])
        expected = torch.stack(losses).mean()
    assert_equal(value, expected, case.weights(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss_type", ["CE", *sorted(SAMPLED_LOSSES)])
def test_gradients_are_the_finite_differences(loss_type: str, kind: str) -> None:
    case = Case(3, m=5)
    loss = build_loss(LossOptions(loss_type, chunk_size=2, n_negatives=4), torch.ones(N_ITEMS, dtype=torch.int64))

    def of_inputs(hidden: Tensor, item_weight: Tensor, weight: Tensor) -> Tensor:
        torch.manual_seed(0)
        histories = case.histories(kind)
        if isinstance(histories, HistoryBias):
            bias = GAIN * weight
            by_lag = bias[1:][case.partition.bucket] - bias[0]
            histories = HistoryBias(case.item, case.sequence, case.position, bias[0], by_lag)
        return loss(hidden, case.target, item_weight, histories)

    assert torch.autograd.gradcheck(of_inputs, (case.hidden, case.item_weight, case.partition.weight))


def test_no_bias_and_no_mask_change_nothing() -> None:
    case = Case(5)
    with torch.no_grad():
        case.partition.weight.zero_()
    for loss in (CrossEntropy(4), CrossEntropy(None, 0.2)):
        plain = loss(case.hidden, case.target, case.item_weight)
        assert_equal(
            loss(case.hidden, case.target, case.item_weight, case.histories("bias")), plain, case.weights("")[:2]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_all_scores_or_histories_is_made(kind: str) -> None:
    case = Case(0, b=8, m=64, n_items=100, length=20)
    histories = case.histories(kind)
    with LargestTensor() as largest:
        CrossEntropy(8)(case.hidden, case.target, case.item_weight, histories).backward()
    assert largest.elements == 8 * 100


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_is_close(kind: str) -> None:
    case = Case(1)
    case.hidden, case.item_weight = (x.detach().float().requires_grad_() for x in (case.hidden, case.item_weight))
    case.partition.float()
    loss = CrossEntropy(4)
    expected = loss(case.hidden, case.target, case.item_weight, case.histories(kind))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(case.hidden, case.target, case.item_weight, case.histories(kind))
    assert_equal(value, expected, case.weights(kind), 3e-2)


def test_lags_and_next_occurrences_are_those_of_lists() -> None:
    for seed in range(20):
        case = Case(seed)
        asked = torch.randint(1, N_ITEMS, (len(case.target), 6), generator=torch.Generator().manual_seed(seed))
        lags = case.histories("mask, earlier items").lag(asked)
        for j, row in enumerate(asked.tolist()):
            history, earlier = case.history(j)[::-1], case.earlier[case.sequence[j]].tolist()
            expected = [history.index(i) if i in history else EARLIER if i in earlier else NOT_IN_HISTORY for i in row]
            assert lags[j].tolist() == expected
        for row, following in zip(case.item.tolist(), next_occurrence(case.item).tolist(), strict=True):
            assert following == [
                next((p for p in range(at + 1, LENGTH) if row[p] == i), LENGTH) for at, i in enumerate(row)
            ]


def test_buckets_double() -> None:
    partition = HistoryPartition(50)
    assert [(first, last) for first, last, _ in partition.by_bucket()] == [
        *((0, 0), (1, 2), (3, 6), (7, 14), (15, 30), (31, 49)),
    ]
    for length in range(1, 300):
        partition = HistoryPartition(length)
        assert len(partition.weight) == 2 + int(partition.bucket[-1])
        assert partition.bucket.tolist() == [int(lag + 1).bit_length() - 1 for lag in range(length)]
    with pytest.raises(ValueError, match="max_length must be a positive integer, got 0"):
        HistoryPartition(0)


# -- in the model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def partitioned(build: Callable) -> Callable[..., tuple]:
    """As ``build``, with biases that are not 0."""

    def partitioned(model: str = "PosKernelSASRec", **changes: object) -> tuple:
        recommender, loaders = build(model, history_partition=True, **changes)
        with torch.no_grad():
            recommender.history_partition.weight.normal_(std=1 / GAIN)
        return recommender, loaders

    return partitioned


def slow_scores(model: Any, item_seq: Tensor, length: Tensor) -> Tensor:
    """Scores of all items: the dot product, and the bias of each item by where it stands in its history."""
    scores = model._scores(model(item_seq, length)).clone()
    for row, n in enumerate(length.tolist()):
        history = item_seq[row, :n].tolist()[::-1]
        for item in range(scores.shape[1]):
            bucket = 1 + int(math.log2(history.index(item) + 1)) if item in history else 0
            scores[row, item] += GAIN * model.history_partition.weight[bucket]
    return scores


@pytest.mark.parametrize("changes", [{}, {"kernel_structure": "identity-toeplitz"}, {"score": "cosine"}], ids=str)
def test_scores_have_the_biases_of_their_histories(partitioned: Callable, histories: tuple, changes: dict) -> None:
    """Alone, in a batch, of all items and of one."""
    model, _ = partitioned(**changes)
    item_seq, length = histories
    item_seq[0, 3:7] = item_seq[0, 9]  # repeats
    expected = slow_scores(model, item_seq, length)
    batch = {model.ITEM_SEQ: item_seq, model.ITEM_SEQ_LEN: length}
    torch.testing.assert_close(model.full_sort_predict(batch), expected, rtol=1e-12, atol=1e-12)
    for item in range(1, 21):
        scores = model.predict({**batch, model.ITEM_ID: torch.full((4,), item)})
        torch.testing.assert_close(scores, expected[:, item], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
@pytest.mark.parametrize(
    "changes", [{"position_alignment": "start"}, {"kernel_structure": "identity-toeplitz"}], ids=str
)
def test_the_loss_is_the_cross_entropy_of_the_scores(partitioned: Callable, changes: dict, objective: str) -> None:
    """Of the scores that the model gives to the prefix before each target; buckets and padding included."""
    long_enough = {"MAX_ITEM_LIST_LENGTH": 24}  # so that windows hold whole prefixes
    model, (train, _, _) = partitioned(**long_enough, **changes, train_objective=objective)
    _, (augmented, _, _) = partitioned(**long_enough, **changes, train_objective="augmented")
    rows = augmented._dataset.inter_feat.dense()
    scores = slow_scores(model, rows["item_id_list"], rows["item_length"])
    batch = train._dataset[torch.arange(len(train._dataset))]
    assert_equal(
        model.calculate_loss(batch),
        F.cross_entropy(scores, rows["item_id"]),
        [model.item_embedding.weight, model.history_partition.weight],
    )


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
@pytest.mark.parametrize("max_length", [5, 24])
def test_the_whole_history_leaves_the_loss(build: Callable, objective: str, max_length: int) -> None:
    """Items that are too old for the model to read, too, as they leave the ranking."""
    masked = {"mask_history": "all", "train_mask_history": "auto"}
    changes = {"kernel_structure": "identity-toeplitz", "train_objective": objective}
    model, (train, valid, _) = build(MAX_ITEM_LIST_LENGTH=max_length, **masked, **changes)
    rows, dataset = train._dataset.inter_feat, train._dataset
    batch = dataset[torch.arange(len(dataset))]
    assert bool((batch[EARLIER_LIST_FIELD] > 0).any()) == (max_length == 5)
    assert EARLIER_LIST_FIELD not in valid._dataset[torch.arange(3)]

    if objective == "sequence":
        items, _, _, row = dataset.windows.gather(torch.arange(len(dataset)), max_length)
        hidden, row = model.encode(items)[row >= 0], row[row >= 0]
    else:
        hidden, row = model(batch["item_id_list"], batch["item_length"]), torch.arange(len(rows))
    first: dict[int, int] = {}  # the position of each user's first interaction, just before the first target
    for user, position in zip(rows["user_id"].tolist(), rows.position.tolist(), strict=True):
        first[user] = min(first.get(user, position), position - 1)
    scores, item = model._scores(hidden), rows.sequences["item_id_list"]
    left_out = torch.zeros_like(scores, dtype=torch.bool)
    for at, index in enumerate(row.tolist()):
        history = item[first[int(rows["user_id"][index])] : rows.position[index]]
        left_out[at, history[history != rows["item_id"][index]]] = True
    expected = F.cross_entropy(scores.masked_fill(left_out, -math.inf), rows["item_id"][row])
    assert_equal(model.calculate_loss(batch), expected, [model.item_embedding.weight])


@pytest.mark.parametrize("objective", ["sequence", "augmented"])
def test_auto_leaves_the_history_in_the_loss_of_sparse_data(
    build: Callable, objective: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The tiny data set is dense; with a bound above its density, it is not."""
    changes = {"mask_history": "all", "train_mask_history": "auto", "train_objective": objective}
    for on, max_length in ((True, 9), (False, 10)):  # other lengths, as the fixture keeps its data
        with caplog.at_level(logging.INFO):
            model, (train, _, _) = build(MAX_ITEM_LIST_LENGTH=max_length, **changes)
        dataset = train._dataset
        interactions = len(dataset.inter_feat)  # training rows, one for each target
        share = interactions / (dataset.user_num * dataset.item_num)
        assert density(dataset) == pytest.approx(share)
        assert model.masks_history is on and (dataset.earlier is not None) is on
        word = "on" if on else "off"
        assert f"train_mask_history auto: {word}, since the training data have {share:.2g} targets" in caplog.text
        monkeypatch.setattr(earlier_items, "LEAST_DENSITY", share * 1.001)
        caplog.clear()


@pytest.mark.usefixtures("registrations")
def test_auto_says_nothing_of_a_loss_without_histories(build: Callable, caplog: pytest.LogCaptureFixture) -> None:
    register_loss("plain", PlainCrossEntropy)
    with caplog.at_level(logging.INFO):
        model, _ = build(MAX_ITEM_LIST_LENGTH=8, mask_history="all", train_mask_history="auto", loss_type="plain")
    assert not model.masks_history and "train_mask_history" not in caplog.text


def test_auto_follows_the_protocol() -> None:
    def use(
        partition: object, mask: object, mask_history: str | None, takes_histories: bool = True
    ) -> tuple[bool, bool]:
        keys = {"history_partition": partition, "train_mask_history": mask, "mask_history": mask_history}
        return tuple(history_use(keys, takes_histories))

    assert use("auto", "auto", "all") == (False, "auto")  # by the density of the data
    assert use("auto", "auto", "except_target") == (False, False)  # only a target in the history is ranked
    for masked in ("all", "except_target"):
        assert use(True, "auto", masked) == (True, False)  # auto gives way
        assert use(False, "auto", masked) == (False, "auto" if masked == "all" else False)
    for ranked in ("none", None):
        assert use("auto", "auto", ranked) == (True, False)
        assert use("auto", True, ranked) == (False, True)
    for mask_history in ("all", "except_target", "none", None):
        assert use("auto", "auto", mask_history, takes_histories=False) == (False, False)
        assert use(False, False, mask_history) == use(None, None, mask_history) == (False, False)  # None: not its keys
        assert use(True, False, mask_history) == (True, False) and use(False, True, mask_history) == (False, True)


class PlainCrossEntropy(ItemLoss):
    def forward(self, hidden: Tensor, target: Tensor, item_weight: Tensor) -> Tensor:  # type: ignore[override]
        return F.cross_entropy(hidden @ item_weight.T, target)


@pytest.mark.usefixtures("registrations")
def test_what_makes_no_sense_is_refused(tiny_settings: Callable) -> None:
    register_loss("plain", PlainCrossEntropy)
    cases = [
        (
            {"history_partition": True, "train_mask_history": True},
            "history_partition True and train_mask_history True, with mask_history ~, make no sense together",
        ),
        (
            {"train_mask_history": True, "lazy_prefixes": False},
            "train_mask_history True needs lazy_prefixes: True; without it no histories are kept",
        ),
        ({"history_partition": "maybe"}, "history_partition must be one of True, False, auto; got 'maybe'"),
        (
            {"history_partition": True, "loss_type": "plain"},
            "history_partition True and train_mask_history auto: loss_type plain does not take histories",
        ),
    ]
    for changes, message in cases:
        with pytest.raises(SettingError, match=re.escape(message)) as error:
            Config("NoPESASRec", "tiny", config_dict=tiny_settings(**changes), command_line=[])
        assert "\n" not in str(error.value)
    both = tiny_settings(history_partition="auto", train_mask_history="auto", loss_type="CE")
    Config("NoPESASRec", "tiny", config_dict={**both, "mask_history": "all"}, command_line=[])  # one at a time
    for mask_history in ("all", "none"):
        plain = tiny_settings(loss_type="plain", mask_history=mask_history)
        Config("NoPESASRec", "tiny", config_dict=plain, command_line=[])


def test_it_learns_to_exclude_and_to_copy() -> None:
    """The biases alone, by gradient descent: of users who never repeat, and of users who always do."""
    random = torch.Generator().manual_seed(0)
    item = torch.stack([torch.randperm(29, generator=random)[:12] + 1 for _ in range(16)])
    sequence, position = torch.arange(16).repeat_interleave(10), torch.arange(10).repeat(16)
    hidden, weight = torch.zeros(160, 2), torch.zeros(30, 2)
    for target, sign in ((item[:, 1:11].flatten(), -1), (item[sequence, (position - 2).clamp(min=0)], 1)):
        partition = HistoryPartition(12)
        optimizer = torch.optim.Adam(partition.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            loss = CrossEntropy("auto")(hidden, target, weight, partition.of_targets(item, sequence, position))
            loss.backward()
            optimizer.step()
        biases = [bias for _, _, bias in partition.by_bucket()]
        assert all(bias < -3 for bias in biases[:3]) if sign < 0 else biases[1] > 3
