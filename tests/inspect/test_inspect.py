"""What is read off a model, against slow readings: kernels, lags, reach, attention, biases, snapshots, report."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_posattn import load, run
from recbole_posattn.analysis.attended import with_and_without
from recbole_posattn.analysis.attention_maps import attention_maps, history_buckets, positional_bias
from recbole_posattn.analysis.inspection import Inspection, inspect_checkpoint, partition_table
from recbole_posattn.analysis.kernel_history import kernel_evolution
from recbole_posattn.analysis.kernel_tables import half_life, kernel_matrices, kernel_reach, kernel_table, lag_profiles
from recbole_posattn.analysis.line_plots import draw_gaps
from recbole_posattn.analysis.report import html, labelled, partition_text, report_files
from recbole_posattn.analysis.switches import positional_parts
from recbole_posattn.cli import main as cli
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.nn.history_partition import GAIN
from recbole_posattn.nn.kernels.structures import positional_kernel

KEPT = {"kernel_structure": "toeplitz-full", "n_heads": 2, "epochs": 4, "save_kernel_every": 2}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_settings: Callable) -> dict[str, Any]:
    return tiny_settings(checkpoint_dir=str(tmp_path_factory.mktemp("saved")), epochs=1)


@pytest.fixture(scope="module")
def checkpoint(settings: dict) -> str:
    return run("PosKernelSASRec", "tiny", config_dict={**settings, **KEPT}, command_line=[])["checkpoint"]


@pytest.fixture(scope="module")
def rotary(settings: dict) -> str:
    return run("RoPESASRec", "tiny", config_dict=settings, command_line=[])["checkpoint"]


@pytest.fixture(scope="module")
def inspected(checkpoint: str) -> Inspection:
    return inspect_checkpoint(checkpoint)


# -- kernels ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(inspected: Inspection) -> str:
    """The page of the report on ``inspected``, whose figures take seconds."""
    return report_files([inspected])["inspect.html"]


@pytest.mark.parametrize("groups", [1, "n_heads"])
def test_matrices_are_u_l_and_their_product(build: Callable, groups: object) -> None:
    model, _ = build(kernel_structure="toeplitz-full", kernel_branch=None, kernel_groups=groups, n_heads=2)
    matrices = kernel_matrices(model)
    assert list(matrices) == [(layer, name) for layer in (1, 2) for name in ("U", "L", "C")]
    attention = model.backbone.blocks[1].attention
    expected = positional_kernel(attention.u_kernel, attention.l_kernel)
    torch.testing.assert_close(matrices[2, "C"], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(matrices[2, "U"], matrices[2, "U"].triu()) and torch.equal(
        matrices[2, "L"], matrices[2, "L"].tril()
    )

    table = kernel_table(model)
    assert len(table) == 2 * 3 * (1 if groups == 1 else 2) * 10 * 10
    cell = table[(table["layer"] == 2) & (table["kernel"] == "L") & (table["row"] == 7) & (table["column"] == 4)]
    assert cell["weight"].tolist() == matrices[2, "L"][:, 7, 4].tolist()


def test_the_identity_is_no_kernel_to_look_at(build: Callable) -> None:
    assert {
        name for _, name in kernel_matrices(build(kernel_structure="identity-toeplitz", kernel_branch=None)[0])
    } == {"L"}
    model, _ = build("RoPESASRec")
    assert kernel_table(model).empty and lag_profiles(model).empty and kernel_reach(lag_profiles(model)).empty


def test_many_groups_are_shown_as_their_mean_and_profiled_one_by_one(build: Callable) -> None:
    model, _ = build(kernel_structure="toeplitz-toeplitz", kernel_groups="hidden_size")
    table, profiles = kernel_table(model), lag_profiles(model)
    assert set(table["group"]) == {0} and profiles["group"].nunique() == 16
    mean = kernel_matrices(model)[1, "L"].mean(dim=0)
    shown = table[(table["layer"] == 1) & (table["kernel"] == "L")]["weight"].to_numpy().reshape(10, 10)
    np.testing.assert_allclose(shown, mean, rtol=0, atol=1e-12)


def test_lag_profiles_are_means_over_positions(build: Callable) -> None:
    model, _ = build(kernel_structure="toeplitz-full")
    profiles = lag_profiles(model).set_index(["layer", "kernel", "group", "lag"]).sort_index()
    taps = model.backbone.blocks[0].attention.u_kernel.taps()[0]
    np.testing.assert_allclose(profiles.loc[(1, "U", 1)]["weight"], taps.detach(), rtol=1e-12)
    matrices = {name: kernel_matrices(model)[1, name][0] for name in ("L", "C")}
    for name, lag in (("L", 0), ("L", 9), ("C", 3), ("C", -4)):
        entries = [matrices[name][i, i - lag].item() for i in range(10) if 0 <= i - lag < 10]
        row = profiles.loc[(1, name, 1, lag)]
        assert row["weight"] == pytest.approx(np.mean(entries)) and row["magnitude"] == pytest.approx(
            np.mean(np.abs(entries))
        )
    assert set(profiles.loc[(1, "L", 1)].index) == set(range(10))
    assert set(profiles.loc[(1, "C", 1)].index) == set(range(-9, 10))


def test_reach_of_a_known_kernel() -> None:
    """Masses 8, 4, 2, 1, 1 of 16: half at distance 1, and 15/16 within four distances."""
    profile = pd.DataFrame({"layer": 1, "kernel": "U", "group": 1, "lag": range(5), "magnitude": [8.0, 4, 2, 1, 1]})
    (reach,) = kernel_reach(profile).to_dict("records")
    assert reach["lag_0_share"] == 0.5 and reach["half_life"] == 1.0 and reach["bandwidth_90"] == 4
    assert reach["mean_lag"] == pytest.approx((4 + 4 + 3 + 4) / 16)
    two_sided = profile.assign(kernel="C", lag=[0, 1, -1, 2, -2])  # distances 0, 1, 2 have 8, 6, 2
    (reach,) = kernel_reach(two_sided).to_dict("records")
    assert reach["bandwidth_90"] == 3 and reach["half_life"] == pytest.approx(1.5)
    assert math.isnan(half_life(np.array([1.0, 0.9, 0.6])))
    assert half_life(np.array([1.0, 0.25])) == pytest.approx(2 / 3)


# -- attention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ["end", "start"])
def test_maps_are_the_means_of_single_histories(build: Callable, histories: tuple, alignment: str) -> None:
    model, _ = build(kernel_structure="toeplitz-full", n_heads=2, position_alignment=alignment)
    items, lengths = histories
    table = attention_maps(model, items, lengths, ["U", "L"])
    assert dict(table[["history", "histories"]].drop_duplicates().to_numpy()) == {"2–8": 2, "9–10": 1}
    rows = [2, 3]  # of 4 and 7 items
    maps = {"attention": 0.0, "attention · L": 0.0}
    l_kernel = model.backbone.blocks[1].attention.l_kernel
    for row in rows:
        length = int(lengths[row])
        with torch.no_grad():
            attended, _ = with_and_without(model, items[row : row + 1], lengths[row : row + 1], [])[1]
            taken = (attended.weights[0, 1] @ l_kernel.dense(length)[0]).abs()
        for kind, weights in (
            ("attention", attended.weights[0, 1]),
            ("attention · L", taken / taken.sum(-1, keepdim=True)),
        ):
            maps[kind] += weights[length - 1 - 1, length - 1 - 3] / len(rows)  # query 1 back, key 3 back
    for kind, expected in maps.items():
        chosen = table[
            (table["history"] == "2–8") & (table["kind"] == kind) & (table["layer"] == 2) & (table["head"] == 2)
        ]
        cell = chosen[(chosen["query"] == 1) & (chosen["key"] == 3)]
        assert cell["weight"].item() == pytest.approx(float(expected), rel=1e-5)
    assert (table["key"] >= table["query"]).all()
    newest = table[(table["query"] == 0) & (table["history"] == "9–10")]
    np.testing.assert_allclose(newest.groupby(["layer", "head", "kind"])["weight"].sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("attend_padding", [True, False])
def test_padding_has_no_share_in_an_output(build: Callable, histories: tuple, attend_padding: bool) -> None:
    """L does not mix it, not even where queries attend to it; so the items of a history share each output."""
    model, _ = build(kernel_structure="toeplitz-full", attend_padding=attend_padding)
    with torch.no_grad():
        for block in model.backbone.blocks:
            for weight in block.attention.l_kernel.parameters():
                weight.normal_()
    items, lengths = histories
    table = attention_maps(model, items[2:3], lengths[2:3], ["U", "L"])  # 4 items
    shares = table[(table["kind"] == "attention · L") & (table["query"] == 0)]
    np.testing.assert_allclose(shares.groupby(["layer", "head"])["weight"].sum(), 1.0, rtol=1e-5)


def test_histories_fall_into_buckets() -> None:
    buckets = history_buckets(torch.tensor([1, 2, 8, 9, 16, 17, 40]))
    assert [(name, index.tolist()) for name, index in buckets] == [
        ("2–8", [1, 2]),
        ("9–16", [3, 4]),
        ("17–32", [5]),
        ("33–40", [6]),
    ]


@pytest.mark.parametrize("attend_padding", [False, True])
def test_bias_of_alibi_and_t5_is_the_one_they_add(build: Callable, histories: tuple, attend_padding: bool) -> None:
    """Padding that is attended is no item, and has no lag."""
    alibi, _ = build("ALiBiSASRec", n_heads=2, attend_padding=attend_padding)
    table = positional_bias(alibi, *histories, positional_parts(alibi))
    slope = alibi.backbone.blocks[0].attention.encodings[0].slope
    np.testing.assert_allclose(table["bias"], -slope[table["head"].to_numpy() - 1] * table["lag"].to_numpy(), atol=1e-9)

    t5, _ = build("T5BiasSASRec", attend_padding=attend_padding, MAX_ITEM_LIST_LENGTH=12 if attend_padding else 10)
    encoding = t5.backbone.blocks[0].attention.encodings[0]
    table = positional_bias(t5, *histories, positional_parts(t5))
    bias = encoding.bias(encoding.bucket(torch.arange(10)))[:, 0].detach()
    first_layer = table[table["layer"] == 1]
    np.testing.assert_allclose(first_layer["bias"], (bias - bias[0])[first_layer["lag"].to_numpy()], atol=1e-9)
    pairs = sum(max(0, length - max(lag, 1)) for length in histories[1].tolist() for lag in [2])
    assert first_layer.set_index("lag").loc[2, "pairs"] == pairs


@pytest.mark.parametrize("attend_padding", [False, True])
@pytest.mark.parametrize(
    "name", ["RoPESASRec", "APESASRec", "AllAPESASRec", "CAPESASRec", "PosKernelSASRec", "NoPESASRec"]
)
def test_every_encoding_has_a_bias_by_lag(build: Callable, histories: tuple, name: str, attend_padding: bool) -> None:
    model, _ = build(name, attend_padding=attend_padding)
    parts = positional_parts(model)
    table = positional_bias(model, *histories, parts)
    assert np.isfinite(table["bias"]).all() and (table.loc[table["lag"] == 0, "bias"] == 0).all()
    assert (table["bias"].abs().max() > 1e-3) == bool(parts)
    assert list(table["lag"].unique()) == list(range(10))


# -- snapshots -------------------------------------------------------------------------------------------------------


def test_kernels_are_kept_every_so_many_epochs(checkpoint: str, settings: dict) -> None:
    folder = Path(checkpoint).parent / "kernels"
    assert sorted(file.name for file in folder.iterdir()) == [f"epoch-{epochs:05}.pth" for epochs in (0, 2, 4)]
    model = load(checkpoint).model
    evolution, final = kernel_evolution(model, Path(checkpoint).parent), lag_profiles(model)
    assert list(evolution["epochs"].unique()) == [0, 2, 4]
    pd.testing.assert_frame_equal(lag_profiles(model), final)  # put back
    best = torch.load(checkpoint, weights_only=True)["epoch"] + 1
    if best in (2, 4):
        kept = evolution[evolution["epochs"] == best].drop(columns="epochs").reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, final)
    start = evolution[(evolution["epochs"] == 0) & (evolution["kernel"] == "U") & (evolution["lag"] > 0)]
    later = evolution[(evolution["epochs"] == 4) & (evolution["kernel"] == "U") & (evolution["lag"] > 0)]
    assert not np.allclose(start["weight"], later["weight"])
    unsaved = {**settings, "save_kernel_every": 1, "checkpoint_dir": "unsaved"}
    run("PosKernelSASRec", "tiny", config_dict=unsaved, saved=False, command_line=[])
    assert not list(Path("unsaved").iterdir())


def test_foreign_snapshots_are_refused(checkpoint: str, empty_folder: Path, build: Callable) -> None:
    (empty_folder / "kernels").mkdir()
    file = empty_folder / "kernels" / "epoch-00001.pth"
    model, _ = build(kernel_structure="toeplitz-toeplitz")
    file.write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match=r"epoch-00001\.pth holds no kernels of this model"):
        kernel_evolution(model, empty_folder)
    file.write_bytes((Path(checkpoint).parent / "kernels" / "epoch-00002.pth").read_bytes())
    with pytest.raises(CheckpointError, match="its kernels have a different shape"):
        kernel_evolution(model, empty_folder)


# -- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_prints_the_reach_and_writes_the_report(
    checkpoint: str, empty_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["inspect", checkpoint, "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert (
        re.findall(r"PosKernelSASRec +\d +(U|L|C|branch)", printed) == ["U", "L", "C", "branch"] * 2
        and "bandwidth_90" in printed
    )
    names = ["kernels", "lag_profiles", "positions", "attention_layer_1", "attention_layer_2", "evolution"]
    written = {path.name for path in (empty_folder / "out").iterdir()}
    shown = ("kernels", "lags", "reach", "attention", "positions", "evolution", "partition")
    tables = {f"{name}.csv" for name in shown}
    assert written == {"inspect.html", *tables, *(f"{name}.{kind}" for name in names for kind in ("png", "svg"))}
    assert len(pd.read_csv(empty_folder / "out" / "reach.csv")) == 2 * 4
    page = (empty_folder / "out" / "inspect.html").read_text()
    assert set(re.findall(r'<a href="([^"]+)">', page)) == tables
    assert "reach.csv</a>: how far the kernels reach, 8 rows" in page
    assert page.count("<svg") == len(names) and not re.search(r"(src|href)=[\"']https?:", page)


def test_the_page_names_data_seed_epoch_and_metrics(
    inspected: Inspection, page: str, checkpoint: str, empty_folder: Path
) -> None:
    facts = dict(inspected.facts)
    result = json.loads((Path(checkpoint).parent / "result.json").read_text())
    best = result["best_epoch"] + 1
    assert (facts["data set"], facts["seed"], facts["epoch"]) == ("tiny", "2020", f"{best}, the best of 4")
    interactions = load(checkpoint).dataset
    assert facts["data"] == f"60 users, 20 items, {len(interactions.inter_feat):,} interactions"
    for split, key in (("validation", "best_valid_result"), ("test", "test_result")):
        metrics = result[key]
        assert facts[split].split(", ")[:2] == [f"NDCG@10 {metrics['ndcg@10']:.4f}", f"Hit@10 {metrics['hit@10']:.4f}"]
        assert "Recall" not in facts[split] and "@5" not in facts[split]
    assert all(value in page for value in (facts["data"], facts["epoch"], facts["validation"], facts["test"]))

    # The result is of another epoch, damaged, or elsewhere.
    folder = Path(shutil.copytree(Path(checkpoint).parent, empty_folder / "copy"))
    for content in (json.dumps({**result, "best_epoch": best}), "[]", "{", None):
        (folder / "result.json").write_text(content) if content else (folder / "result.json").unlink()
        facts = dict(inspect_checkpoint(folder / "best.pth").facts)
        assert facts["epoch"] == str(best) and "test" not in facts and facts["seed"] == "2020"


@pytest.mark.slow
def test_two_models_are_compared(inspected: Inspection, rotary: str) -> None:
    other = inspect_checkpoint(rotary)
    files = report_files([inspected, other])
    page = files["inspect.html"]
    assert "PosKernelSASRec, layer 1" in page and "RoPESASRec, layer 2" in page
    assert {"PosKernelSASRec_kernels.png", "RoPESASRec_positions.csv", "RoPESASRec_attention_layer_1.svg"} <= set(files)
    assert "RoPESASRec_kernels.csv" not in files
    assert [each.label for each in labelled([inspected, inspected])] == ["PosKernelSASRec A", "PosKernelSASRec B"]


@pytest.mark.slow
def test_what_a_history_partition_learned_is_shown(inspected: Inspection, build: Callable) -> None:
    """As a table, in the page and in the terminal; less the bias of items that are not in the history."""
    model, _ = build(history_partition=True)
    with torch.no_grad():
        model.history_partition.weight.copy_(torch.tensor([1.0, 2.0, 1.0, 0.5, -1.0]) / GAIN)
    table = partition_table(model)
    assert table.to_numpy().tolist() == [[0, 0, 1.0], [1, 2, 0.0], [3, 6, -0.5], [7, 9, -2.0]]
    assert model.learned()["history_partition"] == {"0": 1.0, "1-2": 0.0, "3-6": -0.5, "7-9": -2.0}
    shown = inspected._replace(partition=table)
    assert shown.tables["partition"] is table
    page = html([shown], [], [[]], [[]])
    assert "Items that come again" in page and "7–9" in page and "0.135" in page  # exp(−2)
    lines = partition_text([shown]).splitlines()
    assert lines[0].split() == ["model", "first_lag", "last_lag", "bias"] and lines[4].split()[1:] == [
        "7",
        "9",
        "-2.00",
    ]
    without, _ = build(history_partition=False)
    assert partition_table(without).empty and without.learned() == {}
    assert partition_text([inspected._replace(partition=partition_table(without))]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ESASRec", "HSTU", "TiSASRec"])
def test_models_of_others_can_be_inspected(settings: dict, name: str) -> None:
    """HSTU has weights by time gap; TiSASRec's and its attention have no softmax of ours, and no maps."""
    changes = {"time_is_order": False, "history_partition": True} if name != "ESASRec" else {}
    file = run(name, "tiny", config_dict={**settings, **changes}, command_line=[])["checkpoint"]
    found = inspect_checkpoint(file, max_users=10)
    assert found.parts == {"ESASRec": ["absolute"], "HSTU": ["absolute"], "TiSASRec": []}[name]
    assert found.attention.empty == (name != "ESASRec") and found.gap_weights.empty == (name != "HSTU")
    assert found.partition.empty == (name == "ESASRec")
    page = str(report_files([found])["inspect.html"])
    assert ("By lag" in page) == (name != "TiSASRec") and ("Tables" in page)
    assert ("histories measured on" in page) == (name == "ESASRec")
    assert (f"{name} has no softmax attention that can be taken apart" in page) == (name != "ESASRec")
    figure = draw_gaps([found])
    assert [axis.get_title() for axis in figure.axes] == ["time_bias"] if name == "HSTU" else figure is None


