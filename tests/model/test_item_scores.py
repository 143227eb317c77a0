"""Cosine scores, item dropout and weight decay, of all models of this package."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_posattn import Config
from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.dropout import ItemDropout
from recbole_posattn.nn.item_scores import CosineScore, item_score, unit_vectors
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.registry import registered_model_names
from recbole_posattn.settings.yaml import read_yaml
from recbole_posattn.training.trainer import decay_only

# Losses over all items in one piece, in chunks, and of every kind of negatives.
LOSS_SETTINGS = [
    {"loss_type": "CE", "loss_chunk_size": None},
    {"loss_type": "CE", "loss_chunk_size": 7, "label_smoothing": 0.2},
    *({"loss_type": name} for name in LOSSES if name != "CE"),
]


def cosines(hidden: Tensor, item_weight: Tensor, temperature: float) -> Tensor:
    """PyTorch's cosine similarity of each pair, over the temperature, shape (m, n)."""
    return F.cosine_similarity(hidden[:, None], item_weight[None], dim=-1, eps=1e-30) / temperature


def of_model(name: str, **settings: object) -> dict[str, object]:
    """Those of some settings whose keys a model has."""
    known = read_yaml(PROPERTIES / "model" / f"{name}.yaml")
    return {key: value for key, value in settings.items() if key in known}


# -- cosine ----------------------------------------------------------------------------------------------------------


def test_unit_vectors_have_the_gradient_of_their_formula_and_none_at_zero() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_vectors, x)
    torch.testing.assert_close(unit_vectors(x), F.normalize(x, dim=-1))
    zero = torch.zeros(2, 3, requires_grad=True)
    unit = unit_vectors(zero)
    (unit * torch.randn(2, 3)).sum().backward()
    assert torch.equal(unit, torch.zeros(2, 3)) and torch.equal(zero.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("changes", LOSS_SETTINGS, ids=str)
def test_every_loss_takes_cosines(build: Callable, changes: dict) -> None:
    """A loss of dot products of the cosines, shape (m, n), with unit matrix as items is the loss of the cosines."""
    model, (train_data, *_) = build(score="cosine", score_temperature=0.3, **changes)
    weight = model.item_embedding.weight
    seen: list[Tensor] = []
    encode = model.encode

    def noted(*arguments: object, **options: object) -> Tensor:
        seen.append(encode(*arguments, **options))
        return seen[-1]

    model.encode = noted
    batch = next(iter(train_data))
    torch.manual_seed(1)
    loss = model.calculate_loss(batch)
    actual = torch.autograd.grad(loss, [weight, *seen], retain_graph=True)

    labels = [
        model._align(batch[TARGET_LIST_FIELD][bucket], batch["item_length"][bucket])
        for bucket in model._buckets(batch["item_length"])
    ]
    leaves = [output.detach().requires_grad_() for output in seen]
    hidden = torch.cat([leaf[label > 0] for leaf, label in zip(leaves, labels, strict=True)])
    target = torch.cat([label[label > 0] for label in labels])
    items = weight.detach().requires_grad_()
    scores = cosines(hidden, items, 0.3)
    torch.manual_seed(1)
    expected_loss = model.loss(scores, target, torch.eye(len(items), dtype=torch.float64))
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=1e-12)
    grad_items, *grad_hidden = torch.autograd.grad(expected_loss, [items, *leaves])
    (through_encoder,) = torch.autograd.grad(seen, [weight], grad_outputs=grad_hidden)
    for a, b in zip(actual[1:], grad_hidden, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
    expected = grad_items + through_encoder
    torch.testing.assert_close(actual[0][1:], expected[1:], rtol=1e-8, atol=1e-10)
    assert actual[0][0].count_nonzero() == 0  # that of cosine_similarity is as large as 1 / eps


@pytest.mark.parametrize("name", registered_model_names())
def test_rankings_and_single_scores_are_cosines(build: Callable, histories: tuple, name: str) -> None:
    model, _ = build(name, score="cosine", score_temperature=0.05, **of_model(name, read_times=False))
    item_seq, length = histories
    batch = {"item_id_list": item_seq, "item_length": length}
    expected = cosines(model(item_seq, length), model.item_embedding.weight, 0.05)
    scores = model.full_sort_predict(batch)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)
    assert scores.abs().max() <= 1 / 0.05 + 1e-9
    item = torch.tensor([3, 1, 19, 7])
    single = model.predict({**batch, "item_id": item})
    torch.testing.assert_close(single, expected[torch.arange(4), item], rtol=1e-9, atol=1e-9)


