"""A resumed run has its old settings and data, except for settings that may change, and uses the changed ones."""

from __future__ import annotations

import ast
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_posattn.compat import TRAINED_ARRAYS, TRAINED_NUMBERS

import numpy as np
import pytest
import recbole
import torch
from torch import nn

from recbole_posattn import Config, load, run
from recbole_posattn.cli.main import main
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.experiments.identity import identify
from recbole_posattn.nn.losses.cross_entropy import CrossEntropy
from recbole_posattn.settings.keys import CHANGEABLE, RESUMABLE
from recbole_posattn.settings.registry import find_model
from recbole_posattn.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from recbole_posattn.training.same_run import setting_differences
from recbole_posattn.training.state import (
    changed_counters,
    counters,
    restore_arrays,
    restore_counters,
    restore_optimizer,
    trained_arrays,
)
from tests.planted import lagged_sequences, write_atomic_file

# Of each setting that may change: a value before and the one after.
CHANGES = {
    "clip_grad_norm": ({"max_norm": 5.0}, {"max_norm": 0.25}),
    "enable_amp": (False, True),
    "learning_rate": (0.01, 0.5),
    "loss_chunk_size": (512, 64),
    "train_batch_size": (16, 8),
}


@pytest.fixture
def run_of(finished_run: Callable) -> Callable[..., Path]:
    """The folder of a run of one epoch."""

    def run_of(model: str = "PosKernelSASRec", **changes: object) -> Path:
        return finished_run(model, **{"epochs": 1, **changes})

    return run_of


