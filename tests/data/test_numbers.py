"""Columns of numbers without a value are refused by name, and normalized columns hold what their formula says."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recbole.data import create_dataset

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.atomic_files.statistics import data_statistics
from recbole_posattn.data import blocks
from recbole_posattn.errors import DataError, SettingError
from recbole_posattn.training.load import build_model, prepare_data
from tests.presplit import PARTS, last_ones_held_out, write_parts

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
ROWS = [(f"u{user}", f"i{(user + step) % 9}", step) for user in range(6) for step in range(6)]
ALL = {"load_col": {"inter": "*", "item": "*", "user": "*"}}
LABELLED = {"eval_args": {"order": "TO", "mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}

Cell = Callable[[int], str]


def write(column: str, cell: Cell, suffix: str = "inter", newline: str = "\n", **changed: str) -> None:
    """The data set ``mine``: interactions with labels, and a column with a cell for each row in one of its files."""
    ids = {"inter": [], "item": sorted({item for _, item, _ in ROWS}), "user": sorted({user for user, _, _ in ROWS})}
    lines = {"inter": [f"{HEADER}\tlabel:float", *("\t".join(map(str, [*row, row[2] % 2])) for row in ROWS)]}
    lines |= {source: [f"{source}_id:token", *ids[source]] for source in ("item", "user")}
    lines[suffix] = [f"{line}\t{cell(k - 1) if k else column}" for k, line in enumerate(lines[suffix])]
    folder = Path("dataset", "mine")
    folder.mkdir(parents=True, exist_ok=True)
    for source, of_source in lines.items():
        (folder / f"mine.{source}").write_text(newline.join([*of_source, ""]), newline="")


def configured(model: str = "FM", **settings: object) -> Config:
    labelled = LABELLED if model in ("FM", "DeepFM", "DIN") else {}
    given = {"normalize_all": False, "topk": 2, "valid_metric": "NDCG@2", **labelled, **ALL, **settings}
    return Config(model, "mine", config_dict=given, command_line=[])


def read(model: str = "FM", **settings: object) -> object:
    """The data set before it is split."""
    config = configured(model, **settings)
    ensure_atomic_files(config)
    return create_dataset(config)


# -- no value in any row ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["inter", "item", "user"])
@pytest.mark.parametrize(("kind", "cell"), [("float", ""), ("float", "NaN"), ("float_seq", ""), ("float_seq", " ")])
def test_a_column_without_values_is_refused(empty_folder: Path, suffix: str, kind: str, cell: str) -> None:
    newline = "\r" if cell == "NaN" else "\n"  # read row by row, or in blocks unless it holds lists
    write(f"price:{kind}", lambda row: cell, suffix, newline)
    message = (
        rf"mine\.{suffix}: column 'price' \({kind}\) is read, but has no value in any row; fill it in, or leave it out "
        "with load_col or unload_col$"
    )
    with pytest.raises(DataError, match=message):
        read()
    assert "price" not in read(load_col=None, unload_col={suffix: ["price"]}).field2type
    write(f"price:{kind}", lambda row: "2" if row == 4 else cell, suffix, newline)
    assert "price" in read().field2type


LOGARITHMIC = {"discretization": {"price": {"method": "LD"}}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        *((model, LOGARITHMIC) for model in ("SASRecF", "FDSA", "GRU4RecF", "S3Rec", "DeepFM", "DIN", "BPR", "SASRec")),
        *(("FM", changes) for changes in ({}, LOGARITHMIC, {"normalize_all": True}, {"normalize_field": ["price"]})),
    ],
    ids=str,
)
def test_whatever_the_model_and_the_settings(empty_folder: Path, model: str, changes: dict) -> None:
    write("price:float", lambda row: "", "item")
    of_model = {"selected_features": ["price"], "item_attribute": "price", "train_stage": "pretrain"}
    with pytest.raises(DataError, match=r"mine\.item: column 'price' \(float\) is read, but has no value"):
        read(model, numerical_features=["price"], **of_model, **changes)


@pytest.mark.parametrize("key", ["LABEL_FIELD", "RATING_FIELD", "threshold", "val_interval"])
def test_labels_and_ratings(empty_folder: Path, key: str) -> None:
    write("rating:float", lambda row: "")
    value = {"threshold": {"rating": 3}, "val_interval": {"rating": "[3,5]"}}.get(key, "rating")
    with pytest.raises(DataError, match=r"mine\.inter.* column 'rating' .*has no value"):
        read(**{key: value})


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("FM", {"LABEL_FIELD": "rated", "train_neg_sample_args": None}),
        ("FM", {"threshold": {"rated": 3}, "train_neg_sample_args": None}),
        ("BPR", {"LABEL_FIELD": "rated", **LABELLED}),
    ],
    ids=str,
)
def test_rows_without_a_label(empty_folder: Path, model: str, changes: dict) -> None:
    """RecBole fills them with the mean of the labels or, with a threshold, labels them by the mean of the ratings."""
    write("rated:float", lambda row: "" if row == 3 else "1")
    with pytest.raises(DataError, match=r"mine\.inter, line 5: column 'rated' has no value; correct the row or leave"):
        read(model, **changes)
    assert set(read("BPR").inter_feat["rated"]) == {1.0}, "where nothing needs labels"


def test_times(empty_folder: Path) -> None:
    """Each row needs one, so that the first without is named."""
    write("price:float", lambda row: "1")
    file = Path("dataset/mine/mine.inter")
    file.write_text(re.sub(r"\t\d\t(?=\d\t1\n)", "\t\t", file.read_text()))
    with pytest.raises(DataError, match="line 2: column 'timestamp' has no value"):
        read()


def test_a_single_value_in_any_block_counts(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 7)
    for filled in (0, 20, len(ROWS) - 1):
        write("price:float", lambda row, filled=filled: "2.5" if row == filled else "")
        assert read().inter_feat["price"].to_numpy() == pytest.approx(np.full(len(ROWS), 2.5))  # the mean


def test_files_that_are_split_already(empty_folder: Path) -> None:
    """RecBole fills what is missing with the mean over all three files."""
    parts = last_ones_held_out(ROWS)
    files = {"benchmark_filename": PARTS, "load_col": None}
    header = f"{HEADER}\tprice:float"
    write_parts(
        Path("dataset"), "mine", {part: [(*row, "") for row in of_part] for part, of_part in parts.items()}, header
    )
    names = ", ".join(rf"\S+mine\.{part}\.inter" for part in PARTS)
    with pytest.raises(DataError, match=rf"{names}: column 'price' \(float\) is read, but has no value in any row"):
        read("BPR", **files)
    filled = {part: [(*row, 7 if part == "test" else "") for row in of_part] for part, of_part in parts.items()}
    write_parts(Path("dataset"), "mine", filled, header)
    assert set(read("BPR", **files).inter_feat["price"]) == {7.0}


def test_statistics_do_not_need_it(empty_folder: Path) -> None:
    write("price:float", lambda row: "")
    assert data_statistics(configured("Pop")).interactions == len(ROWS)


# -- values only in rows that are dropped ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "kept", "filters"),
    [
        ("inter", lambda row: ROWS[row][2] > 2, {"val_interval": {"timestamp": "[0,2]"}}),
        ("inter", lambda row: ROWS[row][0] == "u0", {"val_interval": {"user_id": ["u1", "u2", "u3"]}}),
        ("inter", lambda row: ROWS[row][1] == "i0", {"item_inter_num_interval": "[4,inf)"}),
        ("item", lambda row: row == 0, {"item_inter_num_interval": "[4,inf)"}),
        ("user", lambda row: row == 6, {"user_inter_num_interval": "[1,inf)"}),
    ],
)
@pytest.mark.parametrize("kind", ["float", "float_seq"])
def test_values_that_filters_drop(empty_folder: Path, suffix: str, kept: Callable, filters: dict, kind: str) -> None:
    write(f"price:{kind}", lambda row: "3" if kept(row) else "", suffix)
    if suffix == "user":  # a user without interactions
        with open("dataset/mine/mine.user", "a") as file:
            file.write("u9\t3\n")
    message = (
        f"data set 'mine': column 'price' of the file .{suffix} has no value in the rows that remain after filtering"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        read("BPR", **filters)
    assert "price" in read("BPR").field2type


def test_values_of_repeated_interactions_that_are_dropped(empty_folder: Path) -> None:
    write("price:float", lambda row: "")
    with open("dataset/mine/mine.inter", "a") as file:
        file.write("u0\ti0\t9\t1\t3\n")
    assert set(read().inter_feat["price"]) == {3.0}
    with pytest.raises(DataError, match=r"column 'price' of the file \.inter has no value .*rm_dup_inter"):
        read(rm_dup_inter="first")


def test_values_of_repeated_items_that_are_dropped(empty_folder: Path) -> None:
    write("price:float", lambda row: "", "item")
    with open("dataset/mine/mine.item", "a") as file:
        file.write("i0\t3\n")
    with pytest.raises(DataError, match=r"column 'price' of the file \.item has no value .*the first row of each"):
        read()


# -- normalized ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"normalize_all": True}, {"normalize_field": ["price"]}], ids=str)
@pytest.mark.parametrize("suffix", ["inter", "item"])
def test_columns_are_scaled_to_their_range(empty_folder: Path, how: dict, suffix: str) -> None:
    n_rows = {"inter": len(ROWS), "item": 9}[suffix]
    write("price:float", lambda row: str(3 * row - 5), suffix)
    found = getattr(read(**how), f"{suffix}_feat")["price"][int(suffix == "item") :]  # without the padding item
    assert sorted(found) == pytest.approx(np.arange(n_rows) / (n_rows - 1))
    write("price:float_seq", lambda row: f"{3 * row - 5} {3 * row - 5}" if row % 2 else "", suffix)
    lists = [row for row in getattr(read(**how), f"{suffix}_feat")["price"] if len(row)]
    odd = np.arange(1, n_rows, 2)
    assert sorted(row[0] for row in lists) == pytest.approx((odd - odd[0]) / (odd[-1] - odd[0]))
    assert all(row[0] == row[1] for row in lists)


@pytest.mark.parametrize("kind", ["float", "float_seq"])
@pytest.mark.parametrize("suffix", ["inter", "item"])
@pytest.mark.parametrize(("value", "some_missing"), [("0", False), ("0.1", True), ("-3e38", True)])
def test_equal_numbers_become_1(
    empty_folder: Path, caplog: pytest.LogCaptureFixture, kind: str, suffix: str, value: str, some_missing: bool
) -> None:
    """RecBole's rule for numbers; for lists, where it fails, the same."""
    write(f"price:{kind}", lambda row: "" if some_missing and row % 2 else value, suffix)
    with caplog.at_level(logging.WARNING):
        dataset = read(normalize_all=True, numerical_features=["price"])
    assert f"All values of price are {float(value):g}: normalized, all are 1" in caplog.text
    column = getattr(dataset, f"{suffix}_feat")["price"]
    numbers = [row[0] for row in column] if kind == "float" else np.concatenate([row[0] for row in column])
    assert set(numbers) == {1.0} and all(np.isfinite(numbers))