def test_the_padding_item_stays_zero(build: Callable) -> None:
    """Dot products train it as a negative; a cosine with it has no direction."""
    for score, stays in (("cosine", True), ("dot", False)):
        model, (train_data, *_) = build(score=score)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        model.calculate_loss(next(iter(train_data))).backward()
        gradient = model.item_embedding.weight.grad
        assert gradient.isfinite().all() and (gradient[0].count_nonzero() == 0) == stays
        assert gradient[1:].abs().max() < 1e3
        optimizer.step()
        assert (model.item_embedding.weight[0].count_nonzero() == 0) == stays


@pytest.mark.parametrize(("name", "temperature"), [("euclid", 1.0), ("cosine", 0.0), ("cosine", math.nan)])
def test_what_is_no_score_is_refused(name: str, temperature: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        item_score(name, temperature)


# -- item dropout ----------------------------------------------------------------------------------------------------


def test_whole_items_are_zeroed_and_padding_is_not() -> None:
    dropout = ItemDropout(0.25).train()
    item = torch.randint(0, 4, (200, 50), generator=torch.Generator().manual_seed(0))
    embedding = torch.randn(200, 50, 8, dtype=torch.float64)
    torch.manual_seed(0)
    dropped = dropout(embedding, item)
    factor = (dropped / embedding)[item > 0]
    assert torch.allclose(factor, factor[:, :1].expand_as(factor))  # all channels of an item alike
    zeroed = factor[:, 0] == 0
    assert zeroed.double().mean().item() == pytest.approx(0.25, abs=0.025)  # five standard deviations
    torch.testing.assert_close(factor[~zeroed], torch.full_like(factor[~zeroed], 4 / 3), rtol=1e-9, atol=0)
    assert torch.equal(dropped[item == 0], embedding[item == 0])
    assert dropout.eval()(embedding, item) is embedding
    assert ItemDropout(0.0).train()(embedding, item) is embedding


@pytest.mark.parametrize("name", registered_model_names())
def test_every_model_drops_items_in_training_only(build: Callable, name: str) -> None:
    still = of_model(name, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, loss_type="CE")
    model, (train_data, *_) = build(name, item_dropout_prob=0.5, **still)
    batch = next(iter(train_data))
    plain = build(name, **still)[0].calculate_loss(batch)
    assert torch.equal(model.calculate_loss(batch), plain)
    model.train()
    losses = {model.calculate_loss(batch).item() for _ in range(3)}
    assert len(losses) == 3 and plain.item() not in losses


NO_MATRICES = ("norm", "kernel", "encoding", "bias", "partition", "tables")


# -- weight decay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registered_model_names())
def test_decay_of_matrices_spares_biases_norms_kernels_and_encodings(build: Callable, name: str) -> None:
    """With zero gradients, AdamW does nothing but decay."""
    extra = {"position_encoding": ["absolute", "t5_bias", "cape"]} if name == "PosKernelSASRec" else {}
    model, _ = build(name, **of_model(name, backbone="recbole"), **extra)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    decay_only(optimizer, model.matrices())
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for key, weight in model.named_parameters():
        is_matrix = key.endswith("weight") and not any(part in key for part in NO_MATRICES)
        torch.testing.assert_close(weight.detach(), before[key] * (0.95 if is_matrix else 1.0), rtol=1e-12, atol=0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)


def test_matrices_are_the_layers_and_the_items(build: Callable) -> None:
    model, _ = build(n_layers=1, position_encoding=["absolute", "t5_bias"])
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert isinstance(model, SASRecBase)
    assert sorted(names[id(weight)].removeprefix("backbone.blocks.0.") for weight in model.matrices()) == sorted(
        ["item_embedding.weight", *EXPECTED_LAYERS]
    )


EXPECTED_LAYERS = [
    "attention.query.weight",
    "attention.key.weight",
    "attention.value.weight",
    "dense.weight",
    "feed_forward.dense_1.weight",
    "feed_forward.dense_2.weight",
]


def test_a_model_without_the_new_keys_has_their_defaults(tiny_settings: Callable, build: Callable) -> None:
    """As one with a YAML file of an earlier version."""
    _, loaders = build()
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    for key in ("score", "score_temperature", "item_dropout_prob", "label_smoothing"):
        del config.final_config_dict[key]
    model = config.model_class(config, loaders[0]._dataset)
    assert not isinstance(model.item_score, CosineScore)
    assert (model.item_dropout.p, model.loss.label_smoothing) == (0.0, 0.0)
