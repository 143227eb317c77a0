"""ESASRec, HSTU and TiSASRec: equal to their papers' formulas, and what all models promise."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_posattn import Config
from recbole_posattn.data.fields import TIME_LIST_FIELD
from recbole_posattn.errors import SettingError
from recbole_posattn.models.rivals import RIVALS
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.nn.encoder import build_encoder
from recbole_posattn.nn.intervals import IntervalTables, personal_intervals
from recbole_posattn.nn.losses.negatives import NegativeItems
from recbole_posattn.nn.losses.sampled import TargetSampledSoftmax
from recbole_posattn.nn.times import Times
from tests import rival_references
from tests.model.test_models import assert_causal, assert_padding_changes_nothing, assert_trains
from tests.model.test_timed_models import sequences
from tests.timed import loaded_timed, write_timed

NAMES = [model.__name__ for model in RIVALS]
TIMED_NAMES = ["HSTU", "TiSASRec"]


@pytest.fixture(scope="module")
def timed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_timed(tmp_path_factory.mktemp("timed"))


@pytest.fixture
def timed(timed_path: Path) -> Callable[..., tuple[SASRecBase, Any]]:
    """A model in float64 with random weights, and its loaders, on data with times."""

    def timed(model: str, **changes: Any) -> tuple[SASRecBase, Any]:
        loaded = loaded_timed(timed_path, model, **changes)
        return loaded.model.double(), loaded.train_data

    return timed


@pytest.mark.parametrize("alignment", ["end", "start"])
@pytest.mark.parametrize("rows", [256, 4], ids=["at once", "in blocks"])
@pytest.mark.parametrize("read_times", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_formulas_of_its_paper(
    timed: Callable, monkeypatch: pytest.MonkeyPatch, name: str, read_times: bool, rows: int, alignment: str
) -> None:
    """At every item of full and padded histories, with equal times among them, queries in blocks as well."""
    if name == "ESASRec" and (read_times or rows == 4):
        pytest.skip("reads no times, and its attention is that of all models")
    monkeypatch.setattr("recbole_posattn.nn.attention.ROWS", rows)
    own = {} if name == "ESASRec" else {"read_times": read_times}
    own |= {"tisasrec_intervals": 7} if name == "TiSASRec" else {}
    model, _ = timed(name, n_heads=2, position_alignment=alignment, **own)
    assert model.reads_time == read_times
    items, length, times = sequences()
    times[0, 4] = times[0, 3]
    newest = model(items, length, *([times] if read_times else []))
    for row, n in enumerate(length.tolist()):
        seconds = times[row, :n].tolist() if read_times else None
        expected = rival_references.encoded(model, items[row, :n], seconds, alignment)
        torch.testing.assert_close(newest[row], expected[-1], rtol=1e-9, atol=1e-10)
        aligned = model._align(items[row : row + 1], length[row : row + 1])
        of_items = model._align_times(times[row : row + 1] if read_times else None, length[row : row + 1])
        outputs = model.encode(aligned, times=of_items)[0]
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_what_models_promise_without_times(build: Callable, histories: tuple, name: str) -> None:
    off = {} if name == "ESASRec" else {"read_times": False}
    for alignment in ("end", "start"):
        model, (train_data, _, _) = build(name, position_alignment=alignment, n_heads=2, **off)
        assert_padding_changes_nothing(model, *histories)
        assert_causal(model, histories[0][:1])
        every = model.encode(model._align(*histories))
        newest = torch.full((4,), -1) if model.newest_last else histories[1] - 1
        torch.testing.assert_close(model(*histories), every[torch.arange(4), newest], rtol=1e-9, atol=1e-10)
    assert_trains(model, train_data)


@pytest.mark.parametrize("name", TIMED_NAMES)
def test_padding_and_later_times_change_nothing(timed: Callable, name: str) -> None:
    for alignment in ("end", "start"):
        model, train_data = timed(name, position_alignment=alignment, n_heads=2)
        items, length, times = sequences()
        together = model(items, length, times)
        for row, n in enumerate(length.tolist()):
            alone = model(items[row : row + 1, :n], length[row : row + 1], times[row : row + 1, :n])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(model(items, length, times - 1e8), together, rtol=1e-6, atol=1e-7)

        whole, before = items[:1], model._align_times(times[:1], length[:1])
        later = before.clone()
        later[:, 6:] += torch.arange(1, 5) * 86400.0
        outputs, changed = (model.encode(whole, times=each) for each in (before, later))
        torch.testing.assert_close(changed[:, :6], outputs[:, :6], rtol=0, atol=1e-12)
        assert not torch.allclose(changed[:, 6:], outputs[:, 6:])
    assert_trains(model, train_data)


@given(
    steps=st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5, 60.0, 86400.0, 4e7]), min_size=1, max_size=12),
    largest=st.sampled_from([1, 5, 256]),
)
def test_intervals_are_those_of_loops_and_do_not_depend_on_the_unit(steps: list[float], largest: int) -> None:
    """All equal times make intervals of 0."""
    times = torch.tensor([steps], dtype=torch.float64).cumsum(dim=1)
    n = len(steps)
    intervals = personal_intervals(Times(times), 0, n, n, largest)[0]
    for i, row in enumerate(rival_references.tisasrec_intervals(times[0].tolist(), largest)):
        assert intervals[i, : i + 1].tolist() == row
    assert torch.equal(personal_intervals(Times(8 * times), 0, n, n, largest)[0], intervals)
    assert torch.equal(personal_intervals(Times(times), n - 1, 1, n, largest)[0], intervals[-1:])


def test_penalty_on_embeddings_is_added_to_the_loss(timed: Callable) -> None:
    plain, train_data = timed("TiSASRec", tisasrec_embedding_l2=0.0)
    penalized, _ = timed("TiSASRec", tisasrec_embedding_l2=0.01)
    batch = next(iter(train_data))
    tables = plain.backbone.blocks[0].attention.tables
    assert plain.backbone.blocks[1].attention.tables is tables
    weights = [plain.item_embedding, tables.position_key, tables.position_value]
    weights += [tables.interval_key, tables.interval_value]
    expected = 0.01 * sum(float(each.weight.detach().square().sum()) for each in weights)
    torch.manual_seed(0)
    loss = plain.calculate_loss(batch)
    torch.manual_seed(0)
    torch.testing.assert_close(penalized.calculate_loss(batch), loss + expected, rtol=1e-9, atol=1e-10)
    assert IntervalTables(4, 5, 0, 0.0).intervals() is None


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_its_authors_start(name: str) -> None:
    config = Config(name, "ml-100k", config_dict={"read_times": "auto"} if name != "ESASRec" else {}, command_line=[])
    expected: dict[str, Any] = {"n_layers": 2, "n_heads": 1, "hidden_dropout_prob": 0.2, "train_objective": "sequence"}
    expected |= {"learning_rate": 1e-3, "train_batch_size": 128, "weight_decay": 0.0}
    own: dict[str, dict[str, Any]] = {
        "ESASRec": {"hidden_size": 64, "loss_type": "TSSM", "backbone": "ligr", "inner_size": "4x", "score": "dot"},
        "HSTU": {"hidden_size": 64, "loss_type": "TSSM", "score": "cosine", "score_temperature": 0.05},
        "TiSASRec": {"hidden_size": 50, "loss_type": "BCE", "tisasrec_intervals": 256, "tisasrec_embedding_l2": 5e-5},
    }
    expected |= own[name]
    expected |= {} if name == "ESASRec" else {"learner_args": {"betas": [0.9, 0.98]}}
    assert {key: config[key] for key in expected} == expected
    assert config["loss_negatives"]["sample_num"] == {"ESASRec": 256, "HSTU": 128, "TiSASRec": 1}[name]
    model = config.model_class(config, _Catalogue())
    block, d = model.backbone.blocks[0], expected["hidden_size"]
    if name == "ESASRec":
        assert block.feed_forward.dense_1.weight.shape == (256, 64) and model.newest_last
        assert block.attention.query.weight.std().item() == pytest.approx(math.sqrt(2 / (4 * d)), rel=0.1)
        assert block.dense.weight.std().item() == pytest.approx(math.sqrt(2 / (2 * d)), rel=0.1)
    elif name == "HSTU":
        assert block.pointwise.uvqk.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert block.pointwise.output.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (2 * d)), rel=0.05)
        positions = model.backbone.input_encodings[0].embedding.weight
        assert positions.abs().max() <= 2 * d**-0.5 and not model.newest_last
        assert block.pointwise.bias.time.weight.shape == (1, 129) and block.pointwise.bias.position.shape == (1, 50)
    else:
        tables = block.attention.tables
        assert tables.interval_key.weight.shape == (257, 50) and tables.position_value.weight.shape == (50, 50)
        assert model.newest_last


class _Catalogue:
    """All that a model asks of its data set, with a few interactions to draw negatives by."""

    iid_field, item_num = "item_id", 21
    inter_feat = {"item_id": torch.arange(1, 21)}  # noqa: RUF012

    def num(self, field: str) -> int:
        return 21


@pytest.mark.parametrize("name", TIMED_NAMES)
def test_times_that_are_only_an_order_are_left_out(
    build: Callable, tiny_settings: Callable, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line, by default; refused when they are asked for."""
    with caplog.at_level(logging.WARNING):
        config = Config(name, "tiny", config_dict=tiny_settings(time_is_order=True), command_line=[])
    assert not config["reads_time"]
    assert any("is off: the times of data set 'tiny' only order the interactions" in line for line in caplog.messages)
    model = config.model_class(config, _Catalogue())
    names = [parameter for parameter, _ in model.named_parameters()]
    assert not any("time" in each or "interval" in each for each in names)
    with pytest.raises(SettingError, match=f"of {name} reads the times between interactions, but"):
        Config(name, "tiny", config_dict=tiny_settings(time_is_order=True, read_times=True), command_line=[])