@pytest.mark.slow
def test_page_opens_in_a_browser(page: str, browser: Any, empty_folder: Path) -> None:
    (empty_folder / "inspect.html").write_text(page)
    for width in (1280, 400):
        browser.set_window_size(width, 900)
        browser.get((empty_folder / "inspect.html").as_uri())
        overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(overflow) <= 0
        widths = browser.execute_script("return [...document.querySelectorAll('svg')].map((each) => each.clientWidth)")
        assert len(widths) == 6 and min(widths) > 200
    assert browser.get_log("browser") == []


def test_what_cannot_be_inspected_ends_in_one_line(
    settings: dict, checkpoint: str, capsys: pytest.CaptureFixture
) -> None:
    gru = run("GRU4Rec", "tiny", config_dict=settings, command_line=[])["checkpoint"]
    with pytest.raises(CheckpointError, match="GRU4Rec is not a model of this package"):
        inspect_checkpoint(gru)
    with pytest.raises(SettingError, match="max_users must be a positive integer; got 0"):
        inspect_checkpoint(checkpoint, max_users=0)
    test_only = {"split": {"LS": "test_only"}, "order": "TO", "mode": "full", "group_by": "user"}
    path = run("RoPESASRec", "tiny", config_dict={**settings, "eval_args": test_only}, command_line=[])["checkpoint"]
    with pytest.raises(DataError, match="no validation target has a history of two items"):
        inspect_checkpoint(path)
    capsys.readouterr()
    assert cli.main(["inspect", "missing.pth"]) == 2
    assert capsys.readouterr().err == (
        "recbole-posattn: checkpoint missing.pth cannot be read: No such file or directory\n"
    )