@pytest.mark.parametrize(("label", "expected"), [("0", 0.0), ("1", 1.0)])
def test_labels_that_are_all_equal_keep_their_meaning(empty_folder: Path, label: str, expected: float) -> None:
    """RecBole makes 1 of each label if all are 0: what nobody liked, everybody liked."""
    write("rated:float", lambda row: label)
    assert set(read(LABEL_FIELD="rated", normalize_all=True).inter_feat["rated"]) == {expected}
    write("rated:float", lambda row: "2")
    none_above = read(threshold={"rated": 5 if label == "0" else 1}, normalize_all=True)
    assert set(none_above.inter_feat["label"]) == {expected}


def test_one_of_the_two_keys(empty_folder: Path) -> None:
    write("price:float", lambda row: str(row))
    with pytest.raises(SettingError, match=r"normalize_field must be ~ if normalize_all is True; got \['price'\]: set"):
        read(normalize_all=True, normalize_field=["price"])


@pytest.mark.parametrize("kind", ["float", "float_seq"])
@pytest.mark.parametrize(("suffix", "value"), [("inter", "inf"), ("item", "-Infinity"), ("user", "1e39")])
def test_infinite_numbers_are_refused(empty_folder: Path, kind: str, suffix: str, value: str) -> None:
    write(f"price:{kind}", lambda row: value if row == 2 else "1", suffix)
    with pytest.raises(DataError, match=rf"mine\.{suffix}, line 4: column 'price' must be a"):
        read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "suffix", "kind"),
    [
        *itertools.product(["FM", "DeepFM", "DIN"], ["inter", "item", "user"], ["float", "float_seq"]),
        *itertools.product(["FDSA", "GRU4RecF"], ["item"], ["float", "float_seq"]),
        ("SASRecF", "item", "float"),
    ],
)
def test_a_loss_from_few_values_is_finite(empty_folder: Path, model: str, suffix: str, kind: str) -> None:
    write(f"price:{kind}", lambda row: "4" if row == 3 else "", suffix)
    sizes = {"embedding_size": 8, "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
    selected = {} if model in ("FM", "DeepFM", "DIN") else {"selected_features": ["price"]}
    config = configured(model, normalize_all=True, numerical_features=["price"], **selected, **sizes)
    ensure_atomic_files(config)
    _, (train, _, _) = prepare_data(config)
    assert np.isfinite(build_model(config, train).calculate_loss(next(iter(train))).item())
