"""Switching parts off: what it changes, what it leaves, and what the two tables say."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from recbole_posattn import load, run
from recbole_posattn.analysis.interference import Interference, interference
from recbole_posattn.analysis.interference_figure import draw_structures, write_interference
from recbole_posattn.analysis.switches import DiagonalKernel, positional_parts, switched_off
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.nn.kernels.base import IdentityKernel, KernelOptions
from recbole_posattn.nn.kernels.structures import STRUCTURES, build_kernel
from tests.planted import write_atomic_file

HYBRID = {
    **{"kernel_structure": "toeplitz-full", "position_encoding": ["absolute", "alibi"], "n_heads": 2},
    **{"kernel_branch": None, "kernel_normalization": "frobenius"},
}
NO_KERNEL = {"kernel_structure": "identity-identity", "kernel_branch": None}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_settings: Callable) -> str:
    """A hybrid, trained for a few epochs."""
    settings = tiny_settings(checkpoint_dir=str(tmp_path_factory.mktemp("saved")), epochs=3)
    return run("PosKernelSASRec", "tiny", config_dict={**settings, **HYBRID}, command_line=[])["checkpoint"]


@pytest.fixture(scope="module")
def measured(checkpoint: str) -> Interference:
    return interference(checkpoint)


def test_sampled_negatives_are_the_same_for_all_rows(tiny_settings: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_settings(epochs=1, eval_args={"mode": "uni10", "order": "TO"})
    checkpoint = run("PosKernelSASRec", "tiny", config_dict={**settings, **HYBRID}, command_line=[])["checkpoint"]
    monkeypatch.setattr("recbole_posattn.analysis.interference.switched_off", lambda *_: contextlib.nullcontext())
    metrics = interference(checkpoint).metrics.drop(columns=["parts", "part"])
    assert len(metrics) > 2 and (metrics == metrics.iloc[0]).all(axis=None)


# -- switching off ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, "n_heads", "hidden_size"])
@pytest.mark.parametrize("part", ["U", "L", "absolute", "alibi"])
def test_a_part_is_off_in_the_context_only(build: Callable, histories: tuple, part: str, groups: object) -> None:
    model, _ = build(**HYBRID, kernel_groups=groups)
    before = model(*histories)
    with switched_off(model, [part]):
        off = model(*histories)
    assert not torch.allclose(off, before)
    torch.testing.assert_close(model(*histories), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "off", "changes"),
    [
        ("NoPESASRec", ["rope"], {"position_encoding": ["rope"], **NO_KERNEL}),
        ("APESASRec", ["cape"], {"position_encoding": ["absolute", "cape"], **NO_KERNEL}),
    ],
)
def test_without_a_part_it_is_the_model_without_it(
    build: Callable, histories: tuple, name: str, off: list[str], changes: dict
) -> None:
    model, _ = build(**changes)
    other, _ = build(name)
    other.load_state_dict(model.state_dict(), strict=False)
    with switched_off(model, off):
        torch.testing.assert_close(model(*histories), other(*histories), rtol=1e-12, atol=1e-12)


def test_lag_kernels_off_leave_no_order(build: Callable, histories: tuple) -> None:
    """With lag-only kernels, whose diagonal is one number, what is left cannot tell one past from another."""
    model, _ = build(kernel_structure="toeplitz-exponential", position_encoding=["rope", "cape"], n_layers=1)
    parts = positional_parts(model)
    assert parts == ["U", "L", "branch", "rope", "cape"]
    items, length = histories[0][:1], histories[1][:1]
    shuffled = torch.cat([items[:, :-1].flip(1), items[:, -1:]], dim=1)
    assert not torch.allclose(model(shuffled, length), model(items, length))
    with switched_off(model, parts):
        torch.testing.assert_close(model(shuffled, length), model(items, length), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("n_groups", [1, 4])
def test_diagonal_kernel_keeps_the_diagonal_only(structure: str, n_groups: int) -> None:
    kernel = build_kernel(structure, KernelOptions("l", 9, n_groups, bandwidth=3)).double()
    diagonal = DiagonalKernel(kernel)
    expected = torch.diag_embed(kernel.dense(6).diagonal(dim1=1, dim2=2)).double()
    torch.testing.assert_close(diagonal.dense(6).double(), expected, rtol=0, atol=0)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    by_hand = torch.cat([m @ g for m, g in zip(expected, x.chunk(n_groups, dim=-1))], dim=-1)
    torch.testing.assert_close(diagonal(x), by_hand, rtol=1e-12, atol=1e-14)


def test_parts_are_named_and_restored_after_an_error(build: Callable) -> None:
    model, _ = build(**HYBRID)
    assert positional_parts(model) == ["U", "L", "absolute", "alibi"]
    assert positional_parts(build("NoPESASRec")[0]) == []
    assert positional_parts(build("RoPESASRec")[0]) == ["rope"]
    assert positional_parts(build(kernel_structure="identity-toeplitz")[0]) == ["L", "branch"]
    kernel = model.backbone.blocks[0].attention.u_kernel
    with pytest.raises(RuntimeError), switched_off(model, ["U", "alibi"]):
        assert not model.backbone.blocks[0].attention.encodings
        raise RuntimeError
    assert model.backbone.blocks[0].attention.u_kernel is kernel
    assert positional_parts(model) == ["U", "L", "absolute", "alibi"]


# -- the two tables --------------------------------------------------------------------------------------------------


def test_metrics_table_has_every_setting(measured: Interference, checkpoint: str) -> None:
    table = measured.metrics
    parts = ["U", "L", "absolute", "alibi"]
    assert list(zip(table["parts"], table["part"])) == [
        ("all", ""),
        *(("without", part) for part in parts),
        *(("alone", part) for part in parts),
        ("none", ""),
    ]
    assert measured.valid_metric == "ndcg@10" and table["ndcg@10"].nunique() > 1
    best = torch.load(checkpoint, weights_only=True)["best_valid_score"]
    assert table["ndcg@10"][0] == pytest.approx(best)


def test_effects_are_those_of_a_slow_reading(measured: Interference, checkpoint: str) -> None:
    """Row by row for one part and layer, from the loaded model."""
    loaded = load(checkpoint)
    model, rows = loaded.model, loaded.valid_data._dataset.inter_feat
    seen = []
    attention = model.backbone.blocks[1].attention
    hook = attention.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    changes = logits_squared = pairs = entropy = entropy_without = n_rows = output = output_change = 0.0
    with torch.no_grad():
        for items, length in zip(rows["item_id_list"].tensor(), rows["item_length"]):
            model.encode(items[None, :length])
            x_query, x, valid, _ = seen.pop()
            readings = []
            for kernel in (attention.u_kernel, IdentityKernel(10)):
                original, attention.u_kernel = attention.u_kernel, kernel
                if isinstance(kernel, IdentityKernel):
                    attention.u_kernel = DiagonalKernel(original)
                query, key, value, bias = attention.project(x_query, x, valid)
                logits = query @ key.mT / math.sqrt(query.shape[-1]) + bias(query, key, 0)
                attention.u_kernel = original
                readings.append((logits[0], value[0]))
            for head in range(2):
                for t in range(1, int(length)):
                    row, row_without = (logits[head, t, : t + 1] for logits, _ in readings)
                    weights, weights_without = row.softmax(-1), row_without.softmax(-1)
                    row, row_without = row - row.mean(), row_without - row_without.mean()
                    changes += float((row - row_without).square().sum())
                    logits_squared += float(row.square().sum())
                    pairs += t + 1
                    n_rows += 1
                    entropy -= float((weights * weights.log()).sum())
                    entropy_without -= float((weights_without * weights_without.log()).sum())
                    values = readings[0][1][head, : t + 1]
                    output += float((weights @ values).square().sum())
                    output_change += float(((weights - weights_without) @ values).square().sum())
    hook.remove()
    table = measured.layers
    effect = table[(table["layer"] == 2) & (table["part"] == "U")].iloc[0]
    assert effect["logit_rms"] == pytest.approx(math.sqrt(changes / pairs), rel=1e-3)
    assert effect["logit_share"] == pytest.approx(math.sqrt(changes / logits_squared), rel=1e-3)
    assert effect["entropy"] == pytest.approx(entropy / n_rows, rel=1e-4)
    assert effect["entropy_without"] == pytest.approx(entropy_without / n_rows, rel=1e-4)
    assert effect["output_change"] == pytest.approx(math.sqrt(output_change / output), rel=1e-3)


def test_each_part_acts_where_it_enters(measured: Interference) -> None:
    table = measured.layers.set_index(["layer", "part"])
    for layer in (1, 2):
        assert table.loc[(layer, "L"), "logit_rms"] == 0 < table.loc[(layer, "L"), "output_change"]
        for part in ("U", "absolute", "alibi"):
            assert table.loc[(layer, part), "logit_rms"] > 0
            assert table.loc[(layer, part), "entropy"] != table.loc[(layer, part), "entropy_without"]


# -- files and the command -------------------------------------------------------------------------------------------


def test_command_prints_and_writes(checkpoint: str, empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["interference", checkpoint, "--output", "out", "--split", "test"]) == 0
    printed = capsys.readouterr().out
    assert "without absolute" in printed and "logit_share" in printed
    written = sorted(path.name for path in (empty_folder / "out").iterdir())
    of_test = ["interference_test.png", "interference_test_layers.csv", "interference_test_metrics.csv"]
    assert written == of_test
    assert len(pd.read_csv(empty_folder / "out" / "interference_test_layers.csv")) == 2 * 4
    assert (empty_folder / "out" / "interference_test.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in empty_folder.iterdir()] == ["out"]


def test_what_cannot_be_measured_ends_in_one_line(
    checkpoint: str, tiny_settings: Callable, empty_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    for model in ("NoPESASRec", "GRU4Rec"):
        path = run(model, "tiny", config_dict=tiny_settings(epochs=1), command_line=[])["checkpoint"]
        with pytest.raises(CheckpointError, match=f"{model} has no kernel, branch or position_encoding to switch off"):
            interference(path)
    no_valid = tiny_settings(
        epochs=1, eval_args={"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"}
    )
    path = run("RoPESASRec", "tiny", config_dict=no_valid, command_line=[])["checkpoint"]
    with pytest.raises(DataError, match="data set 'tiny': the valid split has no rows to measure on"):
        interference(path)
    write_atomic_file(Path("data"), "short", [(f"u{n}", f"i{(n + t) % 5}", t) for n in range(9) for t in range(2)])
    by_row = {"split": {"RS": [4, 3, 3]}, "order": "TO", "mode": "full", "group_by": None}
    short = tiny_settings(epochs=1, data_path="data", topk=[1], valid_metric="NDCG@1", eval_args=by_row)
    path = run("RoPESASRec", "short", config_dict=short, command_line=[])["checkpoint"]
    with pytest.raises(DataError, match="data set 'short': no valid target has a history of two items"):
        interference(path)
    with pytest.raises(SettingError, match="split must be valid or test; got 'train'"):
        interference(checkpoint, "train")
    capsys.readouterr()
    assert cli.main(["interference", "missing.pth"]) == 2
    assert capsys.readouterr().err == (
        "recbole-posattn: checkpoint missing.pth cannot be read: No such file or directory\n"
    )
    (empty_folder / "file").write_text("")
    assert cli.main(["interference", checkpoint, "--output", "file"]) == 2
    assert capsys.readouterr().err == "recbole-posattn: file cannot be written: File exists\n"


def test_tables_of_the_test_rows_stand_beside_those_of_the_validation_rows(
    measured: Interference, empty_folder: Path
) -> None:
    write_interference(measured, empty_folder)
    other = measured._replace(split="test", metrics=measured.metrics.head(1))
    write_interference(other, empty_folder)
    assert len(pd.read_csv("interference_metrics.csv")) == len(measured.metrics) > 1
    assert len(pd.read_csv("interference_test_metrics.csv")) == 1


def test_figures_are_files(measured: Interference, empty_folder: Path) -> None:
    files = write_interference(measured, empty_folder / "a" / "b")
    assert all(file.is_file() for file in files)
    assert set(draw_structures(8)) == set(STRUCTURES)


@pytest.mark.parametrize("command", ["interference", "inspect"])
def test_a_model_of_one_item_has_no_positions_to_compare(
    tiny_settings: Callable, command: str, capsys: pytest.CaptureFixture
) -> None:
    settings = tiny_settings(epochs=1, MAX_ITEM_LIST_LENGTH=1)
    path = run("PosKernelSASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]
    assert cli.main([command, path]) == 2
    assert "the model reads one item (MAX_ITEM_LIST_LENGTH 1), so no position" in capsys.readouterr().err
