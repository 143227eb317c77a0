"""``trim_padding``: what RecBole's models compute on shorter histories is what they compute on padded ones."""

from __future__ import annotations

import gc
import random
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import recbole.model.sequential_recommender
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_posattn import Config, run
from recbole_posattn.data.shorter import HistoryCutter
from recbole_posattn.errors import SettingError
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.load import build_model, evaluate_checkpoint, prepare_data
from recbole_posattn.training.result import read_users
from recbole_posattn.training.run_folder import LAST_NAME
from recbole_posattn.training.trim_check import Found, difference, find_trimming, result_of
from recbole_posattn.training.trimming import Trimming, replaced, trimmed_loss, trimmed_prediction
from tests.features import DATASET, settings_of

L = 10
CONFIG = {"ITEM_LIST_LENGTH_FIELD": "item_length", "MAX_ITEM_LIST_LENGTH": L, "LIST_SUFFIX": "_list"}
CUTTER = HistoryCutter(
    {**CONFIG, "INVERSE_ITEM_SEQ": None, "POS_ITEMS": None, "NEG_ITEMS": None},
    SimpleNamespace(user_feat=None, item_feat=None),
)


class ToyModel(nn.Module):
    """A sum of item embeddings, whose loss a test adds to."""

    POS_ITEM_ID, ITEM_SEQ, device = "item_id", "item_id_list", torch.device("cpu")

    def __init__(self, **parts: Callable) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 4, padding_idx=0)
        self.place = nn.Parameter(torch.arange(1.0, L + 1))
        self.parts = parts

    def outputs(self, batch: Interaction) -> Tensor:
        return self.embedding(batch["item_id_list"]).sum(dim=1)

    def calculate_loss(self, batch: Interaction) -> Tensor | tuple[Tensor, ...]:
        mean = (self.outputs(batch) * self.embedding(batch["item_id"])).sum(dim=1).square().mean()
        return self.parts.get("loss", lambda model, batch, mean: mean)(self, batch, mean)

    def full_sort_predict(self, batch: Interaction) -> Tensor:
        scores = self.outputs(batch) @ self.embedding.weight.T
        return self.parts.get("scores", lambda model, batch, scores: scores)(self, batch, scores)

    def predict(self, batch: Interaction) -> Tensor:
        return (self.outputs(batch) * self.embedding(batch["item_id"])).sum(dim=1)


def toy_batch(length: list[int]) -> Interaction:
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(1, 20, (len(length), L), generator=generator)
    lengths = torch.tensor(length)
    return Interaction(
        {
            "item_id_list": items.masked_fill(torch.arange(L) >= lengths[:, None], 0),
            "item_length": lengths,
            "item_id": torch.randint(1, 20, (len(length),), generator=generator),
        }
    )


def toy_loader(length: list[int]) -> SimpleNamespace:
    batch = toy_batch(length)
    return SimpleNamespace(
        generator=torch.Generator(),
        collate_fn=lambda rows: batch[torch.tensor(rows)],
        _dataset=SimpleNamespace(inter_feat=batch),
    )


def found_of(model: ToyModel, length: tuple[int, ...] = (3, 10, 1, 7, 7, 2, 5, 10)) -> Found:
    torch.manual_seed(0)
    return find_trimming(model, CUTTER, toy_loader(list(length)), model.calculate_loss)


# -- what is found out -------------------------------------------------------------------------------------------------


def places_lost(model: ToyModel, batch: Interaction, mean: Tensor) -> Tensor:
    """A weight for every place."""
    return mean + (model.embedding(batch["item_id_list"]).sum(dim=-1) * model.place).mean()


