"""Settings: where they come from, how text becomes values, and what is refused."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import recbole.config
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset
from recbole.data.dataset import Dataset
from recbole.model.sequential_recommender import SASRec

from recbole_posattn import Config
from recbole_posattn.cli.settings import parsed_settings
from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.identity import fingerprint
from recbole_posattn.experiments.leaderboard.spec import read_spec
from recbole_posattn.models.baselines import BASELINES
from recbole_posattn.models.filters import FILTER_MODELS
from recbole_posattn.settings import unread
from recbole_posattn.settings.intervals import write_intervals
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.properties import ML_100K, PROPERTIES, RECBOLE_PROPERTIES
from recbole_posattn.settings.run_keys import RUN_RULES
from recbole_posattn.settings.single_model_keys import SINGLE_MODEL_KEYS
from recbole_posattn.settings.yaml import parse_value
from tests.conftest import TINY

MODEL_YAML = PROPERTIES / "model" / "PosKernelSASRec.yaml"
FILTER_YAMLS = [PROPERTIES / "model" / f"{model.__name__}.yaml" for model in FILTER_MODELS]
BASELINE_YAMLS = [PROPERTIES / "model" / f"{baseline.__name__}.yaml" for baseline in BASELINES]


def config(command_line: list[str] | None = None, **settings: object) -> Config:
    return Config("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=command_line or [])


# -- precedence ------------------------------------------------------------------------------------------------------


def test_precedence_is_recboles(empty_folder: Path) -> None:
    """Command line > dict > files (later first) > properties."""
    for name, rate, layers in (("a", 0.1, 4), ("b", 0.2, 4)):
        (empty_folder / f"{name}.yaml").write_text(f"learning_rate: {rate}\nn_layers: {layers}\nhidden_size: 32\n")
    settings = Config(
        "PosKernelSASRec",
        "ml-100k",
        config_file_list=["a.yaml", "b.yaml"],
        config_dict={"n_layers": 3, "hidden_size": 48},
        command_line=["--hidden_size=16"],
    )
    assert (settings["hidden_size"], settings["n_layers"], settings["learning_rate"]) == (16, 3, 0.2)
    assert settings["n_heads"] == yaml.safe_load(MODEL_YAML.read_text())["n_heads"]


def test_reads_the_command_line_as_recbole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x.py", "--n_layers=5"])
    assert Config("PosKernelSASRec", "ml-100k")["n_layers"] == 5


def test_model_and_data_set_can_come_from_the_settings() -> None:
    settings = Config(config_dict={"model": "PosKernelSASRec", "dataset": "ml-100k"}, command_line=[])
    assert (settings["model"], settings["dataset"]) == ("PosKernelSASRec", "ml-100k")


def test_defaults_are_weaker_than_a_file(empty_folder: Path) -> None:
    (empty_folder / "c.yaml").write_text("model: SASRec\ndataset: steam-merged\n")
    settings = Config(config_file_list=["c.yaml"], command_line=[])
    assert (settings["model"], settings["dataset"]) == ("SASRec", "steam-merged")
    settings = Config(command_line=[])
    assert (settings["model"], settings["dataset"]) == ("PosKernelSASRec", "ml-100k")


def test_data_set_properties_serve_recboles_models_too() -> None:
    for model in ("PosKernelSASRec", "SASRec"):
        settings = Config(model, "steam-merged", command_line=[])
        assert settings["ITEM_ID_FIELD"] == "product_id"
        assert settings["user_inter_num_interval"] == "[5,inf)"
        assert settings["load_col"] == {"inter": ["user_id", "product_id", "timestamp"]}


def test_recboles_own_settings_stay() -> None:
    settings = config()
    assert settings["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert settings["repeatable"] is True and settings["normalize_all"] is True
    assert Path(settings["data_path"], "ml-100k.inter").is_file()


def test_cross_entropy_needs_no_word_about_negatives() -> None:
    """RecBole refuses its own default here."""
    for model in ("SASRec", "GRU4Rec", "PosKernelSASRec"):
        assert Config(model, "ml-100k", command_line=[])["train_neg_sample_args"]["distribution"] == "none"
    assert Config("BPR", "ml-100k", command_line=[])["train_neg_sample_args"]["distribution"] == "uniform"


def test_times_are_loaded_for_a_data_set_without_properties() -> None:
    assert Config("SASRec", "mine", command_line=[])["load_col"] == {"inter": ["user_id", "item_id", "timestamp"]}
    other = Config("SASRec", "mine", config_dict={"load_col": {"inter": ["user_id", "item_id"]}}, command_line=[])
    assert other["load_col"] == {"inter": ["user_id", "item_id"]}


def test_use_gpu_is_respected() -> None:
    assert config(use_gpu=False)["device"] == torch.device("cpu")


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("-2.5E2", -250.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("{a: -7, b: 2e5, c: 0b11, d: .inf}", {"a": -7, "b": 2e5, "c": 3, "d": float("inf")}),
        ("010", "010"),
        ("[010, 1:30, 1:30.5]", ["010", "1:30", "1:30.5"]),
        ("True", True),
        ("true", True),
        ("None", None),
        ("~", None),
        ("", None),
        ("toeplitz-full", "toeplitz-full"),
        ("'3'", "3"),
        ("[5, 10]", [5, 10]),
        ("[rope]", ["rope"]),
        ("{u: shared, l: per_layer}", {"u": "shared", "l": "per_layer"}),
        ("{'LS': 'valid_and_test'}", {"LS": "valid_and_test"}),
        ("0,1", (0, 1)),
        ("2020-01-01", "2020-01-01"),
        ("[5,inf)", "[5,inf)"),
        ("2020-13-45", "2020-13-45"),
        ("b'x'", "b'x'"),
        ("{1, 2}", "{1, 2}"),
        ("[" * 3000, "[" * 3000),
        ("a: b: c", "a: b: c"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("1 + 1", "1 + 1"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
    ],
)
def test_text_is_a_literal_or_yaml(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


@given(st.text(max_size=40))
def test_any_text_is_parsed_to_plain_data(text: str) -> None:
    assert isinstance(parse_value(text), (str, int, float, bool, list, tuple, dict, type(None)))


def test_values_may_hold_an_equals_sign() -> None:
    assert config(["--wandb_project=a=b"])["wandb_project"] == "a=b"


def test_floats_in_files_are_numbers(empty_folder: Path) -> None:
    (empty_folder / "c.yaml").write_text("learning_rate: 1e-3\nlayer_norm_eps: 5E-9\n")
    settings = Config("PosKernelSASRec", "ml-100k", config_file_list=["c.yaml"], command_line=[])
    assert (settings["learning_rate"], settings["layer_norm_eps"]) == (1e-3, 5e-9)


# On the data set tiny, whose users have 4 to 24 interactions each
INTERVALS = [
    ("[5,9]", 5, 9),
    ("(4,10)", 5, 9),
    ("[20,50]", 20, 50),
    ([5, 9], 5, 9),
    ((4, 10), 5, 9),
    ("5,9", 6, 8),  # Python's and RecBole's reading: an open interval
    ("[5,inf]", 5, 24),
    ("[.5,9.0]", 0, 9),
    ("[4,5];[20,inf)", None, None),
]


@pytest.mark.parametrize(("interval", "lowest", "highest"), INTERVALS, ids=str)
def test_intervals_are_recboles(tiny_data_path: Path, interval: object, lowest: int, highest: int) -> None:
    per_user = Counter(
        line.split("\t")[0] for line in (tiny_data_path / TINY / f"{TINY}.inter").read_text().splitlines()[1:]
    )
    kept = sum(n for n in per_user.values() if (n in (4, 5) or n >= 20 if lowest is None else lowest <= n <= highest))
    settings = {"data_path": str(tiny_data_path), "user_inter_num_interval": interval}
    for read_by in (Config, recbole.config.Config):  # which reads the empty command line of the fixture
        assert len(create_dataset(read_by("BPR", TINY, config_dict=settings)).inter_feat) == kept


def test_intervals_are_the_same_from_everywhere(empty_folder: Path) -> None:
    (empty_folder / "bare.yaml").write_text(
        "user_inter_num_interval: [5,9]\nitem_inter_num_interval: (4,10)\n"
        "val_interval: {rating: [3,5], age: [20, .inf]}\n"
    )
    of_file = Config("BPR", "ml-100k", ["bare.yaml"], command_line=[])
    line = ["--user_inter_num_interval=[5,9]", "--item_inter_num_interval=(4,10)"]
    of_line = config([*line, "--val_interval={'rating': [3,5], 'age': [20, inf]}"])
    of_dict = config(
        user_inter_num_interval=[5, 9],
        item_inter_num_interval=(4, 10),
        val_interval={"rating": (3, 5), "age": ["a", "b"]},
    )
    for read in (of_file, of_line, of_dict):
        assert read["user_inter_num_interval"] == "[5,9]" and read["item_inter_num_interval"] == "(4,10)"
        again = Config.from_plain(read.plain())  # where a tuple would be a list, and so a closed interval
        assert again["item_inter_num_interval"] == "(4,10)"
    assert of_file["val_interval"] == of_line["val_interval"] == {"rating": "[3,5]", "age": "[20,inf]"}
    assert of_dict["val_interval"] == {"rating": "(3,5)", "age": ["a", "b"]}


@pytest.mark.parametrize(
    "interval", ["[9,5]", "[5]", "[1,2,3]", "[nan,5]", "[a,5]", "5", "[[1,2]]", [True, 5], ""], ids=str
)
def test_intervals_that_hold_nothing_are_refused(interval: object) -> None:
    given = {"val_interval": {"rating": interval}} if interval == "" else {"user_inter_num_interval": interval}
    with pytest.raises(SettingError, match=r'intervals such as "\[5,inf\)" or "\[1,2\];\[4,9\)"'):
        config(**given)


_BOUND = st.integers(-9, 99) | st.floats(-1e3, 1e3) | st.sampled_from([float("inf"), "inf", "-inf", "1e2"])
_TEXT_OF_INTERVALS = st.from_regex(r"[\[(]-?[0-9.]{1,3}(e[0-9])?,(inf|nan|[0-9.]{1,3})[\])]", fullmatch=True)


@given(
    st.tuples(_BOUND, _BOUND)
    | st.lists(_BOUND, min_size=1, max_size=3)
    | st.lists(_TEXT_OF_INTERVALS, min_size=1, max_size=2).map(";".join)
    | st.text("[](),;.-+e019inf ", max_size=12)
)
def test_intervals_have_the_bounds_that_recbole_reads(given_interval: object) -> None:
    def endpoints(interval: object) -> list | None:
        try:  # RecBole's reading, which logs an invalid interval and ignores it
            read = Dataset._parse_intervals_str(SimpleNamespace(logger=logging.getLogger("silent")), interval)
        except (IndexError, ValueError):
            return None
        whole = len(read) == len(str(interval).split(";")) and all(low <= high for _, low, high, _ in read)
        return read if whole else None

    settings = {"user_inter_num_interval": given_interval, "val_interval": {"rating": given_interval}}
    write_intervals(settings)
    written = settings["user_inter_num_interval"]
    allowed = RUN_RULES["user_inter_num_interval"].holds(written)
    plain = given_interval
    if isinstance(plain, (list, tuple)) and not all(isinstance(bound, str) for bound in plain):  # YAML's [5, inf]
        plain = str(plain).replace("'", "")
    assert allowed == (endpoints(plain) is not None)
    if allowed:
        assert endpoints(settings["val_interval"]["rating"]) == endpoints(plain)
        assert endpoints(written) == sorted(endpoints(plain), key=lambda interval: interval[1])


@pytest.mark.parametrize("name", ["2024", "1e5", "True", "007", "1.10", "2020-01-01", "0x10", "1_000"])
def test_names_stay_text_whatever_they_look_like(empty_folder: Path, name: str) -> None:
    assert Config(command_line=[f"--dataset={name}"])["dataset"] == name
    assert Config(config_dict={"dataset": name}, command_line=[])["dataset"] == name
    (empty_folder / "c.yaml").write_text(f"dataset: {name}\nepochs: 3\n")
    (empty_folder / "board.yaml").write_text(f"models: [SASRec]\ndatasets: [{name}, b]\n")
    assert read_spec("board.yaml", {}, {}).datasets == [name, "b"]
    line = [f"--{key}={name}" for key in ("TIME_FIELD", "checkpoint_dir", "data_path")]
    read = Config(config_file_list=["c.yaml"], command_line=line)
    assert (read["dataset"], read["epochs"]) == (name, 3)
    assert read["TIME_FIELD"] == read["checkpoint_dir"] == name and read["data_path"] == f"{name}/{name}"
    assert parsed_settings(line)["TIME_FIELD"] == name


@pytest.mark.parametrize(
    "unread",
    [
        {"eval_step": 0},
        {"epochs": 0},
        {"eval_args": {"split": {"LS": "test_only"}, "order": "TO"}},
        {"eval_args": {"split": {"RS": [0.8, 0, 0.2]}, "order": "TO"}},
    ],
    ids=str,
)
def test_a_validation_metric_that_is_never_read_may_be_any(unread: dict) -> None:
    assert config(topk=20, **unread)["topk"] == [20]
    with pytest.raises(SettingError, match="valid_metric must be one of Recall@20"):
        config(topk=20)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["rope"]),
        ({"position_encoding": "auto", "kernel_branch": "full"}, ["rope"]),
        ({"kernel_branch": None}, []),
        ({"kernel_structure": "toeplitz-full"}, []),
        ({"kernel_structure": "identity-toeplitz"}, []),
        ({"attention": "none"}, []),
        ({"preset": "paper"}, []),
        ({"position_encoding": []}, []),
        ({"position_encoding": ["absolute"]}, ["absolute"]),
    ],
    ids=str,
)
def test_attention_without_kernels_has_rope(settings: dict[str, Any], expected: list[str]) -> None:
    config = Config("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=[])
    assert config["position_encoding"] == expected
    assert "position_encoding" not in Config("RoPESASRec", "ml-100k", command_line=[])
    named = {"model": "PosKernelSASRec", **settings, "position_encoding": expected}
    assert fingerprint({"model": "PosKernelSASRec", **settings}) == fingerprint(named)


def test_keys_of_kernels_that_are_not_there_are_named(caplog: pytest.LogCaptureFixture) -> None:
    given = {"kernel_groups": "hidden_size", "kernel_sharing": "shared", "kernel_normalization": "frobenius"}
    Config("PosKernelSASRec", "ml-100k", config_dict={**given, "kernel_structure": "toeplitz-full"}, command_line=[])
    assert "no effect" not in caplog.text
    Config("PosKernelSASRec", "ml-100k", config_dict=given, command_line=[])
    for key in given:
        assert f"{key} has no effect: kernel_structure identity-identity has no kernels." in caplog.text
    without_attention = {"attention": "none", "kernel_branch": "toeplitz", "kernel_normalization": "frobenius"}
    without_attention["n_heads"] = 4
    Config("PosKernelSASRec", "ml-100k", config_dict=without_attention, command_line=[])
    assert "kernel_normalization has no effect: attention none has no kernels U and L." in caplog.text
    assert "n_heads has no effect: attention none has no heads." in caplog.text
    caplog.clear()
    by_head = {"attention": "none", "kernel_branch": "toeplitz", "kernel_branch_groups": "n_heads", "n_heads": 2}
    Config("PosKernelSASRec", "ml-100k", config_dict=by_head, command_line=[])
    assert "no effect" not in caplog.text


@pytest.mark.parametrize("model", ["PosKernelSASRec", "SASRec", "BPR"])
def test_settings_without_unread_keys_parse_no_source(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes up to a hundred times as long as the rest, and a leaderboard reads the settings of every run."""
    monkeypatch.setattr(unread, "source_of", lambda each: pytest.fail(f"parsed the source of {each}"))
    Config(model, "ml-100k", config_dict={"learning_rate": 1e-3}, command_line=[])


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_another_ml_100k_than_recboles_is_warned_of(
    empty_folder: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    """As in RecBole, the data set of that name is always the one in RecBole's package."""
    data = empty_folder / "data"
    assert config(data_path=str(data))["data_path"] == str(ML_100K)
    assert "is not read" not in caplog.text
    (data / "ml-100k").mkdir(parents=True)
    (data / "ml-100k" / f"ml-100k.inter{suffix}").touch()
    settings = config(data_path=str(data))
    assert settings["data_path"] == str(ML_100K)
    assert f"{data / 'ml-100k'} is not read: like RecBole, this package reads ml-100k from" in caplog.text
    caplog.clear()
    assert Config.from_plain(settings.plain(), data)["data_path"] == str(ML_100K)
    assert f"{data / 'ml-100k'} is not read" in caplog.text
    assert config(data_path=str(ML_100K.parent))["data_path"] == str(ML_100K)
    assert caplog.text.count("is not read") == 1


def test_transforms_that_a_model_does_not_read_are_named(caplog: pytest.LogCaptureFixture) -> None:
    Config("BERT4Rec", "ml-100k", config_dict={"transform": "mask_itemseq"}, command_line=[])
    assert "transform" not in caplog.text
    given = {"transform": "crop_itemseq", "eta": 0.5, "train_objective": "augmented"}
    Config("PosKernelSASRec", "ml-100k", config_dict=given, command_line=[])
    assert (
        "transform 'crop_itemseq' has no effect: PosKernelSASRec does not read the fields that it adds" in caplog.text
    )


@pytest.mark.parametrize(
    ("given", "with_effect", "message"),
    [
        (
            {"kernel_rank": 4},
            {"kernel_branch": "time_variant"},
            "kernel_structure or kernel_branch lowrank or time",
        ),
        (
            {"kernel_decays": 9},
            {"kernel_structure": "exponential-full"},
            "kernel_structure or kernel_branch exponential",
        ),
        ({"rope_base": 3.0}, {"position_encoding": ["rope"]}, r"position_encoding rope; got position_encoding \[\]\."),
        ({"alibi_slope_exponent": 2.0}, {"position_encoding": ["alibi"]}, "position_encoding alibi; got"),
        ({"t5_buckets": 16}, {"position_encoding": ["cape", "t5_bias"]}, "position_encoding t5_bias; got"),
        ({"cape_positions": 5}, {"position_encoding": ["cape"]}, "position_encoding cape; got"),
        ({"all_absolute_sharing": "shared"}, {"position_encoding": ["all_absolute"]}, "position_encoding all_absolute"),
        ({"time_rope_base": 5.0}, {"position_encoding": ["time_rope"]}, "position_encoding time_rope; got"),
        ({"gbce_calibration": 0.1}, {"loss_type": "gBCE"}, "loss_type gBCE; got loss_type 'CE'"),
        ({"attn_dropout_prob": 0.3}, {}, "attention softmax; got attention 'none'"),
        ({"initializer_range": 0.5}, {}, "initializer normal; got initializer 'xavier_uniform'"),
        ({"feed_forward_bias": "uniform"}, {}, "backbone sasrec or recbole; got backbone 'ligr'"),
    ],
    ids=str,
)
def test_keys_of_parts_that_are_not_there_are_named(
    given: dict, with_effect: dict, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the part there is no warning, and none for the default value."""
    off = {
        "attn_dropout_prob": {"attention": "none"},
        "initializer_range": {"initializer": "xavier_uniform"},
        "feed_forward_bias": {"backbone": "ligr"},
    }
    (key,) = given
    default = Config("PosKernelSASRec", "ml-100k", command_line=[])[key]
    without = {"position_encoding": [], **off.get(key, {})}
    Config("PosKernelSASRec", "ml-100k", config_dict={**given, **with_effect}, command_line=[])
    Config("PosKernelSASRec", "ml-100k", config_dict={**without, key: default}, command_line=[])
    assert "no effect" not in caplog.text
    Config("PosKernelSASRec", "ml-100k", config_dict={**without, **given}, command_line=[])
    assert re.search(f"{key} has no effect: it is for {message}", caplog.text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_structure": "toplitz-full"}, "Did you mean 'toeplitz-full'?"),
        ({"kernel_structure": "toeplitz"}, "kernel_structure must be <U>-<L>"),
        ({"kernel_structure": "banded-full"}, "needs kernel_bandwidth"),
        ({"kernel_structure": "banded-full", "kernel_bandwidth": 0}, "kernel_bandwidth must be a positive integer"),
        ({"kernel_structure": "banded-full", "kernel_bandwidth": 51}, "at most MAX_ITEM_LIST_LENGTH, which is 50"),
        ({"kernel_bandwidth": 5}, "kernel_bandwidth 5 is for banded structures"),
        ({"time_bias_positions": True}, "time_bias_positions True is for position_encoding time_bias; got ['rope']"),
        (
            {"time_bias_positions": True, "position_encoding": ["time_bias", "t5_bias"]},
            "time_bias_positions True and position_encoding t5_bias both add a bias per distance",
        ),
        ({"position_encoding": ["time_rope"], "hidden_size": 33}, "time_rope rotates channels in pairs"),
        ({"hidden_size": 33}, "got 33 / 1. Change one of them, or name other encodings."),
        ({"n_heads": 3}, "hidden_size must be a multiple of n_heads; got hidden_size 64, n_heads 3"),
        ({"n_layers": 0}, "n_layers must be a positive integer; got 0"),
        ({"n_layers": True}, "n_layers must be a positive integer; got True"),
        ({"hidden_dropout_prob": 1}, "hidden_dropout_prob must be a number in [0, 1); got 1"),
        ({"hidden_act": "rleu"}, "hidden_act must be one of gelu, relu, swish, tanh, sigmoid; got 'rleu'"),
        ({"backbone": "bert"}, "backbone must be one of sasrec, recbole, ligr; got 'bert'"),
        (
            {"kernel_sharing": {"u": "shared"}},
            "kernel_sharing must be per_layer, shared, shared_if_full, or a mapping of",
        ),
        ({"kernel_sharing": ["shared"]}, "kernel_sharing must be per_layer, shared, shared_if_full"),
        ({"kernel_sharing": {"u": [], "l": "shared"}}, "kernel_sharing must be per_layer, shared, shared_if_full"),
        ({"kernel_groups": True}, "kernel_groups must be one of 1, n_heads, hidden_size; got True"),
        ({"kernel_groups": 1.0}, "kernel_groups must be one of 1, n_heads, hidden_size; got 1.0"),
        ({"kernel_groups": 3}, "kernel_groups must be one of 1, n_heads, hidden_size; got 3"),
        ({"position_encoding": ["rop"]}, "position_encoding must be auto or a list of any of absolute"),
        ({"position_encoding": "absolute"}, "position_encoding must be auto or a list"),
        ({"position_encoding": ["rope", "rope"]}, "position_encoding must hold 'rope' once, got ['rope', 'rope']"),
        ({"position_encoding": ["alibi", "t5_bias"]}, "makes no sense: of alibi and t5_bias, both add a bias"),
        ({"position_encoding": ["absolute", "sinusoidal"]}, "makes no sense: of absolute and sinusoidal"),
        ({"position_encoding": ["rope"], "hidden_size": 9}, "hidden_size / n_heads must be even; got 9 / 1"),
        ({"rope_base": 0}, "rope_base must be a number above 0; got 0"),
        ({"cape_positions": 0}, "cape_positions must be a positive integer, or ~; got 0"),
        ({"alibi_slope_exponent": -1}, "alibi_slope_exponent must be a number above 0; got -1"),
        ({"t5_buckets": 1}, "t5_buckets must be an integer of at least 2; got 1"),
        (
            {"t5_max_distance": 16},
            "t5_max_distance must be above t5_buckets / 2; got t5_max_distance 16, t5_buckets 32",
        ),
        ({"all_absolute_sharing": "layer"}, "all_absolute_sharing must be one of per_layer, shared; got 'layer'"),
        ({"kernel_decays": 0}, "kernel_decays must be a positive integer; got 0"),
        ({"kernel_structure": "lowrank-full", "kernel_rank": 51}, "kernel_rank must be at most MAX_ITEM_LIST_LENGTH"),
        ({"kernel_width_penalty": -0.1}, "kernel_width_penalty must be a number of at least 0; got -0.1"),
        ({"kernel_width_penalty": 0.1}, "kernel_width_penalty 0.1 is for the structure adaptive_band"),
        ({"train_objective": "prefix"}, "train_objective must be one of sequence, augmented; got 'prefix'"),
        ({"loss_type": "softmax"}, "loss_type must be one of CE, SSM, TSSM, BCE, gBCE, BPR; got 'softmax'"),
        ({"train_neg_sample_args": {"distribution": "uniform"}}, "must be ~ with loss_type CE"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"sample_num": 0}}, "sample_num (a positive integer)"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"distribution": "none"}}, "uniform or popularity"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"dynamic": True}}, "train_neg_sample_args must be a dict of"),
        ({"loss_type": "BPR", "train_neg_sample_args": {"number": 3}}, "train_neg_sample_args must be a dict of"),
        ({"loss_type": "SSM", "loss_chunk_size": 64}, "loss_chunk_size 64 is for loss_type CE; got SSM"),
        ({"loss_chunk_size": 0}, "loss_chunk_size must be auto or a positive integer"),
        ({"loss_type": "gBCE", "gbce_calibration": 1.5}, "gbce_calibration must be a number in [0, 1]"),
        (
            {"loss_type": "gBCE", "train_neg_sample_args": {"distribution": "popularity"}},
            "gBCE is calibrated for uniform negatives",
        ),
        ({"window_stride": 51}, "window_stride must be at most MAX_ITEM_LIST_LENGTH, which is 50; got 51"),
        ({"window_stride": 0}, "window_stride must be a positive integer"),
        ({"window_stride": 5, "train_objective": "augmented"}, "'augmented', which has no windows"),
        ({"length_bucketing": 1}, "length_bucketing must be one of True, False; got 1"),
        ({"lazy_prefixes": "maybe"}, "lazy_prefixes must be one of True, False; got 'maybe'"),
        ({"torch_compile": "max"}, "torch_compile must be one of True, False"),
        ({"enable_amp": "bf16"}, "enable_amp must be one of True, False"),
        ({"transform": "crop_itemseq"}, "transform 'crop_itemseq' rewrites single histories, which"),
        ({"epochs": "many"}, "epochs must be an integer of at least 0; got 'many'"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
        ({"train_batch_size": 0}, "train_batch_size must be a positive integer; got 0"),
        ({"MAX_ITEM_LIST_LENGTH": -1}, "MAX_ITEM_LIST_LENGTH must be a positive integer; got -1"),
        ({"valid_metric": "NDCG@20"}, "valid_metric must be one of Recall@10, MRR@10, NDCG@10"),
        ({"metrics": ["NDCG", "Hitt"]}, "metrics must be the name of a metric or a list of names of metrics, such as"),
        ({"metrics": ["NDCG", "NDGC"]}, "Did you mean 'ndcg'?"),
        ({"metrics": ["NDCG", 5]}, "such as [Recall, NDCG]; got ['NDCG', 5]."),
        ({"position_encoding": ["rop"]}, "got ['rop']. Did you mean 'rope'?"),
        ({"gpu_id": "1" * 60 + "a"}, "gpu_id must be a number or a string of numbers or identifiers such as"),
        ({"gpu_id": "a"}, "gpu_id must be a number or a string of numbers or identifiers such as '0,1' or several"),
        (
            {"protocol": "leave_one"},
            "must be one of leave_one_out, leave_one_out_masked, temporal, temporal_paper, or a",
        ),
        ({"mask_history": "some"}, "mask_history must be one of none, all, except_target, or ~; got 'some'"),
        ({"mask_history": "all", "lazy_prefixes": False}, "without lazy_prefixes no histories are kept"),
        ({"mask_history": "all", "metrics": ["GAUC"], "valid_metric": "GAUC"}, "GAUC has no value for a target"),
        (
            {"eval_args": {"order": "RO"}},
            "eval_args: order must be TO (by time) for sequential models; got RO",
        ),
        ({"eval_args": {"order": "TO", "split": {"TS": [0, 0, 1]}}}, "with a share of training above 0; got {'TS': "),
        ({"eval_args": {"order": "TO", "split": {"RS": [0, 0.5, 0.5]}}}, "a share of training above 0; got {'RS': "),
        ({"eval_args": {"mode": "uni100"}}, "it is left out, and RecBole then sets RO. Give order: TO, or a protocol"),
        ({"mask_history": "all", "eval_args": {"order": "TO", "mode": "uni100"}}, "must have the mode full, not"),
        ({"protocol": "temporal", "mask_history": None}, "TQ needs mask_history, one of none, all, except_target"),
        ({"drop_unseen_targets": True}, "drop_unseen_targets needs mask_history"),
        (
            {"mask_history": "all", "eval_args": {"order": "TO", "split": {"TQ": [0.9, 0.8]}}},
            "TQ must be two ascending quantiles of time in (0, 1), like [0.95, 0.97]; got [0.9, 0.8]",
        ),
        ({"kernel_structur": "full-full"}, "key 'kernel_structur' is unknown. Did you mean 'kernel_structure'?"),
        ({"hiden_size": 32}, "key 'hiden_size' is unknown. Did you mean 'hidden_size'?"),
        ({"learning_rat": 0.1}, "key 'learning_rat' is unknown. Did you mean 'learning_rate'?"),
    ],
    ids=str,
)
def test_refuses_what_cannot_be_meant(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=re.escape(message)) as error:
        config(**settings)
    assert "\n" not in str(error.value)


def test_a_random_order_keeps_no_history_to_mask() -> None:
    settings = {"mask_history": "all", "eval_args": {"order": "RO"}}
    with pytest.raises(SettingError, match="eval_args must have the order TO, not RO"):
        Config("BPR", "ml-100k", config_dict=settings, command_line=[])


@pytest.mark.parametrize("model", ["DIEN", "FM"])
def test_models_whose_data_tell_no_histories_refuse_to_mask_them(model: str) -> None:
    settings = {"mask_history": "all", "eval_args": {"order": "TO", "mode": "full"}, "metrics": ["Hit"]}
    with pytest.raises(SettingError, match=f"{model} uses a data set that provides no histories"):
        Config(model, "ml-100k", config_dict={**settings, "valid_metric": "Hit@10"}, command_line=[])


def test_a_protocol_is_weaker_than_what_is_given_beside_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(protocol="temporal", topk=[7], valid_metric="MRR@7")
    assert settings["eval_args"]["split"] == {"TQ": [0.95, 0.97]} and settings["mask_history"] == "all"
    assert settings["topk"] == [7] and settings["metrics"] == ["Hit", "NDCG", "MRR", "Recall", "COV"]
    assert "eval_args" not in caplog.text
    partial = config(protocol="leave_one_out", eval_args={"mode": "uni100"}, mask_history=None)["eval_args"]
    assert (partial["split"], partial["order"], partial["group_by"]) == ({"LS": "valid_and_test"}, "TO", "user")
    assert partial["mode"] == {"valid": "uni100", "test": "uni100"}
    assert "eval_args" not in caplog.text
    partial = config(eval_args={"mode": "uni100", "order": "TO"})["eval_args"]
    assert partial["split"] == {"RS": [0.8, 0.1, 0.1]}  # as in RecBole
    assert "eval_args leaves out split, which RecBole then sets to {RS: [0.8, 0.1, 0.1]}" in caplog.text
    file = tmp_path / "mine.yaml"
    file.write_text("mask_history: except_target\ntopk: [3]\nvalid_metric: Recall@3\n")
    settings = config(protocol=str(file))
    assert (settings["mask_history"], settings["topk"]) == ("except_target", [3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_histroy: all", "key 'mask_histroy' is unknown. Did you mean 'mask_history'"),
        ("hidden_size: 8", "hidden_size does not belong to the evaluation or the data; give it as a setting"),
        ("dataset: ml-1m", "dataset does not belong to the evaluation or the data"),
        ("device: cpu", "device does not belong to the evaluation or the data"),
        ("plugins: [os]", "plugins does not belong to the evaluation or the data"),
    ],
)
def test_a_protocol_sets_keys_of_the_evaluation_and_the_data_only(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"topk: [10]\nTIME_FIELD: timestamp\nrm_dup_inter: first\n{text}\n")
    with pytest.raises(SettingError, match=rf"protocol .*mine\.yaml: {message}"):
        config(protocol=str(file))


def test_a_mistyped_value_and_a_mistyped_key_get_the_nearest_one() -> None:
    with pytest.raises(SettingError, match=r"loss_type must be one of CE, .*; got 'BBPR'\. Did you mean 'BPR'"):
        config(loss_type="BBPR")
    with pytest.raises(SettingError, match="Did you mean 'per_layer'"):
        config(all_absolute_sharing="per_layr")
    with pytest.raises(SettingError, match=r"key 'config_file' is unknown. Did you mean 'config_files'"):
        config(config_file="a.yaml")  # which RecBole lists and never reads
    with pytest.raises(SettingError, match="key 'kernel_structur' is unknown"):
        config(kernel_structur="full-full")
    Config("SASRec", "ml-100k", config_dict={"kernel_structur": "full-full"}, command_line=[])  # not a key of SASRec


def test_keys_of_other_models_and_of_ones_own_pass() -> None:
    settings = config(embedding_size=8, gru_type="x", my_own_note="y")
    assert settings["my_own_note"] == "y"


def test_misspelt_keys_are_refused_for_recboles_models() -> None:
    with pytest.raises(SettingError, match="Did you mean 'hidden_size'"):
        Config("SASRec", "ml-100k", config_dict={"hiden_size": 8}, command_line=[])


@pytest.mark.parametrize(
    ("name", "near"), [("PosKernelSASrec", "PosKernelSASRec"), ("sasrec", "SASRec"), ("Foo", None), ("", None)]
)
def test_unknown_models_are_named_with_the_nearest(name: str, near: str | None) -> None:
    with pytest.raises(SettingError, match=f"model '{name}' is unknown") as error:
        Config(name, "ml-100k", command_line=[])
    assert (f"Did you mean {near!r}?" in str(error.value)) == (near is not None)


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(SettingError, match="seed was given twice, as '1' and '2'"):
        config(["--seed=1", "--seed=2"])
    assert config(["--seed=1", "--seed=1"])["seed"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must hold lines of 'key: value', got a list"),
        ("a: [1,\n", "is not YAML"),
        ("a: 2020-13-45\n", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_bad_config_files_are_named(empty_folder: Path, content: str | None, message: str) -> None:
    if content is not None:
        (empty_folder / "bad.yaml").write_text(content)
    with pytest.raises(SettingError, match=f"config file bad.yaml.*{message}"):
        Config("PosKernelSASRec", "ml-100k", config_file_list=["bad.yaml"], command_line=[])


def test_an_empty_config_file_says_nothing(empty_folder: Path) -> None:
    (empty_folder / "empty.yaml").write_text("# nothing\n")
    assert Config("PosKernelSASRec", "ml-100k", config_file_list=["empty.yaml"], command_line=[])["seed"] == 2020


@pytest.mark.parametrize("key", ["kernel_structure", "position_encoding", "cape_positions"])
def test_baselines_refuse_the_keys_of_the_kernel_model(key: str) -> None:
    with pytest.raises(SettingError, match=f"RoPESASRec has no key '{key}'"):
        Config("RoPESASRec", "ml-100k", config_dict={key: 3}, command_line=[])
    assert Config("RoPESASRec", "ml-100k", config_dict={"rope_base": 50}, command_line=[])["rope_base"] == 50
    with pytest.raises(SettingError, match="hidden_size / n_heads must be even; got 6 / 2"):
        Config("RoPESASRec", "ml-100k", config_dict={"hidden_size": 6, "n_heads": 2}, command_line=[])


# -- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [MODEL_YAML, *BASELINE_YAMLS, *FILTER_YAMLS], ids=lambda file: file.stem)
def test_every_model_key_has_a_rule_and_a_comment(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"\w+: \S.*? +# \((int|float|bool|str|dict|list)[^)]*\) .+\.", line) for line in lines)
    keys = set(yaml.safe_load(text))
    assert keys - set(MODEL_RULES) - {"learning_rate"} == {"train_batch_size", "valid_metric"}
    assert file != MODEL_YAML or set(MODEL_RULES) - {key.name for key in SINGLE_MODEL_KEYS} <= keys


@pytest.mark.parametrize("file", BASELINE_YAMLS, ids=lambda file: file.stem)
def test_baselines_start_from_the_same_settings(file: Path) -> None:
    """A fair comparison: the line of a key, default and comment, is the same in every file but for one block."""
    lines = set(MODEL_YAML.read_text(encoding="utf-8").splitlines())
    own = {line.split(":")[0] for line in file.read_text(encoding="utf-8").splitlines() if line not in lines}
    block = {"backbone", "inner_size", "hidden_act"}  # Sinusoidal positions need the paper's block.
    assert own - {"# Positions"} == (block if file.stem == "SinusoidalSASRec" else set())


@pytest.mark.parametrize(
    ("settings", "negatives"),
    [
        ({}, None),
        ({"loss_type": "BPR"}, {"distribution": "uniform", "sample_num": 1, "alpha": 1.0}),
        ({"loss_type": "gBCE"}, {"distribution": "uniform", "sample_num": 256, "alpha": 1.0}),
        (
            {"loss_type": "SSM", "train_neg_sample_args": {"distribution": "popularity", "sample_num": 9}},
            {"distribution": "popularity", "sample_num": 9, "alpha": 1.0},
        ),
    ],
    ids=str,
)
def test_a_loss_draws_its_own_negatives(settings: dict, negatives: dict | None) -> None:
    """RecBole's loader must draw none: it would repeat each sequence for each of them."""
    config = Config("PosKernelSASRec", "ml-100k", config_dict=settings, command_line=[])
    assert config["loss_negatives"] == negatives and config["train_neg_sample_args"]["distribution"] == "none"
    again = Config.from_plain(config.plain())
    assert again["loss_negatives"] == negatives and again["train_neg_sample_args"] == config["train_neg_sample_args"]


def test_data_set_properties_are_for_names_that_recbole_downloads() -> None:
    names = yaml.safe_load((RECBOLE_PROPERTIES / "dataset" / "url.yaml").read_text())
    of_our_tests = {"ml-1m-timed"}  # MovieLens 1M in the order of each user, with filled-in times
    files = [file for file in (PROPERTIES / "dataset").glob("*.yaml") if file.stem not in of_our_tests]
    assert {"ml-1m", "amazon-beauty", "yelp", "gowalla-merged", "steam-merged"} <= {file.stem for file in files}
    for file in files:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert file.stem in names
        columns = [settings[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
        assert settings["load_col"] == {"inter": columns} and settings["MAX_ITEM_LIST_LENGTH"] > 0


TUNED = sorted((PROPERTIES / "tuned").glob("*/*.yaml"))


@pytest.mark.parametrize("file", TUNED, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_tuned_settings_are_for_their_model_on_their_data_set(file: Path) -> None:
    tuned, dataset = yaml.safe_load(file.read_text(encoding="utf-8")), file.parent.name
    key, value = next((key, value) for key, value in tuned.items() if key != "learning_rate")
    settings = Config(file.stem, dataset, config_dict={"learning_rate": 0.5}, command_line=[])
    assert {key: settings[key] for key in tuned} == {**tuned, "learning_rate": 0.5}
    assert Config(file.stem, "ml-100k", command_line=[])[key] != value
    for other in {"NoPESASRec", "SASRec", "PosKernelSASRec"} - {path.stem for path in file.parent.iterdir()}:
        of_other = [Config(other, name, command_line=[])[key] for name in (dataset, "ml-100k")]
        assert of_other[0] == of_other[1] != value


def test_tuned_settings_lie_in_the_folder_of_a_data_set() -> None:
    assert TUNED and not list((PROPERTIES / "tuned").glob("*.yaml"))


# -- plain data ------------------------------------------------------------------------------------------------------


def test_plain_settings_are_plain_and_come_back() -> None:
    settings = config(kernel_sharing={"u": "shared", "l": "per_layer"}, topk=[5, 10])
    plain = settings.plain()

    def is_plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(is_plain, value.values()))
        if isinstance(value, list):
            return all(map(is_plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert is_plain(plain)
    restored = Config.from_plain(plain)
    assert restored.final_config_dict == settings.final_config_dict
    assert restored.model_class is settings.model_class


def test_keys_of_our_models_that_another_model_does_not_have_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    given = {"score": "cosine", "kernel_structure": "full-full", "hidden_size": 16, "train_objective": "sequence"}
    Config("SASRec", "ml-100k", config_dict=given, command_line=[])
    (message,) = caplog.messages
    assert message == "settings without effect on SASRec, which does not have them: kernel_structure, score"


@pytest.mark.parametrize(
    ("model", "given", "reported"),
    [
        (
            "PosKernelSASRec",
            {"embedding_size": 128, "num_layers": 3, "lr": 0.1, "dropout": 0.1, "my_own": 1},
            "dropout (did you mean hidden_dropout_prob?), embedding_size (did you mean hidden_size?), "
            "lr (did you mean learning_rate?), my_own, num_layers (did you mean n_layers?)",
        ),
        (
            "SASRec",
            {"patience": 64, "LR": 0.1},
            "LR (did you mean learning_rate?), patience (did you mean stopping_step?)",
        ),
        ("GRU4Rec", {"n_layers": 1}, "n_layers (did you mean num_layers?)"),
        ("BPR", {"hidden_size": 8, "mixup": True}, "hidden_size (did you mean embedding_size?), mixup"),
        ("Pop", {"train_objective": "sequence", "window_stride": 3}, "train_objective, window_stride"),
    ],
)
def test_keys_that_the_run_does_not_read_are_reported_in_one_line(
    model: str, given: dict[str, object], reported: str, caplog: pytest.LogCaptureFixture
) -> None:
    Config(model, "ml-100k", config_dict=given, command_line=[])
    (message,) = caplog.messages
    assert message.startswith(f"settings without effect on {model}, which does not have them: {reported}")


def test_keys_of_parts_whose_times_are_not_read_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    given = {"position_encoding": ["time_rope"], "time_rope_base": 5.0, "read_times": False}
    Config("PosKernelSASRec", "ml-100k", config_dict=given, command_line=[])
    assert caplog.messages == [
        "time_rope_base has no effect: it is for position_encoding time_rope; got position_encoding ['time_rope'], and "
        "no times are read."
    ]


def test_the_activation_is_not_for_ligrs_blocks(caplog: pytest.LogCaptureFixture) -> None:
    Config("PosKernelSASRec", "ml-100k", config_dict={"backbone": "ligr", "hidden_act": "tanh"}, command_line=[])
    assert caplog.messages == ["hidden_act has no effect: it is for backbone sasrec or recbole; got backbone 'ligr'."]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window_stride": 5}, "window_stride has no effect: it is for train_objective sequence, which is not set."),
        (
            {"valid_metric_bigger": False},
            "valid_metric_bigger False has no effect: it is True for valid_metric MRR@10.",
        ),
        ({"valid_metric_bigger": True, "window_stride": None}, None),
    ],
    ids=str,
)
def test_keys_that_other_keys_decide_are_reported(
    given: dict[str, object], message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    Config("SASRec", "ml-100k", config_dict={"train_neg_sample_args": None, **given}, command_line=[])
    assert caplog.messages == ([] if message is None else [message])


@pytest.mark.parametrize(("weight_decay", "messages"), [(0.0, 1), (0.1, 0)])
def test_weights_to_decay_without_decay_are_reported(
    weight_decay: float, messages: int, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"weight_decay_on": "matrices", "weight_decay": weight_decay, "learner": "adamw"}
    Config("PosKernelSASRec", "ml-100k", config_dict=given, command_line=[])
    assert caplog.messages == ["weight_decay_on has no effect: weight_decay is 0."] * messages


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("GRU4Rec", {"num_layers": 1, "embedding_size": 8, "dropout_prob": 0.1}),
        ("AutoInt", {"has_residual": True}),  # in no property file, but in the source
        ("HRM", {"reg_weight": 0.1}),
        ("Pop", {"tail_ratio": 0.2, "epochs": 1, "neg_sampling": None}),
        ("PosKernelSASRec", {"LABEL_FIELD": "label", "threshold": None, "unused_col": None}),
    ],
)
def test_keys_that_the_run_reads_are_not_reported(
    model: str, given: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    Config(model, "ml-100k", config_dict=given, command_line=[])
    assert not caplog.messages


def test_unknown_keys_of_a_model_of_the_user_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Reader(SASRec):
        pass

    Config(Reader, "ml-100k", config_dict={"my_own": 1, "lr": 2}, command_line=[])
    assert not caplog.messages
