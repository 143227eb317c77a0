"""What the settings may be: a rule for each key, and the combinations that make no sense."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.before_recbole  # noqa: F401

from recbole.utils import EvaluatorType, ModelType

from recbole_posattn.data.splits import time_quantiles
from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.nn.backbone import ACTIVATIONS, BACKBONES
from recbole_posattn.nn.encodings import ENCODINGS, check_encodings
from recbole_posattn.nn.kernels.base import (
    ALIGNMENTS,
    BANDED_STRUCTURES,
    NORMALIZATIONS,
    STRUCTURES,
    parse_kernel_structure,
)
from recbole_posattn.nn.losses.sampled import DISTRIBUTIONS, LOSSES, SAMPLED_LOSSES

# The largest integer that a setting may be: beyond, torch's loaders and loops give up.
_LARGEST = 2**31 - 1
_LARGEST_FLOAT = 3.4e38


class Rule(NamedTuple):
    """What a key may be.

    Attributes:
        holds: Tests a value.
        allowed: The words for it.
        maximum: What an integer may be at most.
    """

    holds: Callable[[Any], bool]
    allowed: str
    maximum: int | None = None


def _integer(minimum: int, maximum: int = _LARGEST) -> Rule:
    words = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    return Rule(lambda value: _is_int(value) and value >= minimum, words, maximum)


def _one_of(*choices: Any) -> Rule:
    def holds(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)  # True is not 1

    return Rule(holds, "one of " + ", ".join(map(str, choices)))


def _or_none(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.allowed}, or ~", rule.maximum)


def _either(*rules: Rule) -> Rule:
    return Rule(lambda value: any(rule.holds(value) for rule in rules), " or ".join(rule.allowed for rule in rules))


def _list_of(rule: Rule, words: str, minimum: int = 0) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) >= minimum and all(map(rule.holds, value))

    return Rule(holds, words)


def _mapping_of(rule: Rule, words: str) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(map(_is_text, value)) and all(map(rule.holds, value.values()))

    return Rule(holds, words)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether it is a number that torch can compute with: finite in 32 bits, and an integer in 64."""
    return abs(value) <= _LARGEST_FLOAT if isinstance(value, float) else _is_int(value) and abs(value) < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and value != "" and "\0" not in value)


def _is_name(value: Any) -> bool:
    """Whether it can be the name of a folder and of the files in it."""
    return _is_text(value) and value not in (".", "..") and not set(value) & set("/\\") and len(value.encode()) <= 200


def _is_intervals(value: Any) -> bool:
    return isinstance(value, str) and all(map(_is_interval, value.split(";")))


def _is_interval(text: str) -> bool:
    """Whether it is one that RecBole reads, and that holds any number."""
    match = _INTERVAL.fullmatch(text)
    try:
        lower, upper = map(float, match.groups()) if match else (1, 0)
    except ValueError:
        return False
    return lower <= upper


def _is_separator(value: Any) -> bool:
    """Whether fields can be told apart by it; pandas takes several characters for a regular expression."""
    if not isinstance(value, str) or not value or set(value) & set('"\n\r\0'):
        return False
    return len(value) == 1 or re.escape(value) == value


def _is_encoding(value: Any) -> bool:
    try:
        return "a:\n".encode(value).decode(value) == "a:\n"
    except (LookupError, TypeError, ValueError):  # ValueError: UnicodeError, and a NUL in the name
        return False


def _is_structure(value: Any) -> bool:
    try:
        parse_kernel_structure(value)
    except (TypeError, ValueError, AttributeError):
        return False
    return True


