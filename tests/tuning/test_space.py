"""Search spaces: what is drawn, what depends on what, grids, RecBole's files, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from recbole.trainer import HyperTuning

from recbole_posattn import Config, PosKernelSASRec, register
from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.tuning.space import Dimension, Space
from recbole_posattn.experiments.tuning.space_files import read_hyper, read_space, space_of_model
from recbole_posattn.experiments.tuning.spec import Search, check_search
from recbole_posattn.models.filters import FILTER_MODELS
from recbole_posattn.models.rivals import RIVALS
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.properties import PROPERTIES
from recbole_posattn.settings.yaml import read_yaml

optuna.logging.set_verbosity(optuna.logging.ERROR)

OWN_MODELS = [file.stem for file in (PROPERTIES / "model").glob("*.yaml")]
SPACES = sorted((PROPERTIES / "tuning").glob("*.yaml"))

TEXT = """
learning_rate: {loguniform: [1e-4, 1e-2]}
hidden_dropout_prob: {quniform: [0.1, 0.5, 0.1]}
attn_dropout_prob: {like: hidden_dropout_prob}
weight_decay: {uniform: [0.0, 0.5]}
n_layers: {quniform: [1, 5, 2]}
kernel_structure: {choice: [toeplitz-full, banded-full, toeplitz-banded_toeplitz]}
kernel_bandwidth: {choice: [2, 4], if: {kernel_structure: "*banded*"}}
kernel_sharing: {choice: [shared, {u: per_layer, l: shared}], if: {n_layers: [3, 5], backbone: sasrec}}
"""


def written(tmp_path: Path, text: str, name: str = "space.yaml") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def draws(space: Space, n_draws: int = 200, **fixed: Any) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask(), fixed) for _ in range(n_draws)]


def test_each_kind_draws_what_it_says(tmp_path: Path) -> None:
    drawn = draws(read_space(written(tmp_path, TEXT)), backbone="sasrec")
    assert {settings["hidden_dropout_prob"] for settings in drawn} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {settings["n_layers"] for settings in drawn} == {1, 3, 5}
    assert all(isinstance(settings["n_layers"], int) for settings in drawn)
    assert all(settings["attn_dropout_prob"] == settings["hidden_dropout_prob"] for settings in drawn)
    rates = [math.log10(settings["learning_rate"]) for settings in drawn]
    assert -4 <= min(rates) < -3.8 and -2.2 < max(rates) <= -2
    assert abs(sum(rates) / len(rates) + 3) < 0.15  # even in the logarithm
    decays = [settings["weight_decay"] for settings in drawn]
    assert 0 <= min(decays) < 0.05 and 0.45 < max(decays) <= 0.5


def test_a_key_is_drawn_only_where_its_condition_holds(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, TEXT))
    for settings in draws(space, backbone="sasrec"):
        assert ("kernel_bandwidth" in settings) == ("banded" in settings["kernel_structure"])
        assert ("kernel_sharing" in settings) == (settings["n_layers"] >= 3)
    assert not any("kernel_sharing" in settings for settings in draws(space, backbone="recbole"))


def test_what_is_drawn_is_told_to_optuna_again(tmp_path: Path) -> None:
    """As a search that is taken up does with the trials of before."""
    space = read_space(written(tmp_path, TEXT))
    study = optuna.create_study()
    for settings in draws(space, 40, backbone="sasrec"):
        study.enqueue_trial(space.parameters(settings))
        assert space.suggest(study.ask(), {"backbone": "sasrec"}) == settings
        assert space.drawn({"backbone": "sasrec", "other": 1, **settings}) == settings


def test_defaults_are_told_if_the_space_has_them(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, TEXT))
    fixed = {
        **{"learning_rate": 1e-3, "hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.3, "weight_decay": 0.0},
        **{"n_layers": 1, "kernel_structure": "toeplitz-full", "kernel_bandwidth": None, "kernel_sharing": "per_layer"},
        "backbone": "sasrec",
    }
    drawn = space.defaults(fixed)
    assert set(drawn) == {*space.keys} - {"kernel_bandwidth", "kernel_sharing"}
    assert all(drawn[key] == fixed[key] for key in drawn)
    study = optuna.create_study()
    study.enqueue_trial(space.parameters(drawn))
    assert space.suggest(study.ask(), fixed) == drawn
    for outside in (
        {"learning_rate": 1e-5},
        {"hidden_dropout_prob": 0.25, "attn_dropout_prob": 0.25},
        {"attn_dropout_prob": 0.1},
        {"n_layers": 2},
        {"n_layers": 3},  # where per_layer is none of the choices
        {"kernel_structure": "identity-full"},
        {"weight_decay": None},
    ):
        assert space.defaults({**fixed, **outside}) is None


def test_a_grid_has_each_combination_once(tmp_path: Path) -> None:
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(("learning", "weight")))
    space = read_space(written(tmp_path, text))
    grid = space.grid({"backbone": "sasrec"})
    # 5 dropouts × (1 + 2 · 2) structures with bandwidths × (1 + 2 · 2) layers with sharings
    assert len(grid) == 5 * 5 * 5
    assert all(grid.count(settings) == 1 for settings in grid)
    assert {settings["hidden_dropout_prob"] for settings in grid} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert all(settings in grid for settings in draws(space, 50, backbone="sasrec"))
    with pytest.raises(SettingError, match="learning_rate is loguniform, which has no grid"):
        read_space(written(tmp_path, TEXT)).grid({})
    assert Space([]).grid({}) == [{}]


def test_choices_are_as_in_the_records_of_trials(tmp_path: Path) -> None:
    """A resumed search finds them there, as JSON gives them back."""
    space = read_hyper(written(tmp_path, "a choice [(1,2),'(1,2)',[3]]\nloss_type choice ['CE']\n", "m.hyper"))
    assert space.grid({}) == [{"a": [1, 2], "loss_type": "CE"}, {"a": [3], "loss_type": "CE"}]
    recorded = json.loads(json.dumps(space.grid({})))
    assert [space.parameters(settings) for settings in recorded] == [
        {"a": 0, "loss_type": 0},
        {"a": 2, "loss_type": 0},
    ]


def test_a_repeated_choice_is_once_in_a_grid(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, "hidden_size: {choice: [64, 64, 128]}\nx: {choice: [1, true, [1], [1]]}"))
    sizes, others = [64, 128], [1, True, [1]]
    assert str(space.grid({})) == str([{"hidden_size": size, "x": x} for size in sizes for x in others])


def test_fixed_keys_leave_the_space(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, TEXT)).without({"hidden_dropout_prob": 0.25, "kernel_structure": "full-full"})
    for settings in draws(space, 20, hidden_dropout_prob=0.25, kernel_structure="full-full", backbone="sasrec"):
        assert settings["attn_dropout_prob"] == 0.25
        assert not {"hidden_dropout_prob", "kernel_structure", "kernel_bandwidth"} & set(settings)


def test_recboles_files_mean_what_they_mean_in_recbole(tmp_path: Path) -> None:
    text = (
        "learning_rate loguniform -8,0\nhidden_size choice [64, 128]\n\n#comment\nweight_decay uniform 0.0,0.5\n"
        "dropout_prob quniform 0.1,0.5,0.1\nloss_type choice ['CE','BPR']\ndropout_probs choice [[0.1,0.2],[0.3,0.4]]\n"
        "mlp_hidden_size choice ['[64,64]','[128]',(32,16)]\n"
    )
    file = written(tmp_path, text, "model.hyper")
    space = read_hyper(file)
    assert space.dimensions == [
        Dimension("learning_rate", "loguniform", (math.exp(-8), 1.0), {}),
        Dimension("hidden_size", "choice", (64, 128), {}),
        Dimension("weight_decay", "uniform", (0.0, 0.5), {}),
        Dimension("dropout_prob", "quniform", (0.1, 0.5, 0.1), {}),
        Dimension("loss_type", "choice", ("CE", "BPR"), {}),
        Dimension("dropout_probs", "choice", ([0.1, 0.2], [0.3, 0.4]), {}),
        Dimension("mlp_hidden_size", "choice", ([64, 64], [128], [32, 16]), {}),
    ]
    assert list(HyperTuning._build_space_from_file(file)) == space.keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate loguniform", "line 1 must be a key, one of choice, uniform, quniform, loguniform, and values"),
        ("a choice [1]\nb normal 0,1", "line 2 must be a key, .*; got 'b normal 0,1'"),
        ("a choice __import__('os')", "line 1: choice must be a list of values"),
        ("a uniform 1", "line 1: uniform must be a lower and an upper bound; got"),
        ("a uniform 2,1", "line 1: uniform must rise from the lower to the upper bound"),
        ("a choice [1]\na choice [2]", "line 2: a occurs more than once"),
        ("a loguniform 1,1000", r"loguniform must have the natural logarithms of two numbers, .*; got \(1, 1000\)"),
        ("a loguniform -800,0", "loguniform must have the natural logarithms of two numbers"),
    ],
)
def test_what_a_recbole_file_cannot_mean_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        read_hyper(written(tmp_path, text, "bad.hyper"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden_size: 64", "hidden_size must be a mapping of one of choice, uniform, .*; got 64"),
        ("hidden_size: {choice: [1], uniform: [0, 1]}", "must be a mapping of one of"),
        ("hidden_size: {choices: [1]}", "must be a mapping of one of"),
        ("hidden_size: {choice: []}", r"choice must be a list of values; got \[\]"),
        ("hidden_size: {choice: 64}", "choice must be a list of values; got 64"),
        ("learning_rate: {loguniform: [0, 1]}", "loguniform must have bounds above 0"),
        ("learning_rate: {uniform: [0, high]}", "uniform must be a lower and an upper bound; got"),
        ("learning_rate: {uniform: [0, .inf]}", "uniform must rise from the lower to the upper bound"),
        ("n_layers: {quniform: [1, 3, 0]}", "quniform must rise"),
        (f"n_layers: {{quniform: [1, 1{'0' * 400}, 1]}}", "quniform must rise"),
        ("n_layers: {quniform: [1, 3]}", "quniform must be a lower bound, an upper bound and a step; got"),
        ("n_layers: {choice: [1], if: 3}", "if must be a mapping of keys to values; got 3"),
        ("a: {like: b}\nb: {choice: [1]}", "a depends on b, which must come before it"),
        ("a: {choice: [1], if: {a: 1}}", "a depends on a, which must come before it"),
        ("a: {like: [b]}", "like must name another key"),
        ("- a", "must hold lines of 'key: value'"),
    ],
)
def test_what_a_space_cannot_mean_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        read_space(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_keys_of_no_model_are_refused(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, "hiden_size: {choice: [8]}"))
    with pytest.raises(SettingError, match=r"NoPESASRec has no key 'hiden_size'\. Did you mean 'hidden_size'"):
        check_search(Search({"model": "NoPESASRec", "dataset": "ml-100k"}, space, 1))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("valid_metric", "determines the interactions that there are, and how they are held out, ranked and measured"),
        ("eval_args", "must be the same in all trials; set it with --eval_args=VALUE"),
        ("seed", "determines which run it is"),
        ("checkpoint_dir", "determines how and where a run is executed"),
        ("gpu_id", "determines how and where a run is executed"),
        ("user_inter_num_interval", "cannot be searched"),
        ("plugins", "cannot be searched"),
    ],
)
def test_keys_that_make_trials_incomparable_are_refused(tmp_path: Path, key: str, message: str) -> None:
    space = read_space(written(tmp_path, f"{key}: {{choice: [1]}}"))
    with pytest.raises(SettingError, match=message) as error:
        check_search(Search({"model": "NoPESASRec", "dataset": "ml-100k"}, space, 1))
    assert "\n" not in str(error.value)


def test_a_preset_that_changes_the_evaluation_cannot_be_searched(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("valid_metric: Hit@10\n")
    (tmp_path / "deep.yaml").write_text("n_layers: 3\n")
    settings = {"model": "NoPESASRec", "dataset": "ml-100k"}
    other, deep = (
        Space([Dimension("preset", "choice", (str(tmp_path / name), None), {})]) for name in ("other.yaml", "deep.yaml")
    )
    with pytest.raises(
        SettingError, match=r"preset .*other\.yaml changes valid_metric to Hit@10, which must be the same"
    ):
        check_search(Search(settings, other, 1))
    check_search(Search({**settings, "valid_metric": "MRR@10"}, other, 1))  # overrides the preset
    check_search(Search(settings, deep, 1))


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match="nothing to search for Pop: its search space has no key"):
        check_search(Search({"model": "Pop", "dataset": "ml-100k"}, Space([]), 3))


def test_a_condition_may_name_any_key_and_a_models_own_key_can_be_searched(tmp_path: Path) -> None:
    text = "dropout_prob: {choice: [0.1, 0.3], if: {seed: 2020}}\nnormalize_all: {choice: [True, False]}"
    check_search(Search({"model": "GRU4Rec", "dataset": "ml-100k"}, read_space(written(tmp_path, text)), 1))


def test_every_model_that_comes_along_has_a_space() -> None:
    assert len(OWN_MODELS) == 15 and set(OWN_MODELS) <= {file.stem for file in SPACES}


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_spaces_that_come_along_hold_settings_that_their_model_takes(file: Path) -> None:
    model = file.stem.partition("_")[0]
    space = read_space(file)
    if not space.keys:
        return  # nothing to search
    config = check_search(Search({"model": model, "dataset": "ml-100k"}, space, 1))
    for settings in draws(space, 5, **config.plain()):
        Config(model, "ml-100k", config_dict=settings, command_line=[])


@pytest.mark.parametrize(("algorithm", "n_tried"), [("grid", 2), ("tpe", 20)])
def test_a_space_that_conflicts_with_the_settings_is_refused_at_once(algorithm: str, n_tried: int) -> None:
    heads = Dimension("n_heads", "choice", (3, 5), {})
    search = Search({"model": "NoPESASRec", "dataset": "ml-100k"}, Space([heads]), 9, algorithm)
    message = rf"no trial can run .*; {n_tried} were tried, the first one with n_heads [35]: hidden_size must be"
    with pytest.raises(SettingError, match=message):
        check_search(search)
    check_search(search._replace(space=Space([heads._replace(values=(3, 4))])))  # whose trials do not all fail


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_step": 0},
        {"epochs": 0},
        {"eval_args": {"order": "TO", "split": {"LS": "test_only"}}},
        {"eval_args": {"order": "TO", "split": {"RS": [0.8, 0.0, 0.2]}}},
        {"eval_args": {"order": "TO", "split": {"TS": [0.8, 0, 0.2]}}},
    ],
    ids=str,
)
def test_a_search_without_validation_is_refused(changes: dict[str, Any]) -> None:
    rates = Dimension("learning_rate", "choice", (0.001,), {})
    search = Search({"model": "NoPESASRec", "dataset": "ml-100k", **changes}, Space([rates]), 1)
    with pytest.raises(SettingError, match="a search compares validation scores: eval_step and epochs must be at"):
        check_search(search)


def test_a_search_of_a_pretraining_stage_is_refused(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, "learning_rate: {choice: [0.01, 0.001]}"))
    search = Search({"model": "RaCT", "dataset": "ml-100k", "train_stage": "actor_pretrain"}, space, 1)
    with pytest.raises(SettingError, match="validation scores, which train_stage actor_pretrain does not have"):
        check_search(search)


def test_our_models_are_searched_alike() -> None:
    """The same values of the same keys but for what a model has of its own: the same chance for all.

    The models of others have all of these values, and more where a published recipe needs it.
    """
    common = read_space(PROPERTIES / "tuning" / "NoPESASRec.yaml").dimensions
    of_others = {model.__name__ for model in (*FILTER_MODELS, *RIVALS)}
    for model in set(OWN_MODELS) - of_others:
        assert read_space(PROPERTIES / "tuning" / f"{model}.yaml").dimensions[: len(common)] == common
    for model in of_others:
        without = MODEL_RULES.keys() - read_yaml(PROPERTIES / "model" / f"{model}.yaml").keys()
        space = {
            dimension.key: dimension for dimension in read_space(PROPERTIES / "tuning" / f"{model}.yaml").dimensions
        }
        for dimension in common:
            if dimension.key == "learning_rate":
                low, high = space["learning_rate"].values
                assert low <= dimension.values[0] and high >= dimension.values[1]
            elif dimension.key == "weight_decay":  # also that of Adam, which is no decay but a penalty
                assert set(dimension.values) <= set(space["weight_decay"].values)
            elif dimension.key in without | {"backbone"}:  # not all have attention, say; their block is fixed
                assert dimension.key not in space
            elif dimension.key == "train_mask_history":  # theirs is off by default
                assert set(space[dimension.key].values) == {False, True}
            else:
                assert space[dimension.key] == dimension


def test_the_papers_grid_is_the_papers() -> None:
    grid = read_space(PROPERTIES / "tuning" / "PosKernelSASRec_paper.yaml").grid({})
    assert len(grid) == 2 * 3 * 3 * 2 * 2
    best = {"train_batch_size": 128, "n_layers": 2, "hidden_size": 128, "n_heads": 1, "learning_rate": 3e-4}
    best |= {"hidden_dropout_prob": 0.3, "attn_dropout_prob": 0.3}
    assert best in grid
    preset = Config("PosKernelSASRec", "ml-100k", config_dict={"preset": "paper"}, command_line=[])
    assert read_space(PROPERTIES / "tuning" / "PosKernelSASRec_paper.yaml").defaults(preset.plain()) == best


def test_a_preset_is_searched_in_its_sizes_only() -> None:
    """Otherwise the tuned row of the paper's model would be another model."""
    keys = space_of_model("PosKernelSASRec", "paper").keys
    sizes = {"learning_rate", "train_batch_size", "hidden_size", "n_layers", "hidden_dropout_prob", "attn_dropout_prob"}
    assert sizes <= set(keys) <= set(space_of_model("PosKernelSASRec").keys)
    assert set(keys).isdisjoint(read_yaml(PROPERTIES / "preset" / "paper.yaml").keys() - sizes)