@pytest.fixture
def seen_in_training(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each step of PosKernelSASRec and FEARec computes with, for the settings that may change."""
    steps: list[dict[str, Any]] = []

    def watch(model: type) -> None:
        loss_of = model.calculate_loss

        def watched(recommender: Any, batch: Any) -> Any:
            loss = next((m for m in recommender.modules() if isinstance(m, CrossEntropy)), None)
            seen = {"train_batch_size": len(batch), "enable_amp": torch.is_autocast_enabled("cpu")}
            steps.append({**seen, "loss_chunk_size": loss.chunk_size if loss else None, "model": recommender})
            return loss_of(recommender, batch)

        monkeypatch.setattr(model, "calculate_loss", watched)

    watch(find_model("PosKernelSASRec"))
    watch(find_model("FEARec"))
    clip, step = torch.nn.utils.clip_grad_norm_, torch.optim.Adam.step

    def clipped(parameters: Any, **options: Any) -> Any:
        steps[-1]["clip_grad_norm"] = options
        return clip(parameters, **options)

    def stepped(optimizer: Any, *arguments: Any, **options: Any) -> Any:
        steps[-1]["learning_rate"] = optimizer.param_groups[0]["lr"]
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipped)
    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    return steps


# -- what may change -------------------------------------------------------------------------------------------------


def test_every_setting_that_may_change_has_a_test() -> None:
    assert CHANGES.keys() == CHANGEABLE


@pytest.mark.slow
@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_setting_is_used(tiny_settings: Callable, seen_in_training: list[dict], key: str) -> None:
    before, now = CHANGES[key]
    settings = tiny_settings(epochs=1, **{key: before})
    folder = Path(run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]).parent
    assert seen_in_training[0][key] == before
    seen_in_training.clear()
    result = run(config_dict={"epochs": 2, key: now}, command_line=[], resume=folder)
    assert seen_in_training and seen_in_training[0][key] == now
    assert result["changes"] == [{"epoch": 1, "key": key, "before": before, "now": now}]
    assert read_checkpoint(folder / LAST_NAME)["config"][key] == now


@pytest.mark.parametrize("value", ["auto", None])
def test_a_chunk_size_can_change_to_auto_and_none(
    run_of: Callable, seen_in_training: list[dict], value: str | None
) -> None:
    folder = run_of(loss_chunk_size=512)
    run(config_dict={"epochs": 2, "loss_chunk_size": value}, command_line=[], resume=folder)
    assert seen_in_training[-1]["loss_chunk_size"] == value
    run(config_dict={"epochs": 3, "loss_chunk_size": 32}, command_line=[], resume=folder)
    assert seen_in_training[-1]["loss_chunk_size"] == 32


def test_fearec_uses_the_current_batch_size(run_of: Callable, seen_in_training: list[dict]) -> None:
    """It keeps their size in an attribute, and makes a mask of it."""
    folder = run_of("FEARec", train_batch_size=64, n_heads=1)
    run(config_dict={"epochs": 2, "train_batch_size": 32}, command_line=[], resume=folder)
    assert seen_in_training[-1]["model"].batch_size == 32


def test_a_checkpoint_of_an_older_version_goes_on(
    run_of: Callable, seen_in_training: list[dict], caplog: pytest.LogCaptureFixture
) -> None:
    """It held every number of the model, no digest of the data, and not which settings were given."""
    folder = run_of(loss_chunk_size=512)
    content = read_checkpoint(folder / LAST_NAME)
    content["training"]["counters"] = {"loss_function": {"chunk_size": 512}, "": {"update": 3}}
    for key in ("arrays", "given", "model_file"):
        del content["training"][key]
    del content["data"]
    write_checkpoint(content, folder / LAST_NAME)
    with caplog.at_level(logging.INFO):
        result = run(config_dict={"epochs": 2, "loss_chunk_size": 64}, command_line=[], resume=folder)
    assert result["epochs"] == 2 and seen_in_training[-1]["loss_chunk_size"] == 64
    assert seen_in_training[-1]["model"].update == 3  # a counter of RecBole's models is taken over
    assert "was started by a version that stored no digest of its data" in caplog.text


# -- what training changes -------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """A model that counts its steps, in itself and in a part, beside numbers that are settings."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size, self.steps, self.rate, self.late = batch_size, 0, 1.0, False
        self.part = nn.Linear(2, 2)
        self.part.calls = 0

    def train_a_step(self) -> None:
        self.steps += 1
        self.rate *= 0.5
        self.late = True
        self.part.calls += 2
        self.of_last_batch = 7


def test_what_training_changes_is_restored_and_settings_are_not() -> None:
    first, second = Counting(16), Counting(8)
    untrained = counters(first)
    assert changed_counters(first, untrained) == {}
    first.train_a_step()
    kept = changed_counters(first, untrained)
    assert kept == {"": {"steps": 1, "rate": 0.5, "late": True, "of_last_batch": 7}, "part": {"calls": 2}}
    restore_counters(second, kept)
    assert (second.batch_size, second.steps, second.rate, second.late, second.part.calls) == (8, 1, 0.5, True, 2)
    third = Counting(8)
    restore_counters(third, kept, names={"steps"})
    assert (third.steps, third.rate) == (1, 1.0)
    for name, value in (("forward", 1), ("steps", "many"), ("part", 1)):
        with pytest.raises(ValueError, match=f"{name} of the model is not one of its numbers"):
            restore_counters(third, {"": {name: value}})


def test_what_recboles_models_change_in_place_is_kept() -> None:
    """Numbers are found by themselves; arrays must be listed, or be among the model's ``other_parameter_name``."""
    numbers, arrays = set(), set()
    for file in sorted(Path(recbole.__file__).parent.joinpath("model").rglob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RecBole's invalid escape sequences
            tree = ast.parse(file.read_text())
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        for kind in classes:
            for method in kind.body:
                # of the other methods, only constructors call these
                if getattr(method, "name", "__init__") in ("__init__", "_get_feature2field", "get_fields_name_dim"):
                    continue
                if getattr(method, "name", "").startswith(("get_embedding", "_get_fields_name_dim", "fields_num")):
                    continue
                changed = _changed_in_place(method)
                numbers |= {name for name in changed if changed[name] == "number"}
                arrays |= {(kind.name, name) for name in changed if changed[name] == "array"}
    arrays = {(kind, name) for kind, name in arrays if hasattr_of_model(kind, name) is False}
    assert numbers == TRAINED_NUMBERS
    listed = {(kind, name) for kind, names in TRAINED_ARRAYS.items() for name in names}
    assert arrays <= listed
    assert listed - arrays == {  # these are replaced, between two epochs
        ("KGAT", "A_in"),
        *(("NCL", f"{side}_{what}") for side in ("user", "item") for what in ("centroids", "2cluster")),
    }


def _changed_in_place(method: ast.AST) -> dict[str, str]:
    """Attributes of ``self`` that a method adds to, writes into or shuffles."""
    found = {}
    for node in ast.walk(method):
        if isinstance(node, ast.AugAssign) and _of_self(node.target):
            found[node.target.attr] = "number"
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if _is_aug(node) else []
        for target in targets:
            if isinstance(target, ast.Subscript) and _of_self(target.value):
                found[target.value.attr] = "array"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("shuffle") and _of_self(node.args[0]):
            found[node.args[0].attr] = "array"
    return found


def _is_aug(node: ast.AST) -> bool:
    return isinstance(node, ast.AugAssign)


def _of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def hasattr_of_model(kind: str, name: str) -> bool:
    """Whether a model keeps an attribute in its checkpoints by itself."""
    return (kind, name) == ("Pop", "item_cnt")  # see ``other_parameter_name`` there


def test_arrays_that_training_changes_come_back(empty_folder: Path) -> None:
    """Through a file: a dense tensor, a sparse one and an array of NumPy's; of derived classes as well."""
    names = {"DiffRec": ("Lt_history", "Lt_count"), "LINE": ("random_list",), "KGAT": ("A_in",)}
    for kind, keys in names.items():
        model_class = type("Derived", (type(kind, (nn.Module,), {}),), {})
        first, second = model_class(), model_class()
        for model, values in ((first, [5, 0, 7]), (second, [1, 2, 3])):
            model.unlisted = torch.tensor(values)
            for key in keys:
                value = torch.tensor([values]).to_sparse() if kind == "KGAT" else torch.tensor(values)
                setattr(model, key, np.array(values) if kind == "LINE" else value)
        write_checkpoint({"config": {}, "arrays": trained_arrays(first)}, "arrays.pth")
        restore_arrays(second, read_checkpoint("arrays.pth")["arrays"])
        for key in keys:
            before, now = getattr(first, key), getattr(second, key)
            assert type(before) is type(now) and before.tolist() == now.tolist() if kind != "KGAT" else True
            if kind == "KGAT":
                assert now.is_sparse and torch.equal(before.to_dense(), now.to_dense())
        assert second.unlisted.tolist() == [1, 2, 3]
        for strange in ({"unlisted": torch.zeros(3)}, {keys[0]: torch.zeros(9)}, {keys[0]: "x"}):
            with pytest.raises(ValueError, match="of the model does not fit"):
                restore_arrays(second, {"": strange})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp_avg", torch.zeros(9)),
        ("exp_avg", None),
        ("exp_avg_sq", "x"),
        ("step", -1),
        ("step", torch.zeros(2)),
        ("step", float("nan")),
    ],
    ids=str,
)
def test_a_state_that_is_not_the_optimizers_is_refused(name: str, value: object) -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    kept = optimizer.state_dict()
    kept["param_groups"][0].update(lr=9.0, betas="x")  # which are settings
    other = torch.optim.Adam(layer.parameters(), lr=0.2)
    restore_optimizer(other, kept)
    assert other.param_groups[0]["lr"] == 0.2 and other.param_groups[0]["betas"] == (0.9, 0.999)
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])
    kept["state"][0][name] = value
    with pytest.raises(ValueError, match=f"{name} of weight 0 in the optimizer is"):
        restore_optimizer(other, kept)


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "differing"),
    [
        ({}, {}, set()),
        ({}, {"encoding": "latin-1"}, {"encoding"}),
        ({"encoding": "latin-1"}, {}, {"encoding"}),
        ({"encoding": "latin-1"}, {"encoding": "ISO-8859-1"}, set()),
        ({"encoding": "utf-8"}, {}, set()),
        ({}, {"encoding": "UTF8"}, set()),
        ({"encoding": "utf-8-sig"}, {}, set()),  # what a byte order mark in the file makes of it
        ({"key_of_my_model": 3}, {}, {"key_of_my_model"}),
        ({}, {"key_of_my_model": 3}, {"key_of_my_model"}),
        ({}, {"key_of_my_model": None}, set()),
        ({"key_of_my_model": 3}, {"key_of_my_model": 3}, set()),
        ({}, {"hidden_act": "gelu", "kernel_structure": "identity-identity"}, set()),  # the defaults
        ({"learning_rate": 1e-3}, {}, set()),
        ({}, {"learning_rate": 1e-2}, {"learning_rate"}),
        ({}, {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}}, set()),
        ({}, {"eval_args": {"split": {"LS": "valid_only"}, "order": "TO"}}, {"eval_args"}),
        ({}, {"mask_history": "all"}, {"mask_history"}),
        ({}, {"train_mask_history": False}, set()),  # nothing is masked
        (
            {"mask_history": "all", "train_mask_history": False},
            {"mask_history": "all"},
            {"train_mask_history"},
        ),
        ({"loss_type": "SSM"}, {"loss_type": "SSM", "train_neg_sample_args": {"sample_num": 8}}, {"loss_negatives"}),
        ({}, dict.fromkeys(("epochs", "stopping_step", "eval_batch_size", "save_last_every"), 7), set()),
        ({"nproc": 1, "port": 1, "ip": "a", "config_files": "a.yaml", "resume": "auto"}, {"port": 2}, set()),
    ],
    ids=str,
)
def test_settings_differ_where_either_side_has_them(
    tiny_settings: Callable, before: dict, now: dict, differing: set[str]
) -> None:
    first, second = (
        Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(**given), command_line=[])
        for given in (before, now)
    )
    content = {"config": first.plain(), "training": {"given": sorted(first.given_keys())}}
    content["config"]["MASK_INDEX"] = "MASK_INDEX"  # as RecBole's transforms add keys on the way
    assert setting_differences(content, second).keys() == differing