@pytest.mark.parametrize(
    ("loss", "training", "reason"),
    [
        pytest.param(lambda model, batch, mean: mean, "groups", "", id="mean over rows"),
        pytest.param(lambda model, batch, mean: (mean, 2 * mean), "groups", "", id="several losses"),
        pytest.param(lambda model, batch, mean: mean + model.place.norm(), "groups", "", id="weight decay"),
        pytest.param(lambda model, batch, mean: mean * len(batch), "batch", "its loss differs", id="sum over rows"),
        pytest.param(
            lambda model, batch, mean: mean + torch.pdist(model.outputs(batch)).sum(),
            *("batch", "its loss differs"),
            id="between rows",
        ),
        pytest.param(
            lambda model, batch, mean: mean + batch["item_id_list"].eq(0).float().mean(),
            *("no", "its loss differs"),
            id="counts padding",
        ),
        pytest.param(
            lambda model, batch, mean: mean + (model.place * 0).sum() * batch["item_id_list"].eq(0).sum(),
            *("groups", ""),
            id="no effect",
        ),
        pytest.param(places_lost, "no", "it fails on shorter histories (RuntimeError)", id="weights of places"),
        pytest.param(
            lambda model, batch, mean: batch["label"], "no", "its loss cannot be computed: 'label'", id="lacks a field"
        ),
    ],
)
def test_the_loss_decides(loss: Callable, training: str, reason: str) -> None:
    found = found_of(ToyModel(loss=loss))
    assert (found.trimming.training, found.why_not_groups) == (training, reason)
    assert found.trimming.evaluation and not found.why_not_scores


def test_gradients_decide_as_well() -> None:
    """The same loss, but gradients that depend on the padding."""

    def loss(model: ToyModel, batch: Interaction, mean: Tensor) -> Tensor:
        scale = 1.0 + batch["item_id_list"].eq(0).float().mean()
        return mean.detach() + (mean - mean.detach()) * scale

    found = found_of(ToyModel(loss=loss))
    assert (found.trimming.training, found.why_not_groups) == ("no", "the gradients of embedding.weight differ")


def test_a_model_that_reads_no_history_is_not_divided() -> None:
    model = ToyModel()
    model.calculate_loss = lambda batch: model.embedding(batch["item_id"]).square().mean()
    found = found_of(model)
    assert found.trimming == Trimming(evaluation=True)
    assert found.why_not_groups == "its work does not grow with the padding"


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (lambda model, batch, scores: scores + batch["item_id_list"].shape[1], "its scores differ"),
        (lambda model, batch, scores: scores + scores.mean(), "its scores differ"),
        (
            lambda model, batch, scores: scores + (batch["item_id_list"] * model.place).sum(dim=1, keepdim=True),
            "it fails on shorter histories (RuntimeError)",
        ),
        (lambda model, batch, scores: batch["label"], "its scores cannot be computed: 'label'"),
    ],
)
def test_scores_are_decided_on_by_themselves(scores: Callable, reason: str) -> None:
    found = found_of(ToyModel(scores=scores))
    assert found.trimming == Trimming("groups", by_targets=True) and found.why_not_scores == reason


def test_batch_normalization_keeps_a_batch_together() -> None:
    model = ToyModel()
    model.norm = nn.BatchNorm1d(4)
    model.outputs = lambda batch: model.norm(model.embedding(batch["item_id_list"]).sum(dim=1))
    found = found_of(model)
    assert found.trimming == Trimming("batch", evaluation=True)
    assert found.why_not_groups == "its batch normalization depends on all rows of a batch"


def test_batch_normalization_over_positions_needs_the_padding() -> None:
    """Its statistics in training are also those of the padding, which the check sees although nothing is trained."""
    model = ToyModel()
    model.norm = nn.BatchNorm1d(4)

    def outputs(batch: Interaction) -> Tensor:
        items = batch["item_id_list"]
        normed = model.norm(model.embedding(items).transpose(1, 2)).transpose(1, 2)
        return (normed * (items > 0).unsqueeze(-1)).sum(dim=1)

    model.outputs = outputs
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = found_of(model)
    assert found.trimming.training == "no" and "its loss differs" in found.why_not_groups and found.trimming.evaluation
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_there_is_nothing_to_trim_in_full_histories() -> None:
    found = found_of(ToyModel(), length=(L, L, L))
    assert found.trimming == Trimming() and "no history is shorter" in found.why_not_groups


