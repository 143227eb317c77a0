"""Columns that settings and models ask for: those they cannot have are named in one line before RecBole fails."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recbole_posattn import Config, run
from recbole_posattn.atomic_files.check import ensure_atomic_files
from recbole_posattn.errors import SettingError

INTER = ["user_id", "item_id", "rating", "timestamp"]
ALL = {"inter": INTER, "item": "*", "user": "*"}


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``data_path`` with a data set that has columns of every type, labels in the interactions, and a graph."""
    folder, draw = tmp_path_factory.mktemp("data") / "featured", random.Random(1)
    folder.mkdir()
    files = {
        "inter": ["user_id:token\titem_id:token\trating:float\ttimestamp:float\tlabel:float\tkind:token"],
        "item": ["item_id:token\tgenre:token\ttags:token_seq\tprice:float\tvector:float_seq"],
        "user": ["user_id:token\tage:float\tgender:token"],
        "link": ["item_id:token\tentity_id:token", *(f"i{item}\te{item}" for item in range(20))],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token", *(f"e{item}\tr\te{item + 1}" for item in range(19))],
    }
    for user in range(20):
        files["user"].append(f"u{user}\t{20 + user}\t{'fm'[user % 2]}")
        for time in range(8):
            rating = draw.randint(1, 5)
            row = (f"u{user}", f"i{draw.randrange(20)}", rating, time, int(rating > 3), "k")
            files["inter"].append("\t".join(map(str, row)))
    for item in range(20):
        files["item"].append(f"i{item}\tg{item % 4}\tt{item % 3} t5\t{item / 2}\t{item / 4} {item / 8}")
    for suffix, lines in files.items():
        (folder / f"featured.{suffix}").write_text("\n".join(lines) + "\n")
    return folder.parent


@pytest.fixture
def settings(featured: Path) -> Callable[..., dict]:
    def settings(**changes: object) -> dict:
        quick = {"epochs": 1, "MAX_ITEM_LIST_LENGTH": 5, "train_batch_size": 64, "show_progress": False}
        return {"data_path": str(featured), "load_col": ALL, "pretrain_epochs": 1, **quick, **changes}

    return settings


SELECTED = [("SASRecF", "selected_features"), ("GRU4RecF", "selected_features"), ("FDSA", "selected_features")]
NOT_LOADED = (
    "which is not loaded. Loaded columns: item_id:token, genre:token, tags:token_seq, price:float, vector:float_seq"
)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "key"), [*SELECTED, ("S3Rec", "item_attribute")])
def test_features_of_items_that_cannot_be_had(settings: Callable, model: str, key: str) -> None:
    def refused(column: str, **changes: object) -> str:
        given = {key: column if key == "item_attribute" else [column], **changes}
        with pytest.raises(SettingError, match=key) as error:
            ensure_atomic_files(Config(model, "featured", config_dict=settings(**given), command_line=[]))
        assert model in str(error.value) and "\n" not in str(error.value)
        return str(error.value)

    with pytest.raises(SettingError, match=f"{key} .*class.* of {model} names the column 'class', {NOT_LOADED}"):
        ensure_atomic_files(Config(model, "featured", config_dict=settings(), command_line=[]))  # RecBole's default
    assert NOT_LOADED in refused("gnre") and "Did you mean 'genre'?" in refused("gnre")
    assert NOT_LOADED in refused("gender"), "a feature of users"
    assert "Loaded columns: item_id:token, genre:token. Name" in refused(
        "price", load_col={**ALL, "item": ["item_id", "genre"]}
    )
    for no_items in ({"inter": INTER}, {"inter": INTER, "item": []}):
        assert "there must be a file featured.item" in refused("genre", load_col=no_items)
    numbers = "needs columns of type token or token_seq" if model == "S3Rec" else "only if numerical_features names it"
    assert numbers in refused("price")
    assert "float_seq" in refused("vector")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "key"), SELECTED)