def test_a_key_that_an_older_version_did_not_have_has_its_default(tiny_settings: Callable) -> None:
    config = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(), command_line=[])
    content = {"config": config.plain(), "training": {}}
    for key in ("drop_unseen_targets", "kernel_sharing", "loss_negatives"):
        del content["config"][key]
    assert setting_differences(content, config) == {}
    other = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(kernel_sharing="shared"), command_line=[])
    assert setting_differences(content, other) == {"kernel_sharing": ("per_layer", "shared")}


def test_a_key_whose_default_changed_the_results_has_the_value_before_it(tiny_settings: Callable) -> None:
    """An old run had no branch, so it is not continued with today's default, which has one."""
    masked = tiny_settings(mask_history="all", train_mask_history="auto")
    now = Config("PosKernelSASRec", "tiny", config_dict=masked, command_line=[])
    before = {"config": now.plain(), "training": {}}
    for key in ("kernel_branch", "train_mask_history", "position_encoding"):
        del before["config"][key]
    assert setting_differences(before, now) == {
        "kernel_branch": (None, "toeplitz"),
        "position_encoding": ([], ["rope"]),
        "train_mask_history": (False, "auto"),
    }
    then = {"kernel_branch": None, "train_mask_history": False, "position_encoding": []}
    as_before = Config("PosKernelSASRec", "tiny", config_dict={**masked, **then}, command_line=[])
    assert setting_differences(before, as_before) == {}