def test_sampled_softmax_of_a_targets_own_negatives() -> None:
    loss = TargetSampledSoftmax(NegativeItems("uniform", torch.ones(30, dtype=torch.int64)), 5)
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 4, dtype=torch.float64, generator=random) for n in (7, 30))
    target = torch.randint(1, 30, (7,), generator=random)
    torch.manual_seed(1)
    value = loss(hidden, target, weight)
    torch.manual_seed(1)
    negative = loss.negatives.sample(target, 5)
    expected = []
    for h, y, others in zip(hidden, target, negative, strict=True):
        total = sum(torch.exp(h @ weight[i]) for i in (y, *others))
        expected.append(-torch.log(torch.exp(h @ weight[y]) / total))
    torch.testing.assert_close(value, torch.stack(expected).mean(), rtol=1e-12, atol=1e-12)


def test_ligr_blocks_go_with_kernels_branches_and_encodings() -> None:
    """The backbone is one of all models."""
    torch.manual_seed(0)
    parts = {"kernel_branch": "toeplitz", "backbone": "ligr", "block_options": {"inner_size": 16}}
    encoder = build_encoder(10, 8, 2, 2, "toeplitz-full", ["rope"], **parts).double()
    x = torch.randn(3, 10, 8, dtype=torch.float64)
    every = encoder(x)
    torch.testing.assert_close(encoder(x, last_only=True), every[:, -1:], rtol=1e-9, atol=1e-10)
    later = x.clone()
    later[:, 6:] += 1
    torch.testing.assert_close(encoder(later)[:, :6], every[:, :6], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="the ligr backbone always has a projection"):
        build_encoder(10, 8, backbone="ligr", block_options={"output_projection": True})
    with pytest.raises(ValueError, match="attention must be softmax or none, got 'None'"):
        build_encoder(10, 8, attention="None")
    with pytest.raises(ValueError, match="without attention, encodings must act at the input, got rope"):
        build_encoder(10, 8, attention="none", kernel_branch="toeplitz", encodings=["rope"])


@settings(max_examples=20)
@given(length=st.integers(1, 9), seed=st.integers(0, 99))
def test_intervals_of_a_prefix_are_those_of_the_whole(length: int, seed: int) -> None:
    """So that a loss at every position trains on what is predicted."""
    random = torch.Generator().manual_seed(seed)
    times = torch.randint(0, 3, (1, 10), generator=random).double().cumsum(dim=1)
    full = personal_intervals(Times(times), 0, 10, 10, 9)[0]
    cut: Tensor = personal_intervals(Times(times[:, :length]), 0, length, length, 9)[0]
    assert torch.equal(full[:length, :length], cut)


def test_a_batch_without_times_is_refused(timed: Callable) -> None:
    for name in TIMED_NAMES:
        model, train_data = timed(name)
        batch = next(iter(train_data))
        assert TIME_LIST_FIELD in batch
        with pytest.raises(ValueError, match=f"{name} reads the times between items, but got none"):
            model(batch["item_id_list"], batch["item_length"])