def test_features_of_items_beside_others(settings: Callable, model: str, key: str) -> None:
    def check(features: list, **changes: object) -> None:
        given = settings(**{key: features}, **changes)
        ensure_atomic_files(Config(model, "featured", config_dict=given, command_line=[]))

    check(["genre", "tags", "price"], numerical_features=["price"])
    with pytest.raises(SettingError, match="price holds numbers"):
        check(["genre", "price"])  # FDSA would leave it out without a word
    with pytest.raises(SettingError, match=r"must name at least one column of items\. Suitable loaded columns: "):
        check([])
    if model == "SASRecF":
        with pytest.raises(SettingError, match="vector is of type float_seq"):
            check(["genre", "vector"], numerical_features=["vector"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("SASRecF", {"selected_features": ["genre", "tags", "price"], "numerical_features": ["price"]}),
        ("GRU4RecF", {"selected_features": ["tags", "vector"], "numerical_features": ["vector"]}),
        ("FDSA", {"selected_features": ["price", "vector"], "numerical_features": ["price", "vector"]}),
        ("S3Rec", {"item_attribute": "tags", "train_stage": "pretrain", "save_step": 1}),
    ],
    ids=str,
)
def test_what_is_allowed_runs(settings: Callable, model: str, changes: dict) -> None:
    result = run(model, "featured", config_dict=settings(**changes), saved=False, command_line=[])
    assert result["test_result"]["ndcg@10"] > 0