@pytest.mark.parametrize("model", ["PosKernelSASRec", "RoPESASRec", "BSARec"])
@pytest.mark.parametrize("protocol", [None, "leave_one_out", "leave_one_out_masked"])
def test_the_defaults_are_in_the_space(model: str, protocol: str | None) -> None:
    """They are the first trial, so that no search ends with less."""
    search = Search({"model": model, "dataset": "ml-100k", "protocol": protocol}, space_of_model(model), 8)
    fixed = search.fixed(check_search(search))
    defaults = search.space.defaults(fixed)
    assert defaults is not None
    if model == "PosKernelSASRec":
        assert fixed["position_encoding"] == "auto"  # its trials draw what decides it
    if model != "BSARec":
        key = "train_mask_history" if protocol == "leave_one_out_masked" else "history_partition"
        assert defaults[key] == (True if key == "history_partition" else "auto")


@pytest.mark.parametrize(
    ("protocol", "key", "other"),
    [
        (None, "position_encoding", ["absolute"]),
        ("leave_one_out_masked", "history_partition", True),
        ("leave_one_out", "train_mask_history", True),
    ],
)
def test_a_default_of_auto_is_in_a_space_that_has_it(protocol: str | None, key: str, other: Any) -> None:
    space = Space([Dimension(key, "choice", ("auto", other), {})])
    search = Search({"model": "PosKernelSASRec", "dataset": "ml-100k", "protocol": protocol}, space, 8)
    fixed = search.fixed(check_search(search))
    assert space.defaults(fixed) == {key: "auto"}
    assert {key: "auto"} in space.grid(fixed) and len(space.grid(fixed)) == 2