def test_a_key_that_a_run_did_not_have_was_not_set_by_its_preset(tiny_settings: Callable) -> None:
    now = Config("PosKernelSASRec", "tiny", config_dict=tiny_settings(preset="paper"), command_line=[])
    before = {"config": now.plain(), "training": {}}
    for key in ("attend_padding", "initializer"):
        del before["config"][key]
    assert setting_differences(before, now) == {
        "attend_padding": (False, True),
        "initializer": ("normal", "xavier_uniform_stacked"),
    }
    known = identify({**tiny_settings(preset="paper"), "model": "PosKernelSASRec", "dataset": "tiny"})
    assert known.differences(known.settings) == {}
    without = {key: value for key, value in known.settings.items() if key != "attend_padding"}
    assert known.differences(without) == {"attend_padding": (False, True)}


def test_auto_takes_no_run_with_another_encoding(
    run_of: Callable, tiny_settings: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_of()
    with caplog.at_level(logging.INFO):
        other = run_of(encoding="latin-1", **{"epochs": 2})
        settings = tiny_settings(epochs=2, encoding="latin-1")
        again = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert Path(again["checkpoint"]).parent == other != folder
    assert f"The run in {folder} differs: it has encoding 'utf-8', not 'iso8859-1'" in caplog.text
    back = run("PosKernelSASRec", "tiny", config_dict=tiny_settings(epochs=2), command_line=[], resume="auto")
    assert Path(back["checkpoint"]).parent == folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoding": "latin-1"}, "has encoding 'utf-8', not 'iso8859-1'"),
        ({"key_of_my_model": 3}, "has key_of_my_model None, not 3"),
        (
            {"loss_type": "SSM", "train_neg_sample_args": {"distribution": "popularity", "sample_num": 8}},
            "not {'distribution': 'popularity",
        ),
        ({"loss_type": "SSM", "train_neg_sample_args": {"sample_num": 8}}, None),
        ({"encoding": "utf8", "loss_type": "SSM"}, None),
    ],
    ids=str,
)
def test_a_key_that_the_run_does_not_have_is_compared(run_of: Callable, given: dict, message: str) -> None:
    folder = run_of(loss_type="SSM", train_neg_sample_args={"sample_num": 8})
    if message is None:
        assert run(config_dict={"epochs": 2, **given}, command_line=[], resume=folder)["epochs"] == 2
        return
    with pytest.raises(SettingError, match=message):
        run(config_dict={"epochs": 2, **given}, command_line=[], resume=folder)