REFUSED = [
    ("BPR", {"alias_of_item_id": ["nope"]}, "alias_of_item_id names the column 'nope', which is not loaded"),
    ("BPR", {"alias_of_user_id": ["gendr"]}, "Did you mean 'gender'?"),
    ("BPR", {"alias_of_item_id": ["price"]}, "alias_of_item_id needs columns of type token or token_seq; price is of"),
    ("CFKG", {"alias_of_entity_id": ["nope"]}, "alias_of_entity_id names the column 'nope'"),
    ("BPR", {"val_interval": {"genre": "[3,5]"}}, "must be a list of tokens such as ['a', 'b'] for genre"),
    ("BPR", {"val_interval": {"genre": [3, 5]}}, "write ['3', '5'] if they look like numbers"),
    ("BPR", {"val_interval": {"rating": ["3", "5"]}}, "must be an interval such as [3,5] for rating"),
    ("BPR", {"val_interval": {"tags": ["t1"]}}, "val_interval needs columns of type float or token; tags is of type"),
    ("BPR", {"val_interval": {"vector": "[0,1]"}}, "vector is of type float_seq"),
    ("BPR", {"val_interval": {"raiting": "[0,1]"}}, "Did you mean 'rating'?"),
    (
        "BPR",
        {"threshold": {"kind": 1}, "load_col": None},
        "threshold needs columns of type float; kind is of type token",
    ),
    ("BPR", {"threshold": {"age": 1}}, "threshold names the column 'age', which is not loaded"),
    ("BPR", {"discretization": {"genre": {"method": "LD"}}}, "discretization needs columns of type float or float_seq"),
    ("BPR", {"numerical_features": ["genre"]}, "numerical_features needs columns of type float or float_seq"),
    ("BPR", {"numerical_features": ["nope"]}, "numerical_features names the column 'nope'"),
    ("BPR", {"normalize_field": ["nope"], "normalize_all": False}, "normalize_field names the column 'nope'"),
    ("BPR", {"eval_args": {"mode": "labeled"}}, "the mode labeled is for metrics of single rows, such as AUC"),
    ("SASRec", {"eval_args": {"order": "TO", "mode": {"valid": "labeled"}}}, "use the mode full or uni100"),
    (
        "BPR",
        {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
        "mode labeled of eval_args needs",
    ),
    *(
        (model, {}, f"{model} needs labels, and no column 'label' is loaded")
        for model in ("FM", "DeepFM", "LR", "XGBoost")
    ),
    ("LightGBM", {"LABEL_FIELD": "mine"}, "no column 'mine' is loaded from the interactions"),
    (
        "FM",
        {"LABEL_FIELD": "kind", "load_col": None},
        "LABEL_FIELD 'kind' needs columns of type float; kind is of type",
    ),
]


@pytest.mark.parametrize(("model", "changes", "message"), REFUSED, ids=str)
def test_other_columns_that_cannot_be_had(settings: Callable, model: str, changes: dict, message: str) -> None:
    config = Config(model, "featured", config_dict=settings(**changes), command_line=[])
    with pytest.raises(SettingError) as error:
        ensure_atomic_files(config)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("FM", {"threshold": {"rating": 4}}),
        ("FM", {"load_col": None}),
        ("FM", {"train_neg_sample_args": {"distribution": "uniform"}, "eval_args": {"mode": "uni20"}}),
        (
            "BPR",
            {
                "val_interval": {"genre": ["g1", "g2"], "rating": [3, 5], "price": (1, 9)},
                "topk": 5,
                "valid_metric": "NDCG@5",
            },
        ),
        ("BPR", {"alias_of_item_id": ["tags"], "val_interval": {"rating": "[1,2];[4,inf)"}}),
    ],
    ids=str,
)
def test_columns_that_can_be_had(settings: Callable, model: str, changes: dict) -> None:
    assert run(model, "featured", config_dict=settings(**changes), saved=False, command_line=[])["test_result"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "column", "first"),
    [
        ("item", "rating:float", "inter"),
        ("user", "kind:token", "inter"),
        ("user", "price:float", "user"),
        ("item", "user_id:token", "inter"),
        ("user", "item_id:token", "inter"),
        ("features", "item_id:token", "inter"),
    ],
)
def test_a_column_in_two_files(settings: Callable, featured: Path, suffix: str, column: str, first: str) -> None:
    """Of tokens RecBole numbers those of one file alone; numbers of one file replace those of the other."""
    folder = Path("data", "featured")
    shutil.copytree(featured / "featured", folder)
    file, other = folder / f"featured.{suffix}", "item" if first == "user" else suffix
    lines = file.read_text().splitlines() if file.is_file() else ["feature_id:token", "f1", "f2"]
    file.write_text("\n".join(f"{line}\t{f'{k}' if k else column}" for k, line in enumerate(lines)) + "\n")
    own = {"load_col": None, "data_path": "data", "additional_feat_suffix": ["features"] * (suffix == "features")}
    name = column.partition(":")[0]
    with pytest.raises(SettingError, match=rf"the column '{name}' is in two files, \.{first} and \.{other}, of which"):
        ensure_atomic_files(Config("BPR", "featured", config_dict=settings(**own), command_line=[]))
    config = Config("BPR", "featured", config_dict=settings(**own, unload_col={suffix: [name]}), command_line=[])
    ensure_atomic_files(config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("NeuMF", "model NeuMF needs labels, and there is no column 'label'"),
        ("DIN", "model DIN needs labels"),
        ("BPR", "model BPR needs items that the users did not have: train_neg_sample_args must sample some"),
    ],
)
def test_models_that_are_trained_on_sampled_items(settings: Callable, model: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        run(model, "featured", config_dict=settings(train_neg_sample_args=None), saved=False, command_line=[])


@pytest.mark.parametrize(
    ("model", "package"), [("KGAT", "dgl"), ("KGIN", "torch_scatter"), ("MCCLK", "torch_scatter"), ("NCL", "faiss")]
)
def test_packages_that_are_missing(
    settings: Callable, monkeypatch: pytest.MonkeyPatch, model: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    columns = {"inter": INTER, "kg": "*", "link": "*"}
    with pytest.raises(SettingError, match=f"model {model} needs the package {package} .*; install it, or use another"):
        run(model, "featured", config_dict=settings(load_col=columns, warm_up_step=0), saved=False, command_line=[])