def test_conditions_on_encodings_follow_what_is_drawn() -> None:
    structure = Dimension("kernel_structure", "choice", ("identity-identity", "toeplitz-full"), {})
    base = Dimension("rope_base", "choice", (10.0, 100.0), {"position_encoding": [["rope"]]})
    search = Search({"model": "PosKernelSASRec", "dataset": "ml-100k"}, Space([structure, base]), 8)
    drawn = search.space.grid(search.fixed(check_search(search)))
    assert [len(settings) for settings in drawn] == [2, 2, 1]  # two bases with RoPE, none with kernels


@pytest.mark.usefixtures("registrations")
def test_a_model_of_ones_own_is_searched_as_the_one_it_derives_from() -> None:
    register(type("DerivedSASRec", (PosKernelSASRec,), {}))
    assert space_of_model("DerivedSASRec").plain() == read_space(PROPERTIES / "tuning" / "PosKernelSASRec.yaml").plain()
    assert space_of_model("GRU4Rec").plain() == read_space(PROPERTIES / "tuning" / "GRU4Rec.yaml").plain()
    with pytest.raises(SettingError, match="model 'NARM2' is unknown"):
        space_of_model("NARM2")
    with pytest.raises(SettingError, match=r"tuning must be one of .*, or a YAML file; got 'DMF'"):
        space_of_model("DMF")
