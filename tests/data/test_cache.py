"""With ``data_cache``, batches are the same, from files that are mapped into memory and checked by their digests."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_posattn import Config, run
from recbole_posattn.data import cache, sequencing
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.training.load import load, prepare_data

SPLITS = {
    "leave one out": {},
    "masked": {"mask_history": "all", "drop_unseen_targets": True},
    "quantiles": {"mask_history": "none", "eval_args": {"split": {"TQ": [0.6, 0.8]}, "order": "TO", "mode": "full"}},
    "ratios": {"eval_args": {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}},
}
MODELS = {"windows": "PosKernelSASRec", "prefixes": "GRU4Rec"}


def batches(model: str, settings: dict) -> list[dict[str, torch.Tensor]]:
    """All batches of the three parts."""
    config = Config(model, "tiny", config_dict=settings, command_line=[])
    _, loaders = prepare_data(config)
    rows = [batch if isinstance(batch, Interaction) else batch[0] for loader in loaders for batch in loader]
    return [batch.interaction for batch in rows]


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    for our_batch, their_batch in zip(ours, theirs, strict=True):
        assert our_batch.keys() == their_batch.keys()
        for field, values in their_batch.items():
            assert our_batch[field].dtype == values.dtype and torch.equal(our_batch[field], values), field


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("changes", SPLITS.values(), ids=SPLITS)
def test_batches_do_not_depend_on_it(
    tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch, model: str, changes: dict
) -> None:
    monkeypatch.setattr(cache, "_ROWS", 50)
    settings = tiny_settings(train_neg_sample_args=None, **changes)
    expected = batches(model, settings)
    with_cache = {**settings, "data_cache": "cache"}
    assert_equal(batches(model, with_cache), expected)
    monkeypatch.setattr(sequencing, "sequence_order", lambda *_: pytest.fail("sorted again"))
    assert_equal(batches(model, with_cache), expected)
    assert_equal(batches(model, {**with_cache, "MAX_ITEM_LIST_LENGTH": 4}), batches_of_four(model, settings))


def batches_of_four(model: str, settings: dict) -> list[dict[str, torch.Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        from recbole_posattn.data.ordering import sequence_order

        patch.setattr(sequencing, "sequence_order", sequence_order)
        return batches(model, {**settings, "MAX_ITEM_LIST_LENGTH": 4})


def test_it_holds_plain_arrays_of_the_interactions(tiny_settings: Callable) -> None:
    data, _ = prepare_data(Config("GRU4Rec", "tiny", config_dict=tiny_settings(data_cache="cache"), command_line=[]))
    (folder,) = Path("cache").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["columns"].keys() == {"user_id", "item_id", "timestamp"}
    arrays = {field: np.load(folder / column["file"]) for field, column in manifest["columns"].items()}
    assert arrays["user_id"].dtype == arrays["item_id"].dtype == np.int32
    assert arrays["item_id"].tolist() == data.inter_feat.sequences["item_id_list"].tolist()
    assert (np.diff(arrays["timestamp"])[np.diff(arrays["user_id"]) == 0] >= 0).all()
    assert set(manifest["identity"]["data"]) == {"tiny.inter"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "column-1.npy").write_bytes((folder / "column-0.npy").read_bytes()),
        lambda folder: (folder / "column-0.npy").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{}"),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
    ids=["other contents", "no file", "empty manifest", "broken manifest", "no manifest"],
)
def test_a_damaged_cache_is_written_again(
    tiny_settings: Callable, damage: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(data_cache="cache", train_neg_sample_args=None)
    expected = batches("GRU4Rec", settings)
    (folder,) = Path("cache").iterdir()
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert_equal(batches("GRU4Rec", settings), expected)
    assert f"{folder} is damaged and is written again" in caplog.text
    assert [*Path("cache").iterdir()] == [folder] and len([*folder.iterdir()]) == 4


def test_other_data_and_other_filters_have_files_of_their_own(tiny_settings: Callable, empty_folder: Path) -> None:
    settings = tiny_settings(data_cache="cache", train_neg_sample_args=None)
    for changes in ({}, {"user_inter_num_interval": "[6,inf)"}, {"eval_args": SPLITS["ratios"]["eval_args"]}):
        batches("GRU4Rec", {**settings, **changes})
    n_folders = len([*Path("cache").iterdir()])
    assert n_folders == 3
    file = Path("copy/tiny/tiny.inter")
    file.parent.mkdir(parents=True)
    original = Path(settings["data_path"], "tiny", "tiny.inter")
    file.write_bytes(original.read_bytes())
    batches("GRU4Rec", {**settings, "data_path": "copy"})
    assert len([*Path("cache").iterdir()]) == n_folders  # the same contents elsewhere
    file.write_text(file.read_text() + "new\ti1\t5\nnew\ti2\t6\n")
    batches("GRU4Rec", {**settings, "data_path": "copy"})
    assert len([*Path("cache").iterdir()]) == n_folders + 1


def test_a_folder_that_cannot_be_written_and_another_reader_are_refused(tiny_settings: Callable) -> None:
    Path("file").write_text("")
    with pytest.raises(DataError, match=r"data_cache file cannot be used: .*; name another folder"):
        batches("GRU4Rec", tiny_settings(data_cache="file", train_neg_sample_args=None))
    with pytest.raises(SettingError, match="data_cache 'cache' needs lazy_prefixes: True"):
        batches("GRU4Rec", tiny_settings(data_cache="cache", lazy_prefixes=False, train_neg_sample_args=None))


@pytest.mark.parametrize("model", ["BPR", "DIEN"])
def test_it_says_where_it_has_no_effect(tiny_settings: Callable, caplog: pytest.LogCaptureFixture, model: str) -> None:
    mode = (
        {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "labeled"}} if model == "DIEN" else {}
    )
    with caplog.at_level(logging.WARNING):
        Config(model, "tiny", config_dict=tiny_settings(data_cache="cache", **mode), command_line=[])
    assert "data_cache 'cache' has no effect" in caplog.text and not Path("cache").exists()


def test_a_run_with_it_is_the_same_run(tiny_settings: Callable) -> None:
    results = [
        run("PosKernelSASRec", "tiny", config_dict=tiny_settings(data_cache=folder)) for folder in (None, "cache")
    ]
    assert results[0]["test_result"] == results[1]["test_result"] is not None
    assert results[0]["curve"][-1]["loss"] == results[1]["curve"][-1]["loss"]


def first_batch(checkpoint: Path) -> dict[str, torch.Tensor]:
    return next(iter(load(checkpoint).test_data))[0].interaction


def test_a_trained_model_is_loaded_where_the_cache_is_not(
    tiny_settings: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read where it is, and neither needed nor written where it is not."""
    settings = tiny_settings(data_cache="cache", epochs=1)
    checkpoint = Path(run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]).absolute()
    monkeypatch.setattr(sequencing, "sequence_order", lambda *_: pytest.fail("the cache was not read"))
    expected = first_batch(checkpoint)
    monkeypatch.undo()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for blocked in (False, True):
        if blocked:
            (elsewhere / "cache").write_text("")
        assert_equal([first_batch(checkpoint)], [expected])
        assert [file.name for file in elsewhere.iterdir()] == ["cache"] * blocked