def test_the_comparison_leaves_no_trace() -> None:
    model = ToyModel(loss=lambda model, batch, mean: mean + torch.rand(()) + random.random() + np.random.rand())
    model.embedding.weight.grad = torch.ones(20, 4)
    model.train()
    loader = toy_loader([1, 5, 10])
    torch.manual_seed(3), random.seed(3), np.random.seed(3), loader.generator.manual_seed(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def drawn() -> tuple:
        return torch.rand(()), random.random(), np.random.rand(), torch.rand((), generator=loader.generator)

    expected = drawn()
    torch.manual_seed(3), random.seed(3), np.random.seed(3), loader.generator.manual_seed(3)
    find_trimming(model, CUTTER, loader, model.calculate_loss)
    assert drawn() == expected
    assert model.training and bool((model.embedding.weight.grad == 1).all())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_compiled_model_is_compared_without_being_compiled() -> None:
    model = ToyModel()
    called = []
    compiled = vars(model)["forward"] = called.append
    model.calculate_loss = lambda batch: (
        model.forward(batch) if vars(model).get("forward") else model.outputs(batch).sum()
    )
    find_trimming(model, CUTTER, toy_loader([1, 5, 10]), model.calculate_loss)
    assert not called and vars(model)["forward"] is compiled


def test_a_method_is_replaced_for_a_while() -> None:
    model = ToyModel()
    own = vars(model)["predict"] = lambda batch: 2
    with pytest.raises(ZeroDivisionError), replaced(model, {"predict": lambda batch: 3, "outputs": lambda batch: 4}):
        assert (model.predict(None), model.outputs(None)) == (3, 4)
        raise ZeroDivisionError
    assert model.predict is own and "outputs" not in vars(model)


@pytest.mark.parametrize(
    "kept", [{"training": "all"}, {"by_targets": 1}, {"evaluation": "yes"}, {"no_such": True}, {"training": None}]
)
def test_what_a_checkpoint_says_is_checked(kept: dict) -> None:
    with pytest.raises((TypeError, ValueError)):
        Trimming.from_plain(kept)
    trimming = Trimming("groups", True, True)
    assert Trimming.from_plain(trimming.plain()) == trimming and Trimming.from_plain(None) == Trimming()


# -- RecBole's models --------------------------------------------------------------------------------------------------

GROUPS, BATCH, NO = "groups", "batch", "no"

# How each of RecBole's sequential models is trained, and whether it is evaluated in groups. docs/recbole.md says why.
MODELS = {
    "BERT4Rec": (GROUPS, True),
    "CORE": (GROUPS, True),
    "Caser": (NO, False),
    "DIEN": (NO, False),
    "DIN": (NO, False),
    "FDSA": (GROUPS, True),
    "FEARec": (NO, False),
    "FOSSIL": (NO, False),
    "FPMC": (NO, False),
    "GCSAN": (GROUPS, True),
    "GRU4Rec": (GROUPS, True),
    "GRU4RecCPR": (NO, False),
    "GRU4RecF": (GROUPS, True),
    "GRU4RecKG": (GROUPS, True),
    "HGN": (NO, False),
    "HRM": (NO, False),
    "KSR": (GROUPS, True),
    "LightSANs": (NO, False),
    "NARM": (GROUPS, True),
    "NPE": (NO, False),
    "NextItNet": (NO, False),
    "RepeatNet": (NO, False),
    "S3Rec": (NO, True),
    "SASRec": (GROUPS, True),
    "SASRecCPR": (NO, False),
    "SASRecF": (GROUPS, True),
    "SHAN": (BATCH, False),
    "SINE": (NO, False),
    "SRGNN": (GROUPS, True),
    "STAMP": (NO, False),
    "TransRec": (NO, False),
}
IN_FAST_TESTS = ("SASRec", "GRU4Rec", "BERT4Rec", "NextItNet", "SHAN")


@pytest.fixture
def prepared_model(features_path: Path) -> Callable[..., tuple]:
    """A model of RecBole's with weights that are not small, its settings and its loaders."""

    def prepared_model(name: str, **changes: object) -> tuple:
        base = {"data_path": str(features_path), "MAX_ITEM_LIST_LENGTH": L, "train_batch_size": 8, "state": "ERROR"}
        config = Config(name, DATASET, config_dict={**base, **settings_of(name), **changes}, command_line=[])
        _, loaders = prepare_data(config)
        model = build_model(config, loaders[0])
        if name == "KSR":  # RecBole keeps them in float64, and fails
            model.relation_Matrix = model.relation_Matrix.float()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(4.0)
        return config, model, loaders

    return prepared_model


@pytest.mark.parametrize(
    "name", [name if name in IN_FAST_TESTS else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_how_a_model_of_recboles_is_computed(prepared_model: Callable, name: str) -> None:
    config, model, (train_data, *_) = prepared_model(name)
    if name == "CORE":  # in float32, a gradient differs by about the tolerance, so that the CPU's rounding decides
        model = model.double()
    found = find_trimming(model, HistoryCutter(config, train_data._dataset), train_data, model.calculate_loss)
    assert (found.trimming.training, found.trimming.evaluation) == MODELS[name], found


def test_every_sequential_model_of_recboles_is_listed() -> None:
    sequential = Path(recbole.model.sequential_recommender.__file__).parent.glob("[a-z]*.py")
    assert {file.stem for file in sequential} == {name.lower() for name in MODELS}


def test_the_page_says_how_they_are_computed() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recbole.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (groups|batch|no) \| (groups|no) \| (.*?) \|", page, flags=re.M)
    assert {name: (training, evaluation == "groups") for name, training, evaluation, _ in rows} == MODELS
    assert all(why for _, training, _, why in rows if training != GROUPS)


@settings(max_examples=25)
@given(st.data())
def test_groups_of_any_batch_have_its_loss_and_scores(data: st.DataObject) -> None:
    """A model with a recurrent network, in float64."""
    length = data.draw(st.lists(st.integers(1, L), min_size=1, max_size=12))
    group_cost = data.draw(st.sampled_from([0.5, 5.0, 100.0]))
    torch.manual_seed(0)
    model, gru = ToyModel().double(), nn.GRU(4, 4, batch_first=True).double()
    model.gru = gru
    model.outputs = lambda batch: gru(model.embedding(batch["item_id_list"]))[0][
        torch.arange(len(batch)), batch["item_length"] - 1
    ]
    batch = toy_batch(length)
    padded = result_of(model, model.calculate_loss, batch)
    for trimming in (Trimming("groups", by_targets=True), Trimming("groups"), Trimming("batch"), Trimming()):
        shorter = result_of(model, trimmed_loss(model.calculate_loss, trimming, CUTTER, group_cost), batch)
        assert not difference(padded, shorter)
        torch.testing.assert_close(shorter.losses, padded.losses)
        torch.testing.assert_close(shorter.gradients, padded.gradients)
    for predict in (model.full_sort_predict, model.predict):
        torch.testing.assert_close(trimmed_prediction(predict, CUTTER, group_cost)(batch), predict(batch))


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GRU4Rec", pytest.param("SASRec", marks=pytest.mark.slow)])
def test_without_dropout_a_trimmed_run_ends_as_a_padded_one(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And its batches are computed in groups, of which none is padded to the full length without need."""
    widths = []
    rate = {
        "hidden_dropout_prob": 0.0,
        "attn_dropout_prob": 0.0,
        "dropout_prob": 0.0,
        "n_heads": 1,
        "train_batch_size": 256,
    }
    monkeypatch.setattr("recbole_posattn.training.trimmer.GROUP_COST", {"cpu": 1})
    model_class = Config(name, "tiny", config_dict=tiny_settings(), command_line=[]).model_class
    forward = model_class.forward

    def noted(model: nn.Module, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        widths.append((item_seq.shape[1], int(item_seq_len.max())))
        return forward(model, item_seq, item_seq_len)

    monkeypatch.setattr(model_class, "forward", noted)
    results = []
    for trim in ("auto", False):
        widths.clear()
        results.append(run(name, "tiny", config_dict=tiny_settings(**rate, trim_padding=trim), saved=False))
        if trim:
            batches = widths[-5:]  # of the test, whose histories have many lengths
            assert all(width == longest for width, longest in batches) and {width for width, _ in batches} != {L}
        else:
            assert {width for width, _ in widths} == {L}
    trimmed, padded = results
    assert [epoch["loss"] for epoch in trimmed["curve"]] == pytest.approx(
        [epoch["loss"] for epoch in padded["curve"]], rel=1e-5
    )
    assert trimmed["test_result"] == pytest.approx(padded["test_result"], abs=0.02)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("GRU4Rec", "GRU4Rec is trained in groups of similar length and evaluated in such groups"),
        (
            "STAMP",
            "STAMP is trained with all padding (the gradients of b_a differ) and evaluated with all padding (its "
            "scores differ)",
        ),
        ("PosKernelSASRec", None),
        ("BPR", None),
    ],
)
def test_the_log_says_it_in_one_line(
    tiny_settings: Callable, caplog: pytest.LogCaptureFixture, name: str, line: str | None
) -> None:
    caplog.set_level("INFO")
    run(name, "tiny", config_dict=tiny_settings(epochs=1), saved=False)
    lines = [record.getMessage() for record in caplog.records if "trim_padding:" in record.getMessage()]
    assert lines == ([] if line is None else [f"trim_padding: {line}"])


def test_a_model_that_needs_its_padding_is_refused_if_asked_for(tiny_settings: Callable) -> None:
    message = "trim_padding True is not possible with STAMP: the gradients of b_a differ; use auto or False"
    with pytest.raises(SettingError, match=message):
        run("STAMP", "tiny", config_dict=tiny_settings(trim_padding=True), saved=False)
    for name in ("GRU4Rec", "BPR", "PosKernelSASRec"):
        run(name, "tiny", config_dict=tiny_settings(trim_padding=True, epochs=1), saved=False, test=False)


def test_a_checkpoint_is_evaluated_as_in_its_run(tiny_settings: Callable) -> None:
    result = run("GRU4Rec", "tiny", config_dict=tiny_settings(epochs=1), command_line=[])
    metrics, users = evaluate_checkpoint(result["checkpoint"])
    assert metrics == result["test_result"]
    pd.testing.assert_frame_equal(users, read_users(Path(result["checkpoint"]).parent), check_dtype=False)


def test_a_run_of_an_older_version_goes_on_with_its_padding(
    tiny_settings: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    """It is resumed as it was begun: its random numbers would be others."""
    settings = tiny_settings(epochs=2, dropout_prob=0.3)
    padded = run("GRU4Rec", "tiny", config_dict={**settings, "trim_padding": False, "checkpoint_dir": "padded"})
    run("GRU4Rec", "tiny", config_dict={**settings, "epochs": 1, "trim_padding": False})
    (last,) = Path("saved").glob(f"*/{LAST_NAME}")
    content = read_checkpoint(last)
    del content["training"]["trimming"], content["config"]["trim_padding"]
    write_checkpoint(content, last)
    resumed = run(resume=last.parent, config_dict={"epochs": 2})
    assert [epoch["loss"] for epoch in resumed["curve"]] == [epoch["loss"] for epoch in padded["curve"]]
    assert resumed["test_result"] == padded["test_result"]


def test_a_loss_that_fails_leaves_no_tensors() -> None:
    """The operations before the failure keep their own outputs, as tanh does for its gradient."""
    outputs: list[weakref.ref] = []

    def fails(batch: Interaction) -> Tensor:
        output = torch.tanh(model(batch["x"]))
        outputs.append(weakref.ref(output))
        raise ValueError("no loss")

    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no loss"):
        result_of(model, fails, Interaction({"x": torch.ones(3, 2)}))
    gc.collect()
    assert [output() for output in outputs] == [None]