def test_changeable_keys_are_not_among_the_ignored_ones() -> None:
    assert not RESUMABLE & CHANGEABLE


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_data(tmp_path: Path) -> tuple[Path, list[tuple]]:
    """A data set of 320 rows to change, and its rows."""
    rows = lagged_sequences(32, range(10, 11), n_items=12, lag=3, noise=0.1, seed=1)
    return write_atomic_file(tmp_path / "own", "tiny", rows), rows


def without(rows: list[tuple], n: int) -> list[tuple]:
    """Rows of which n are deleted, so that every user and item stays."""
    kept, deleted = list(rows), 0
    for row in rows:
        rest = [other for other in kept if other != row]
        if deleted < n and all(sum(other[k] == row[k] for other in rest) > 3 for k in (0, 1)):
            kept, deleted = rest, deleted + 1
    assert deleted == n and {row[0] for row in kept} == {row[0] for row in rows}
    return kept


def test_a_run_does_not_go_on_without_some_of_its_rows(
    run_of: Callable, own_data: tuple[Path, list], capsys: pytest.CaptureFixture
) -> None:
    """With all users and items still there."""
    file, rows = own_data
    folder = run_of(data_path=str(file.parent.parent))
    before = (folder / LAST_NAME).read_bytes()
    write_atomic_file(file.parent.parent, "tiny", without(rows, 87))
    capsys.readouterr()
    assert main(["run", f"--resume={folder}", "--epochs=2"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "have changed since the run in" in line and "tiny.inter has 233 rows, not 320" in line
    assert "--data_path" in line and "leave --resume out" in line
    assert (folder / LAST_NAME).read_bytes() == before


def test_auto_skips_a_run_on_other_data(
    run_of: Callable, tiny_settings: Callable, own_data: tuple[Path, list], caplog: pytest.LogCaptureFixture
) -> None:
    file, rows = own_data
    settings = tiny_settings(epochs=1, data_path=str(file.parent.parent))
    folder = run_of(**settings)
    write_atomic_file(file.parent.parent, "tiny", without(rows, 1))
    other = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert Path(other["checkpoint"]).parent != folder
    assert "tiny.inter has 319 rows, not 320" in caplog.text and "it is skipped" in caplog.text
    write_atomic_file(file.parent.parent, "tiny", rows)
    again = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[], resume="auto")
    assert Path(again["checkpoint"]).parent == folder


def test_a_run_goes_on_where_its_data_have_moved(run_of: Callable, own_data: tuple[Path, list], tmp_path: Path) -> None:
    """They are touched on the way, and lie beside files that no run reads."""
    file, _ = own_data
    folder = run_of(data_path=str(file.parent.parent))
    shutil.move(tmp_path / "own", tmp_path / "moved")
    moved = tmp_path / "moved" / "tiny" / "tiny.inter"
    os.utime(moved, (1, 1))
    moved.with_name("tiny.item").write_text("item_id:token\tprice:float\ni1\t2\n")
    moved.with_name("tiny.inter.bak").write_text("")
    given = {"epochs": 2, "data_path": str(tmp_path / "moved")}
    assert run(config_dict=given, command_line=[], resume=folder)["epochs"] == 2


@pytest.mark.parametrize(
    ("load_col", "message"),
    [
        ({"inter": ["user_id", "item_id", "timestamp"]}, None),
        (None, "tiny.item has 12 rows as before, but other contents"),
    ],
    ids=["not read", "read"],
)
def test_files_of_features_count_where_they_are_read(
    run_of: Callable, own_data: tuple[Path, list], load_col: dict | None, message: str | None
) -> None:
    file, _ = own_data
    items = file.with_name("tiny.item")

    def write_prices(price: int) -> None:
        lines = ["item_id:token\tprice:float", *(f"i{number}\t{price}" for number in range(12))]
        items.write_text("\n".join(lines) + "\n")

    write_prices(1)
    folder = run_of(data_path=str(file.parent.parent), load_col=load_col)
    write_prices(2)
    if message is None:
        assert run(config_dict={"epochs": 2}, command_line=[], resume=folder)["epochs"] == 2
        return
    with pytest.raises(CheckpointError, match=message):
        run(config_dict={"epochs": 2}, command_line=[], resume=folder)


def test_rows_in_another_order_or_of_other_times_are_other_data(run_of: Callable, own_data: tuple[Path, list]) -> None:
    file, rows = own_data
    folder = run_of(data_path=str(file.parent.parent))
    write_atomic_file(file.parent.parent, "tiny", [(user, item, time + 1) for user, item, time in rows])
    with pytest.raises(CheckpointError, match=r"tiny\.inter has 320 rows as before, but other contents"):
        run(config_dict={"epochs": 2}, command_line=[], resume=folder)


# -- whose fault it is -----------------------------------------------------------------------------------------------


def test_what_fails_in_a_resumed_training_is_not_the_checkpoints_fault(
    run_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_of()

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    for method in ("calculate_loss", "full_sort_predict"):
        with monkeypatch.context() as patch:
            patch.setattr(find_model("PosKernelSASRec"), method, fail)
            with pytest.raises(RuntimeError, match=r"^CUDA error: device-side assert triggered$"):
                run(config_dict={"epochs": 2}, command_line=[], resume=folder)
    assert run(config_dict={"epochs": 2}, command_line=[], resume=folder)["epochs"] == 2


@pytest.mark.parametrize("place", ["recbole_posattn.training.load.data_preparation", "PosKernelSASRec"])
def test_what_fails_while_a_model_is_built_is_not_the_checkpoints_fault(
    run_of: Callable, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = run_of()

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    if place == "PosKernelSASRec":
        monkeypatch.setattr(find_model("PosKernelSASRec"), "__init__", fail)
    else:
        monkeypatch.setattr(place, fail)
    for action in (
        lambda: load(folder / BEST_NAME),
        lambda: run(config_dict={"epochs": 2}, command_line=[], resume=folder),
    ):
        with pytest.raises(RuntimeError, match=r"^CUDA error: out of memory$"):
            action()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("training", "random"), [{"python": "x"}]),
        (("training", "random"), [{}]),
        (("training", "left"), True),
        (("training", "left"), {"steps": 3}),
        (("training", "left"), {"steps": 10**6, "seconds": 0.0, "losses": 1.0, "order": [], "random": {}}),
        (("training", "optimizers", "optimizer", "state", 0, "exp_avg"), torch.zeros(2)),
        (("training", "curve"), [{}]),
        (("training", "train_loss_dict"), {"x": 1}),
        (("training", "counters"), {"": {"forward": 1}}),
        (("training", "arrays"), {"": {"forward": torch.zeros(1)}}),
        (("training", "given"), 3),
        (("training", "changes"), torch.zeros(2)),
        (("other_parameter",), {"forward": 1}),
        (("best_valid_score",), "x"),
        (("config", "eval_args"), {}),
        (("config", "train_neg_sample_args"), 7),
        (("config", "train_neg_sample_args", "dynamic"), -1),
        (("config", "loss_negatives"), "x"),
        (("config", "topk"), 10),
        (("config", "valid_metric"), "x"),
        (("config", "dataset_save_path"), "cache.pth"),
        (("data",), 3),
    ],
    ids=str,
)
def test_a_crafted_checkpoint_is_refused(run_of: Callable, path: tuple, value: object) -> None:
    folder = run_of()
    content = read_checkpoint(folder / LAST_NAME)
    *before, last = path
    inside: Any = content
    for key in before:
        inside = inside[key]
    inside[last] = value
    write_checkpoint(content, folder / LAST_NAME)
    with pytest.raises((CheckpointError, SettingError)):
        run(config_dict={"epochs": 2}, command_line=[], resume=folder)
