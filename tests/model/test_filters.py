"""FMLPRec, BSARec and TVRec: equal to their papers' formulas, and what all models promise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from recbole_posattn import Config
from recbole_posattn.experiments.tuning.space_files import read_space
from recbole_posattn.models.filters import FILTER_MODELS, overlap
from recbole_posattn.settings.properties import PROPERTIES
from tests import filter_references
from tests.model.test_models import assert_causal, assert_padding_changes_nothing, assert_trains

NAMES = [model.__name__ for model in FILTER_MODELS]
OBJECTIVES = ["augmented", "sequence"]
CASES = [
    pytest.param(
        name, objective, {"filter_padding": padding} if padding is not None else {}, id=f"{name} {objective} {padding}"
    )
    for name in NAMES
    for objective in OBJECTIVES
    for padding in ([None] if name == "TVRec" else [True, False])
]


@pytest.mark.parametrize("max_length", [10, 7])
@pytest.mark.parametrize(("name", "objective", "changes"), CASES)
def test_equals_the_formulas_of_its_paper(
    build: Callable, histories: tuple, name: str, objective: str, changes: dict, max_length: int
) -> None:
    """At the newest item, for full and padded histories; and at every item where the model is read causally."""
    own = {"bsarec_cutoff": 5, "n_heads": 2} if name == "BSARec" else {"kernel_rank": 3} if name == "TVRec" else {}
    model, _ = build(name, train_objective=objective, MAX_ITEM_LIST_LENGTH=max_length, **own, **changes)
    item_seq, length = histories
    item_seq, length = item_seq[:, :max_length], length.clamp(max=max_length)
    newest = model(item_seq, length)
    for row, n in enumerate(length.tolist()):
        padded = torch.cat([torch.zeros(max_length - n, dtype=torch.long), item_seq[row, :n]])
        causal = objective == "sequence"
        expected = filter_references.encoded(model, padded, causal, bool(changes.get("filter_padding")))
        torch.testing.assert_close(newest[row], expected[-1], rtol=1e-9, atol=1e-10)
        if causal:
            aligned = model._align(item_seq[row : row + 1], length[row : row + 1])
            outputs = model.encode(aligned)[0, aligned.shape[1] - n :]
            torch.testing.assert_close(outputs, expected[max_length - n :], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "objective", "changes"), CASES)
def test_keeps_what_models_promise(build: Callable, histories: tuple, name: str, objective: str, changes: dict) -> None:
    model, (train_data, _, _) = build(name, train_objective=objective, **changes)
    assert_padding_changes_nothing(model, *histories)
    if objective == "sequence" or name == "TVRec":
        assert_causal(model, histories[0][:1])
    else:  # the filter looks ahead: nothing but the newest output is used
        changed = histories[0][:1].clone()
        changed[0, -1] = changed[0, -1] % 19 + 1
        assert not torch.allclose(model.encode(changed)[:, 0], model.encode(histories[0][:1])[:, 0])
    every = model.encode(model._align(*histories))[:, -1]
    torch.testing.assert_close(model(*histories), every, rtol=1e-9, atol=1e-10)
    assert_trains(model, train_data)


@pytest.mark.parametrize("name", NAMES)
def test_trimming_a_batch_changes_neither_loss_nor_gradients(build: Callable, name: str) -> None:
    """With padding left out of the filter, prefixes of 1 to 24 items in buckets give what they give at full length."""
    settings = {"MAX_ITEM_LIST_LENGTH": 24, **({} if name == "TVRec" else {"filter_padding": False})}
    results = []
    for length_bucketing in (False, True):
        model, (train, _, _) = build(name, **settings, train_objective="augmented", length_bucketing=length_bucketing)
        batch = train._dataset[torch.arange(len(train._dataset))]
        assert len(model._buckets(batch["item_length"])) == (3 if length_bucketing else 1)
        loss = model.calculate_loss(batch)
        loss.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results.append((loss.detach(), gradients))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("max_length", [10, 140])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", NAMES)
def test_trains_in_mixed_precision(
    build: Callable, histories: tuple, name: str, objective: str, max_length: int
) -> None:
    """With the products of short sequences and the Fourier transforms of long ones; as ``enable_amp`` on a CPU."""
    model = build(name, train_objective=objective, MAX_ITEM_LIST_LENGTH=max_length)[0].float()
    full = model(*histories)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(*histories)
        mixed.float().square().sum().backward()
    torch.testing.assert_close(mixed.float(), full, rtol=0.1, atol=0.1)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.backbone.parameters())


def test_padding_in_the_filter_matters(build: Callable, histories: tuple) -> None:
    """It is a different model, as the documentation says."""
    for name in ("FMLPRec", "BSARec"):
        outputs = [build(name, filter_padding=padding)[0](*histories) for padding in (True, False)]
        full = histories[1] == 10
        torch.testing.assert_close(outputs[0][full], outputs[1][full], rtol=1e-9, atol=1e-10)
        assert not torch.allclose(outputs[0][~full], outputs[1][~full])


def test_orthogonality_is_added_to_the_loss(build: Callable) -> None:
    plain, (train_data, _, _) = build("TVRec", kernel_rank=3)
    batch = next(iter(train_data))
    penalized, _ = build("TVRec", kernel_rank=3, tvrec_orthogonality=0.5)
    expected = plain.calculate_loss(batch)
    for block in plain.backbone.blocks:
        rows = block.branch.kernel.basis[0]
        for i, row in enumerate(rows):
            for j, other in enumerate(rows):
                cosine = row @ other / (row.norm() * other.norm())
                expected = expected + 0.5 * (cosine - float(i == j)) ** 2
    torch.testing.assert_close(penalized.calculate_loss(batch), expected, rtol=1e-9, atol=1e-10)
    assert overlap(torch.eye(3, 5)[None]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_its_authors_start(name: str) -> None:
    """Width 64, two layers, post-norm with 4 d and GELU, dropout 0.5, prefixes in batches of 256."""
    config = Config(name, "ml-100k", command_line=[])
    expected = {"hidden_size": 64, "n_layers": 2, "inner_size": "4x", "hidden_act": "gelu", "hidden_dropout_prob": 0.5}
    expected |= {"train_objective": "augmented", "train_batch_size": 256, "MAX_ITEM_LIST_LENGTH": 50}
    expected |= {"learning_rate": 1e-3 if name == "FMLPRec" else 5e-4, "loss_type": "CE", "weight_decay": 0.0}
    assert {key: config[key] for key in expected} == expected
    model = config.model_class(config, _Catalogue())
    block = model.backbone.blocks[0]
    assert block.feed_forward.dense_1.out_features == 256 and block.branch.gate is None
    assert (block.attention is None) == (name != "BSARec")
    assert len(model.backbone.input_encodings) == (name != "TVRec")
    weights = model.backbone.blocks[0].branch.kernel
    if name == "FMLPRec":
        assert weights.spectrum.shape == (64, 26, 2) and weights.spectrum.std().item() == pytest.approx(0.02, rel=0.05)
    elif name == "BSARec":
        assert (block.alpha, weights.cutoff, model.backbone.blocks[0].attention.n_heads) == (0.7, 5, 1)
        assert weights.beta.std().item() == pytest.approx(1, abs=0.3)
    else:
        assert weights.coefficient.shape == (1, 50, 32) and weights.basis.shape == (1, 32, 50)
        assert weights.dense().abs().max() < 0.02


class _Catalogue:
    """All that a model asks of its data set."""

    def num(self, field: str) -> int:
        return 21


RECIPES = {
    "paper": {"learning_rate": 5e-4, "weight_decay": 0.0, "attn_dropout_prob": 0.5, "initializer": "normal"},
    "RecBoard": {
        **{"learning_rate": 1e-4, "weight_decay": 1e-4, "attn_dropout_prob": 0.0, "initializer": "xavier_uniform"},
    },
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_published_recipes_of_bsarec_stand_in_its_search_space(recipe: str) -> None:
    space = read_space(PROPERTIES / "tuning" / "BSARec.yaml")
    settings = {**Config("BSARec", "ml-100k", command_line=[]).plain(), **RECIPES[recipe]}
    drawn = space.defaults(settings)
    assert drawn is not None and RECIPES[recipe].items() <= drawn.items()
