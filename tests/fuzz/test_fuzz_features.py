"""Any columns of any type, with cells missing, reach the models that read them, or are refused in one line."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_posattn import Config
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import UserError
from recbole_posattn.training.load import build_model, prepare_data
from tests.fuzz.harness import ROWS, cases, empty_folder, refused, write_data

ITEMS = [f"i{item}" for item in range(7)]
NAMES = ["genre", "tags", "price", "vector", "class"]
TYPES = ["token", "token_seq", "float", "float_seq"]
CELLS = {
    "token": st.sampled_from(["a", "b", "007", "é", "x y", ""]),
    "token_seq": st.lists(st.sampled_from(["a", "b", "1.0", "é"]), max_size=3).map(" ".join),
    "float": st.sampled_from(["0", "1.5", "-2", "1e3", ""]),
    "float_seq": st.lists(st.sampled_from(["0.5", "-1", "3"]), max_size=3).map(" ".join),
}
SIZES = {"hidden_size": 8, "embedding_size": 8, "inner_size": 8, "n_layers": 1, "num_layers": 1, "n_heads": 1}
MODELS = ["SASRecF", "GRU4RecF", "FDSA", "FM", "DeepFM", "DIN", "S3Rec", "SASRec"]

Columns = dict[str, tuple[str, list[str]]]


@st.composite
def columns_of(draw: st.DrawFn, n_rows: int) -> Columns:
    """Columns by name, each with its type and a cell for each row; most have no missing cells, a few have no others."""
    found: Columns = {}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True)):
        kind = draw(st.sampled_from(TYPES))
        how = draw(st.sampled_from([*["full"] * 6, "any", "any", "empty"]))
        cells = {"full": CELLS[kind].filter(bool), "any": CELLS[kind], "empty": st.just("")}[how]
        few = draw(st.lists(cells, min_size=1, max_size=5))
        found[name] = kind, [few[row % len(few)] for row in range(n_rows)]
    return found


@st.composite
def settings_of(draw: st.DrawFn, model: str, of_items: Columns, of_rows: Columns) -> dict[str, Any]:
    """Settings that name columns; most name columns that exist and that the model can read."""
    well = draw(st.integers(0, 4)) > 0
    known = list(of_items) if well and of_items else [*NAMES, "user_id", "item_id", "nowhere"]
    numbers = [name for name, (kind, _) in {**of_items, **of_rows}.items() if kind.startswith("float")]
    settings: dict[str, Any] = {"normalize_all": draw(st.booleans())}
    selected = draw(st.lists(st.sampled_from(known), min_size=int(well), max_size=2, unique=True))
    if model == "S3Rec":
        settings |= {"item_attribute": (selected or ["class"])[0], "train_stage": "pretrain"}
    elif model in ("SASRecF", "GRU4RecF", "FDSA"):
        settings["selected_features"] = selected
    settings["numerical_features"] = (
        numbers if well else draw(st.lists(st.sampled_from([*NAMES, "nowhere"]), max_size=2))
    )
    if numbers and draw(st.booleans()):
        how = draw(st.sampled_from([{"method": "LD"}, {"method": "ED", "bucket": 3}]))
        settings["discretization"] = dict.fromkeys(draw(st.lists(st.sampled_from(numbers), unique=True)), how)
    settings |= draw(st.sampled_from([{}, {}, {"rm_dup_inter": "last"}, {"val_interval": {"timestamp": "[0,30]"}}]))
    inter, item = ["user_id", "item_id", "timestamp", "label", *of_rows], ["item_id", *of_items]
    if not well and draw(st.booleans()):
        inter, item = (draw(st.lists(st.sampled_from(names), max_size=4, unique=True)) for names in (inter, item))
    settings["load_col"] = draw(
        st.sampled_from([{"inter": inter, "item": item}, {"inter": "*", "item": "*"}, None])
        if well
        else st.sampled_from([{"inter": inter, "item": item}, {"inter": inter}, {"item": item}, {"inter": "*"}])
    )
    return settings


def write(of_items: Columns, of_rows: Columns) -> None:
    draw = random.Random(1)
    rows = [(*map(str, row), str(draw.randint(0, 1))) for row in ROWS]
    named = "".join(f"\t{name}:{kind}" for name, (kind, _) in of_rows.items())
    lines = [f"user_id:token\titem_id:token\ttimestamp:float\tlabel:float{named}"]
    lines += ["\t".join([*row, *(cells[n] for _, cells in of_rows.values())]) for n, row in enumerate(rows)]
    write_data("\n".join([*lines, ""]).encode())
    lines = ["item_id:token" + "".join(f"\t{name}:{kind}" for name, (kind, _) in of_items.items())]
    lines += ["\t".join([item, *(cells[n] for _, cells in of_items.values())]) for n, item in enumerate(ITEMS)]
    write_data("\n".join([*lines, ""]).encode(), suffix="item")


def loss_of(model: str, settings: dict[str, Any]) -> tuple[Any, torch.Tensor]:
    """The data set as it was read, and the loss of the first batch."""
    given_settings = {"data_path": "data", "MAX_ITEM_LIST_LENGTH": 4, "use_gpu": False, "state": "ERROR", **settings}
    config = Config(model, "tiny", config_dict=given_settings | SIZES, command_line=[])
    ensure_atomic_files(config)
    dataset, (train, _, _) = prepare_data(config)
    recommender = build_model(config, train)
    loss = recommender.calculate_loss(next(iter(train)))
    return dataset, sum(loss) if isinstance(loss, tuple) else loss


def check_columns(dataset: Any, of_items: Columns, settings: dict[str, Any]) -> None:
    """The columns of items that were read are those that were written; missing numbers become their mean."""
    changed = dataset.float_like_fields if settings["normalize_all"] else settings.get("discretization", ())
    number = {token: position for position, token in enumerate(dataset.field2id_token["item_id"])}
    for name, (kind, cells) in of_items.items():
        if name not in dataset.item_feat:
            continue
        values = dataset.item_feat[name].numpy()
        for item, cell in zip(ITEMS, cells):
            value = values[number[item]]
            if kind == "token":
                assert dataset.field2id_token[name][value] == (cell or "[PAD]"), (name, item)
            elif kind == "token_seq":
                found = [dataset.field2id_token[name][part] for part in value if part]
                assert found == cell.split(), (name, item)
            elif kind == "float" and name not in changed:
                written = [float(other) for other in cells if other]
                assert written, f"{name} has no value in any row, and was not refused"
                expected = float(cell) if cell else np.mean(written)
                read = (
                    value[0] if name in settings["numerical_features"] else value
                )  # beside it, its embedding's number
                assert math.isclose(read, expected, rel_tol=1e-5, abs_tol=1e-6), (name, item)


@cases(20)
@given(st.sampled_from(MODELS), st.data())
def test_columns(model: str, data: st.DataObject) -> None:
    of_items, of_rows = data.draw(columns_of(len(ITEMS))), data.draw(columns_of(len(ROWS)))
    if data.draw(st.integers(0, 9)) > 0:  # a column that both files have is refused
        of_rows = {name: column for name, column in of_rows.items() if name not in of_items}
    settings = data.draw(settings_of(model, of_items, of_rows))
    with empty_folder():
        write(of_items, of_rows)
        found, error = refused(f"feature columns: {model}", lambda: loss_of(model, settings))
    if error is not None:
        assert isinstance(error, UserError)
        return
    dataset, loss = found
    assert torch.isfinite(loss).all(), loss
    if dataset.item_feat is not None:
        check_columns(dataset, {n: c for n, c in of_items.items() if n not in of_rows}, settings)