def _is_negatives(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= NEGATIVES_OF_RECBOLE.keys():
        return False
    given = {**NEGATIVES_OF_RECBOLE, **value}
    return (
        isinstance(given["distribution"], str)
        and given["distribution"] in DISTRIBUTIONS
        and _is_int(given["sample_num"])
        and 1 <= given["sample_num"] <= _LARGEST
        and _is_number(given["alpha"])
        and given["alpha"] >= 0
        and not given["dynamic"]
    )


def _is_negatives_of_recbole(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= NEGATIVES_OF_RECBOLE.keys():
        return False
    given = {**NEGATIVES_OF_RECBOLE, **value}
    if given["distribution"] in (None, "None", "none"):
        return True
    return (
        given["distribution"] in ("uniform", "popularity")
        and _is_int(given["sample_num"])
        and 1 <= given["sample_num"] <= _LARGEST
        and _is_number(given["alpha"])
        and given["alpha"] >= 0
        and isinstance(given["dynamic"], bool)
        and _is_int(given["candidate_num"])
        and 0 <= given["candidate_num"] <= _LARGEST
    )


# The keys of RecBole's train_neg_sample_args; no loss here chooses among candidates by the model, as the last two do.
NEGATIVES_OF_RECBOLE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
_NEGATIVES = (
    f"a dict of distribution ({' or '.join(DISTRIBUTIONS)}), sample_num (a positive integer) and alpha (a number of at "
    "least 0)"
)
_RECBOLES_NEGATIVES = Rule(
    lambda value: value in (None, "None") or _is_negatives_of_recbole(value),
    "a dict of distribution (uniform, popularity or none), sample_num (a positive integer), alpha (a number of at "
    "least 0), dynamic (True or False) and candidate_num (an integer of at least 0), or ~",
)
_SHARINGS = ("per_layer", "shared")
_BOOL = _one_of(True, False)
_PROBABILITY = Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number in [0, 1)")
_POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "a number of at least 0")

_TEXT = Rule(_is_text, "a text")
_PATH = Rule(_is_path, "a path")
_FINITE = Rule(_is_number, "a number")
_TEXTS = _list_of(_TEXT, "a list of texts")
_COLUMNS = _mapping_of(_TEXTS, "a mapping of file suffixes such as inter to lists of columns")
_INTERVAL = re.compile(r"\s*[\[(]([^,]*),([^,]*)[\])]\s*")
_INTERVALS = Rule(_is_intervals, 'intervals such as "[5,inf)" or "[1,2];[4,9)"')
_PLACES = _integer(0, 20)
_CUT_OFF = Rule(lambda value: _is_int(value) and 1 <= value <= _LARGEST, "a positive integer")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")
_SHARES_OF_TRANSFORMS = {"mask_itemseq": "mask_ratio", "crop_itemseq": "eta", "reorder_itemseq": "beta"}
_GROUPS = (None, "none", "None", "user")

_MODE = re.compile(r"full|labeled|(?:uni|pop)[1-9][0-9]{0,8}")


def _lower_one_of(*choices: str) -> Rule:
    return Rule(lambda value: isinstance(value, str) and value.lower() in choices, "one of " + ", ".join(choices))


def _is_mode(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and set(value) <= {"valid", "test"} and all(map(_is_mode, value.values()))
    return isinstance(value, str) and _MODE.fullmatch(value) is not None


def _is_split(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((kind, given),) = value.items()
    if kind == "LS":
        return given in ("valid_and_test", "valid_only", "test_only")
    if kind in ("RS", "TS"):
        numbers = isinstance(given, (list, tuple)) and len(given) == 3 and all(map(_is_number, given))
        return numbers and min(given) >= 0 and sum(given) > 0
    return kind == "TQ"  # see check_evaluation


_EVAL_ARGS = {
    "split": Rule(
        _is_split,
        "one of {LS: valid_and_test, valid_only or test_only}, {RS: [0.8, 0.1, 0.1]}, {TS: [0.8, 0.1, 0.1]} and "
        "{TQ: [0.95, 0.97]}",
    ),
    "group_by": Rule(lambda value: value in _GROUPS, "user or none"),
    "order": _one_of("RO", "TO"),
    "mode": Rule(_is_mode, "full, labeled, uni100 or pop100, with any number, or a mapping of valid and test to these"),
}

# Settings that are intervals; val_interval is a mapping of columns to such.
_INTERVAL_KEYS = tuple(
    f"{counted}_num_interval" for counted in ("user_inter", "item_inter", "entity_kg", "relation_kg")
)

# What names files and folders.
NAME_RULES = {"dataset": Rule(_is_name, "a name of at most 200 bytes without / and \\")}

# Settings of every run, whatever the model; those that RecBole reads are checked as they stand in its files.
RUN_RULES = {
    "epochs": _integer(0),
    "eval_step": _integer(0),
    "stopping_step": _integer(0),
    "seed": _integer(0, 2**32 - 1),
    "train_batch_size": _integer(1),
    "eval_batch_size": _integer(1),
    "MAX_ITEM_LIST_LENGTH": _integer(1, 2**20),
    "learning_rate": _POSITIVE,
    "lazy_prefixes": _BOOL,
    "enable_amp": _BOOL,
    "torch_compile": _BOOL,
    "mask_history": _or_none(_one_of("none", "all", "except_target")),
    "drop_unseen_targets": _BOOL,
    "save_last_every": _or_none(_integer(1)),
    "process_timeout": Rule(
        lambda value: _is_number(value) and 1 <= value <= 10**6, "a number of seconds from 1 to 1e6"
    ),
    # the machine
    "gpu_id": _either(
        Rule(_is_int, "a number"),
        Rule(lambda value: isinstance(value, str) and value.isprintable(), "a text such as '0,1'"),
        Rule(lambda value: isinstance(value, tuple) and all(map(_is_int, value)), "several numbers"),
    ),
    "worker": _integer(0, 1024),
    **dict.fromkeys(("use_gpu", "reproducibility", "show_progress", "save_dataset", "save_dataloaders"), _BOOL),
    **dict.fromkeys(("shuffle", "enable_scaler", "require_pow", "repeatable"), _BOOL),
    "log_wandb": Rule(
        lambda value: value is False or (value is True and find_spec("wandb") is not None),
        "False, or True where the package wandb is installed",
    ),
    "state": _or_none(_lower_one_of(*_LEVELS)),
    **dict.fromkeys(("data_path", "checkpoint_dir"), _PATH),
    **dict.fromkeys(("dataset_save_path", "dataloaders_save_path"), _or_none(_PATH)),
    "wandb_project": _or_none(_TEXT),
    # training
    "learner": _lower_one_of(*_LEARNERS),
    "weight_decay": _NOT_NEGATIVE,
    "clip_grad_norm": _or_none(
        Rule(
            lambda value: (
                isinstance(value, dict)
                and set(value) <= {"max_norm", "norm_type", "error_if_nonfinite", "foreach"}
                and _is_number(value.get("max_norm"))
                and value["max_norm"] > 0
                and _is_number(value.get("norm_type", 2))
                and all(value.get(key) in (None, True, False) for key in ("error_if_nonfinite", "foreach"))
            ),
            "a mapping with max_norm, a number above 0, and perhaps norm_type",
        )
    ),
    **dict.fromkeys(("loss_decimal_place", "metric_decimal_place"), _PLACES),
    "transform": _or_none(_one_of(*_TRANSFORMS)),
    # evaluation
    "eval_args": Rule(lambda value: isinstance(value, dict), "a mapping of split, group_by, order and mode"),
    "metrics": _either(_TEXT, _list_of(_TEXT, "a list of names of metrics", 1)),
    "topk": _either(_CUT_OFF, _list_of(_CUT_OFF, "a list of them", 1)),
    "valid_metric": _TEXT,
    # the data
    "field_separator": Rule(_is_separator, "a character other than a quote or a line's end, or several plain ones"),
    "seq_separator": Rule(lambda value: isinstance(value, str) and value != "", "a text"),
    "encoding": _or_none(Rule(_is_encoding, "an encoding such as utf-8, latin-1 or utf-16")),
    **dict.fromkeys(("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "LABEL_FIELD"), _TEXT),
    "RATING_FIELD": _or_none(_TEXT),
    **dict.fromkeys(("NEG_PREFIX", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD"), _TEXT),
    **dict.fromkeys(("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD"), _TEXT),
    "kg_reverse_r": _BOOL,
    "seq_len": _or_none(_mapping_of(_integer(1), "a mapping of columns to positive integers")),
    "threshold": _or_none(_mapping_of(_FINITE, "a mapping of a column to a number")),
    "numerical_features": _TEXTS,
    "load_col": _or_none(_mapping_of(_either(_one_of("*"), _TEXTS), f"{_COLUMNS.allowed} or '*'")),
    **dict.fromkeys(("unload_col", "unused_col"), _or_none(_COLUMNS)),
    "additional_feat_suffix": _or_none(_either(_TEXT, _TEXTS)),
    "rm_dup_inter": _or_none(_one_of("first", "last")),
    "val_interval": _or_none(
        _mapping_of(_either(_INTERVALS, _TEXTS), f"a mapping of columns to {_INTERVALS.allowed}, or to lists of tokens")
    ),
    "filter_inter_by_user_or_item": _BOOL,
    **dict.fromkeys(_INTERVAL_KEYS, _or_none(_INTERVALS)),
    **dict.fromkeys((f"alias_of_{kind}_id" for kind in ("user", "item", "entity", "relation")), _or_none(_TEXTS)),
    "preload_weight": _or_none(_mapping_of(_TEXT, "a mapping of columns to columns")),
    "normalize_field": _or_none(_TEXTS),
    "normalize_all": _or_none(_BOOL),
    "discretization": _or_none(
        _mapping_of(
            Rule(
                lambda value: (
                    isinstance(value, dict)
                    and (
                        value.get("method") == "LD"
                        or (value.get("method") == "ED" and _integer(1).holds(value.get("bucket")))
                    )
                ),
                "",
            ),
            "a mapping of columns to {method: ED, bucket: 10} or {method: LD}",
        )
    ),
    "benchmark_filename": _or_none(
        Rule(
            lambda value: _TEXTS.holds(value) and len(value) == 3,
            "a list of three suffixes, of training, validation and test",
        )
    ),
}

# Settings that are text, also where it looks like something else, as the name 2024 of a data set.
TEXT_KEYS = {"dataset", "model", "encoding", "wandb_project"} | {
    key for key, rule in RUN_RULES.items() if rule is _TEXT or rule is _PATH
}

# Settings of the models registered here; each model has those that its property file names.
MODEL_RULES = {
    "n_layers": _integer(1, 2**10),
    "n_heads": _integer(1, 2**16),
    "hidden_size": _integer(1, 2**16),
    "inner_size": _or_none(_integer(1, 2**20)),
    "hidden_dropout_prob": _PROBABILITY,
    "attn_dropout_prob": _PROBABILITY,
    "hidden_act": _one_of(*ACTIVATIONS),
    "layer_norm_eps": _POSITIVE,
    "initializer_range": _POSITIVE,
    "backbone": _one_of(*BACKBONES),
    "kernel_structure": Rule(_is_structure, f"<U>-<L>, each one of {', '.join(STRUCTURES)}"),
    "kernel_bandwidth": _or_none(_integer(1)),
    "kernel_decays": _integer(1, 2**16),
    "kernel_rank": _integer(1),
    "kernel_width_penalty": _NOT_NEGATIVE,
    "kernel_sharing": Rule(
        lambda value: (
            value in _SHARINGS
            or (isinstance(value, dict) and set(value) == {"u", "l"} and all(v in _SHARINGS for v in value.values()))
        ),
        f"{' or '.join(_SHARINGS)}, or a mapping of both u and l to one of these",
    ),
    "kernel_groups": _one_of(1, "n_heads", "hidden_size"),
    "kernel_normalization": _one_of(*NORMALIZATIONS),
    "position_alignment": _one_of(*ALIGNMENTS),
    "position_encoding": Rule(
        lambda value: isinstance(value, list) and all(isinstance(name, str) and name in ENCODINGS for name in value),
        f"a list of any of {', '.join(ENCODINGS)}",
    ),
    "all_absolute_sharing": _one_of(*_SHARINGS),
    "rope_base": _POSITIVE,
    "cape_positions": _or_none(_integer(1, 2**20)),
    "alibi_slope_exponent": _POSITIVE,
    "t5_buckets": _integer(2, 2**20),
    "t5_max_distance": _integer(1),
    "train_objective": _one_of("sequence", "augmented"),
    "window_stride": _or_none(_integer(1)),
    "length_bucketing": _BOOL,
    "loss_type": _one_of(*LOSSES),
    "loss_chunk_size": _or_none(
        Rule(lambda value: value == "auto" or (_is_int(value) and value >= 1), "auto or a positive integer")
    ),
    "gbce_calibration": Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
    "train_neg_sample_args": _or_none(Rule(_is_negatives, _NEGATIVES)),
    "save_kernel_every": _or_none(_integer(1)),
}


def write_intervals(settings: dict[str, Any]) -> None:
    """Turn the intervals among the settings into text.

    YAML and Python read the closed interval ``[5,9]`` as a list and Python the open one ``(4,10)`` as a tuple. RecBole
    takes either at its word, but a tuple would come back from a checkpoint as a list.

    Args:
        settings: What was given; changed in place.
    """
    for key in _INTERVAL_KEYS:
        if key in settings:
            settings[key] = _interval_text(settings[key])
    if isinstance(settings.get("val_interval"), dict):
        settings["val_interval"] = {key: _interval_text(value) for key, value in settings["val_interval"].items()}


def _interval_text(value: Any) -> Any:
    """A list or tuple of two bounds as text; anything else, such as a list of tokens, as it is."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or all(isinstance(bound, str) for bound in value):
        return value
    left, right = "[]" if isinstance(value, list) else "()"
    text = f"{left}{value[0]},{value[1]}{right}"
    return text if _is_interval(text) else value


def check_rules(settings: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raise :class:`SettingError` for the first key whose value its rule does not allow."""
    for key, rule in rules.items():
        if key not in settings:
            continue
        value = settings[key]
        if not rule.holds(value):
            hint = ""
            if key == "kernel_structure":
                hint = did_you_mean(settings[key], map("-".join, itertools.product(STRUCTURES, repeat=2)))
            raise SettingError(f"{key} must be {rule.allowed}; got {shown(value)}.{hint}")
        if rule.maximum is not None and _is_int(value) and value > rule.maximum:
            raise SettingError(f"{key} must be at most {rule.maximum:,}; got {shown(value)}.")


def check_model_types(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a setting of a model of RecBole's that is of another kind than its default.

    Args:
        settings: What is to be used.
        defaults: The model's property file.

    Raises:
        SettingError: Naming the first one.
    """
    check_rules(settings, {"train_neg_sample_args": _RECBOLES_NEGATIVES})
    kinds = {bool: _BOOL, int: _FINITE, float: _FINITE, str: Rule(lambda value: isinstance(value, str), "a text")}
    kinds |= {list: Rule(lambda value: isinstance(value, (list, tuple)), "a list")}
    kinds |= {dict: Rule(lambda value: isinstance(value, dict), "a mapping")}
    for key, default in defaults.items():
        if type(default) in kinds and key not in RUN_RULES and key != "train_neg_sample_args":
            check_rules(settings, {key: kinds[type(default)]})


def check_eval_args(evaluation: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for the first part of ``eval_args`` that is not allowed."""
    for key in evaluation:
        if key not in _EVAL_ARGS:
            raise SettingError(f"eval_args: key {shown(key)} is unknown.{did_you_mean(key, _EVAL_ARGS)}")
    for key, rule in _EVAL_ARGS.items():
        if key in evaluation and not rule.holds(evaluation[key]):
            raise SettingError(f"eval_args: {key} must be {rule.allowed}; got {shown(evaluation[key])}.")


def check_resolved(settings: Mapping[str, Any]) -> None:
    """Refuse what RecBole would not have made of ``eval_args`` and ``train_neg_sample_args``, as checkpoints hold them.

    Raises:
        SettingError: Naming the first one.
    """
    evaluation, negatives = settings["eval_args"], settings["train_neg_sample_args"]
    if not isinstance(evaluation, Mapping) or not evaluation.keys() >= _EVAL_ARGS.keys():
        raise SettingError(f"eval_args must be a mapping of {', '.join(_EVAL_ARGS)}; got {shown(evaluation)}.")
    check_eval_args(evaluation)
    is_whole = isinstance(negatives, Mapping) and negatives.keys() >= NEGATIVES_OF_RECBOLE.keys()
    is_none = is_whole and negatives["distribution"] == "none" and negatives["dynamic"] is False
    if not is_none and not (is_whole and negatives["distribution"] != "none" and _is_negatives_of_recbole(negatives)):
        raise SettingError(f"train_neg_sample_args must be {_RECBOLES_NEGATIVES.allowed}; got {shown(negatives)}.")
    check_rules(settings, {"loss_negatives": _or_none(Rule(_is_negatives, _NEGATIVES))})


def check_caches(settings: Mapping[str, Any]) -> None:
    """Refuse RecBole's caches of prepared data, which are pickles: reading one runs whatever is in it.

    Raises:
        SettingError: Naming the key.
    """
    for key in ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"):
        if settings.get(key):
            raise SettingError(
                f"{key} must be left out; got {shown(settings[key])}. RecBole's caches are pickles, which run code "
                "when they are read; preparing the data anew is fast here."
            )


def _validates(settings: Mapping[str, Any]) -> bool:
    """Whether any epoch is followed by a validation."""
    split = settings["eval_args"]["split"]
    no_rows = isinstance(split, dict) and (
        split.get("LS") == "test_only" or (isinstance(split.get("RS"), (list, tuple)) and split["RS"][1] == 0)
    )
    return min(settings["eval_step"], settings["epochs"]) > 0 and not no_rows


def check_validation_metric(settings: Mapping[str, Any]) -> None:
    """Refuse a ``valid_metric`` that the validation will not compute; RecBole fails on it after the first epoch."""
    if not _validates(settings):
        return
    metrics, topk = settings["metrics"], settings["topk"]
    if settings["eval_type"] == EvaluatorType.VALUE:
        computed = metrics
    else:
        cut_off = [metric for metric in metrics if metric.lower() != "gauc"]  # which looks at the whole ranking
        computed = [f"{metric}@{k}" for metric in cut_off for k in topk]
        computed += [metric for metric in metrics if metric not in cut_off]
    if settings["valid_metric"].lower() not in map(str.lower, computed):
        raise SettingError(
            f"valid_metric must be one of {', '.join(computed)} (keys metrics and topk); "
            f"got {settings['valid_metric']!r}."
        )


def check_columns(settings: Mapping[str, Any]) -> None:
    """Refuse columns that RecBole would do without until it fails: users and items that are not loaded, or are one.

    Raises:
        SettingError: Naming the keys.
    """
    user, item = settings["USER_ID_FIELD"], settings["ITEM_ID_FIELD"]
    if user == item:
        raise SettingError(f"USER_ID_FIELD and ITEM_ID_FIELD must be two columns; both are {user!r}.")
    loaded = "*" if settings["load_col"] is None else settings["load_col"].get("inter", ())
    left_out = [*(settings["unload_col"] or {}).get("inter", ()), *(settings["unused_col"] or {}).get("inter", ())]
    for key, column in (("USER_ID_FIELD", user), ("ITEM_ID_FIELD", item)):
        if (loaded != "*" and column not in loaded) or column in left_out:
            raise SettingError(
                f"{key} {shown(column)}: load_col, unload_col and unused_col must leave this column of inter, such as "
                f"{{inter: [user_id, item_id, timestamp]}}; got load_col {shown(settings['load_col'])}."
            )


def check_evaluation(settings: Mapping[str, Any], knows_histories: bool) -> None:
    """Refuse an evaluation of single targets and their histories that cannot be had.

    Args:
        settings: With RecBole's defaults filled in.
        knows_histories: Whether the model's data set can tell histories.

    Raises:
        SettingError: Naming the keys.
    """
    evaluation, mask = settings["eval_args"], settings["mask_history"]
    sequential = settings["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if sequential and settings["benchmark_filename"] is not None and not knows_histories:
        raise SettingError(
            f"benchmark_filename {settings['benchmark_filename']!r}: {settings['model']} has a data set of its own, "
            "which cannot be had from files that are split already; leave the key out."
        )
    quantiles = time_quantiles(evaluation)
    if quantiles is not None and not _are_quantiles(quantiles):
        raise SettingError(
            f"eval_args: the split TQ must be two ascending quantiles of time in (0, 1), like [0.95, 0.97]; "
            f"got {quantiles!r}."
        )
    if mask is None:
        for key, given in {
            "eval_args with the split TQ": quantiles,
            "drop_unseen_targets": settings["drop_unseen_targets"],
        }.items():
            if given:
                raise SettingError(f"{key} needs mask_history, one of none, all, except_target; got none of them.")
        return
    why = None
    if not knows_histories:
        why = f"{settings['model']} reads a data set that tells no histories"
    elif sequential and not settings["lazy_prefixes"]:
        why = "without lazy_prefixes no histories are kept"
    elif evaluation["order"] != "TO":
        why = f"eval_args must have the order TO, not {evaluation['order']}"
    elif set(evaluation["mode"].values()) != {"full"}:
        why = f"eval_args must have the mode full, not {evaluation['mode']}"
    elif mask == "all" and "gauc" in map(str.lower, settings["metrics"]):
        why = "GAUC has no value for a target that is left out with its history; take except_target"
    if why is not None:
        raise SettingError(f"mask_history {mask!r} cannot be heeded: {why}.")


def _are_quantiles(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_is_number, value)):
        return False
    return 0 < value[0] < value[1] < 1


def check_model_keys(model: str, given: Iterable[str], defaults: Iterable[str]) -> None:
    """Refuse a key of our models that this one does not have: it would change nothing, and the run would mislead.

    Args:
        model: Name of the model.
        given: Keys from outside.
        defaults: Keys that the property files name for this model.

    Raises:
        SettingError: Naming the key and the model that has it.
    """
    for key in sorted(set(given) & MODEL_RULES.keys() - set(defaults)):
        raise SettingError(
            f"key {key!r} is none of {model}'s, whose kernel and encoding are fixed; PosKernelSASRec has it, and "
            "every encoding under position_encoding."
        )


def check_recbole_model(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse values that a model of RecBole's fails on once its training begins.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.

    Raises:
        SettingError: Naming the key.
    """
    weight_decay, own = settings["weight_decay"], settings.get("reg_weight")
    if weight_decay and isinstance(own, (list, tuple)):
        raise SettingError(
            f"weight_decay must be 0 with {model}, which has the regularization reg_weight {own!r}; got {weight_decay}."
        )
    negatives = settings.get("train_neg_sample_args")
    if settings["MODEL_TYPE"] == ModelType.TRADITIONAL and isinstance(negatives, dict) and negatives.get("dynamic"):
        raise SettingError(
            f"train_neg_sample_args must not be dynamic with {model}, which has no scores while it is trained; "
            f"got {negatives!r}."
        )


# RecBole's models that are trained in stages: the key of the stage, and whether each needs a model trained before.
_STAGES = {
    "S3Rec": ("train_stage", {"pretrain": False, "finetune": True}),
    "RaCT": ("train_stage", {"actor_pretrain": False, "critic_pretrain": True, "finetune": True}),
    "ConvNCF": ("train_method", {"no_pretrain": False, "after_pretrain": True}),
}


def pretrained_file(model: str, settings: Mapping[str, Any]) -> str | None:
    """The checkpoint that a model of RecBole's starts from; ``None`` if it starts anew.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.
    """
    if model not in _STAGES:
        return None
    key, stages = _STAGES[model]
    return settings["pre_model_path"] if stages[settings[key]] else None


def check_stage(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse a stage of training that there is not, or that lacks the model of the stage before.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.

    Raises:
        SettingError: Naming the key.
    """
    if model not in _STAGES:
        return
    key, stages = _STAGES[model]
    check_rules(settings, {key: _one_of(*stages)})
    file = pretrained_file(model, settings)
    if file is None or (_is_path(file) and Path(file).is_file()):
        return
    before = "of BPR" if model == "ConvNCF" else f"that an earlier stage of {model} has written"
    what = f"there is no file {shown(str(file))}" if file else "got none"
    raise SettingError(f"pre_model_path must be a checkpoint {before}, with {key} {settings[key]}; {what}.")


def check_transform(settings: Mapping[str, Any]) -> None:
    """Refuse a ``transform`` without the share of a history that it changes, which RecBole fails on in the first batch.

    Raises:
        SettingError: Naming the key of the share.
    """
    transform = settings.get("transform")
    key = _SHARES_OF_TRANSFORMS.get(transform)
    if key is not None:
        share = settings.get(key)
        if not _is_number(share) or not 0 <= share <= 1:
            raise SettingError(f"transform {transform!r} needs {key}, a number in [0, 1]; got {share!r}.")


def check_combinations(settings: Mapping[str, Any]) -> None:
    """Refuse values that are allowed one by one but not together.

    Raises:
        SettingError: Naming the keys.
    """
    hidden_size, n_heads = settings["hidden_size"], settings["n_heads"]
    if hidden_size % n_heads:
        raise SettingError(
            f"hidden_size must be a multiple of n_heads; got hidden_size {hidden_size}, n_heads {n_heads}."
        )
    if "kernel_structure" in settings:
        _check_kernels(settings)
    _check_encodings(settings)
    _check_loss(settings)
    stride, max_length = settings["window_stride"], settings["MAX_ITEM_LIST_LENGTH"]
    if stride is not None and stride > max_length:
        raise SettingError(f"window_stride must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {stride}.")
    if stride is not None and settings["train_objective"] == "augmented":
        raise SettingError(
            f"window_stride {stride} is for train_objective 'sequence'; got 'augmented', which has no windows."
        )
    if settings["train_objective"] == "sequence" and settings.get("transform") is not None:
        raise SettingError(
            f"transform {settings['transform']!r} rewrites single histories; it needs train_objective 'augmented', "
            "got 'sequence'."
        )


def _check_loss(settings: Mapping[str, Any]) -> None:
    loss_type, negatives = settings["loss_type"], settings.get("train_neg_sample_args")
    if loss_type not in SAMPLED_LOSSES and negatives is not None:
        raise SettingError(
            f"train_neg_sample_args must be ~ with loss_type {loss_type}, which takes all items for negatives; "
            f"got {negatives!r}."
        )
    if loss_type in SAMPLED_LOSSES and settings["loss_chunk_size"] != "auto":
        raise SettingError(
            f"loss_chunk_size {settings['loss_chunk_size']} is for loss_type CE; got {loss_type}, which scores the "
            "sampled items only."
        )
    if loss_type == "gBCE" and negatives is not None and negatives.get("distribution", "uniform") != "uniform":
        raise SettingError(
            f"loss_type gBCE is calibrated for uniform negatives; got train_neg_sample_args {negatives!r}. Take SSM "
            "for popular ones."
        )


def resolved_negatives(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a sampled loss draws: ``train_neg_sample_args`` as far as given, else defaults; ``None`` for CE."""
    if settings["loss_type"] not in SAMPLED_LOSSES:
        return None
    given = settings.get("train_neg_sample_args") or {}
    sample_num = 256 if settings["loss_type"] in ("SSM", "gBCE") else 1
    return {"distribution": "uniform", "sample_num": sample_num, "alpha": 1.0, **given}


def _check_kernels(settings: Mapping[str, Any]) -> None:
    structure, bandwidth = settings["kernel_structure"], settings["kernel_bandwidth"]
    parts = set(parse_kernel_structure(structure))
    banded = parts & set(BANDED_STRUCTURES)
    max_length = settings["MAX_ITEM_LIST_LENGTH"]
    if banded and bandwidth is None:
        raise SettingError(
            f"kernel_structure {structure!r} needs kernel_bandwidth, the lags a banded kernel keeps "
            f"(1 to {max_length}); got none."
        )
    if bandwidth is not None and not banded:
        raise SettingError(
            f"kernel_bandwidth {bandwidth} is for banded structures; got kernel_structure {structure!r}."
        )
    for key, size in {
        "kernel_bandwidth": bandwidth,
        "kernel_rank": settings["kernel_rank"] if "lowrank" in parts else None,
    }.items():
        if size is not None and size > max_length:
            raise SettingError(f"{key} must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {size}.")
    if settings["kernel_width_penalty"] and "adaptive_band" not in parts:
        raise SettingError(
            f"kernel_width_penalty {settings['kernel_width_penalty']} is for the structure adaptive_band; "
            f"got kernel_structure {structure!r}."
        )


def _check_encodings(settings: Mapping[str, Any]) -> None:
    encodings = settings.get("position_encoding")  # a model with one fixed encoding has the keys of that one instead
    try:
        check_encodings(encodings or [])
    except ValueError as error:
        raise SettingError(f"{error}.") from None
    hidden_size, n_heads = settings["hidden_size"], settings["n_heads"]
    rotary = "rope_base" in settings if encodings is None else "rope" in encodings
    if rotary and hidden_size // n_heads % 2:
        raise SettingError(
            f"rope rotates channels in pairs: hidden_size / n_heads must be even; got {hidden_size} / {n_heads}."
        )
    if "t5_buckets" in settings and settings["t5_max_distance"] <= settings["t5_buckets"] // 2:
        raise SettingError(
            "t5_max_distance must be above t5_buckets / 2; "
            f"got t5_max_distance {settings['t5_max_distance']}, t5_buckets {settings['t5_buckets']}."
        )
