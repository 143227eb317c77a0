"""The rules of RecBole's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.rules import (
    BOOL,
    FINITE,
    LARGEST,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    TEXT,
    TEXTS,
    Rule,
    either,
    integer,
    is_int,
    is_name,
    is_number,
    list_of,
    lower_one_of,
    mapping_of,
    one_of,
    or_none,
)


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


_COLUMNS = mapping_of(TEXTS, "a mapping of file suffixes such as inter to lists of columns")
_INTERVAL = re.compile(r"\s*[\[(]([^,]*),([^,]*)[\])]\s*")
_INTERVALS = Rule(_is_intervals, 'intervals such as "[5,inf)" or "[1,2];[4,9)"')
_PLACES = integer(0, 20)
_CUT_OFF = Rule(lambda value: is_int(value) and 1 <= value <= LARGEST, "a positive integer")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")
_GROUPS = (None, "none", "None", "user")
_MODE = re.compile(r"full|labeled|(?:uni|pop)[1-9][0-9]{0,8}")


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
        numbers = isinstance(given, (list, tuple)) and len(given) == 3 and all(map(is_number, given))
        return numbers and min(given) >= 0 and sum(given) > 0
    return kind == "TQ"  # see check_evaluation


EVAL_ARGS = {
    "split": Rule(
        _is_split,
        "one of {LS: valid_and_test, valid_only or test_only}, {RS: [0.8, 0.1, 0.1]}, {TS: [0.8, 0.1, 0.1]} and "
        "{TQ: [0.95, 0.97]}",
    ),
    "group_by": Rule(lambda value: value in _GROUPS, "user or none"),
    "order": one_of("RO", "TO"),
    "mode": Rule(_is_mode, "full, labeled, uni100 or pop100, with any number, or a mapping of valid and test to these"),
}

# Settings that are intervals; val_interval is a mapping of columns to such.
_INTERVAL_KEYS = tuple(
    f"{counted}_num_interval" for counted in ("user_inter", "item_inter", "entity_kg", "relation_kg")
)

# What names files and folders.
NAME_RULES = {"dataset": Rule(is_name, "a name of at most 200 bytes without / and \\")}

# Settings of every run, whatever the model; those that RecBole reads are checked as they stand in its files.
RUN_RULES = {
    "epochs": integer(0),
    "eval_step": integer(0),
    "stopping_step": integer(0),
    "seed": integer(0, 2**32 - 1),
    "train_batch_size": integer(1),
    "eval_batch_size": integer(1),
    "MAX_ITEM_LIST_LENGTH": integer(1, 2**20),
    "learning_rate": POSITIVE,
    "lazy_prefixes": BOOL,
    "enable_amp": BOOL,
    "torch_compile": BOOL,
    "mask_history": or_none(one_of("none", "all", "except_target")),
    "drop_unseen_targets": BOOL,
    "save_last_every": or_none(integer(1)),
    "process_timeout": Rule(
        lambda value: is_number(value) and 1 <= value <= 10**6, "a number of seconds from 1 to 1e6"
    ),
    # the machine
    "gpu_id": either(
        Rule(is_int, "a number"),
        Rule(lambda value: isinstance(value, str) and value.isprintable(), "a text such as '0,1'"),
        Rule(lambda value: isinstance(value, tuple) and all(map(is_int, value)), "several numbers"),
    ),
    "worker": integer(0, 1024),
    **dict.fromkeys(("use_gpu", "reproducibility", "show_progress", "save_dataset", "save_dataloaders"), BOOL),
    **dict.fromkeys(("shuffle", "enable_scaler", "require_pow", "repeatable"), BOOL),
    "log_wandb": Rule(
        lambda value: value is False or (value is True and find_spec("wandb") is not None),
        "False, or True where the package wandb is installed",
    ),
    "state": or_none(lower_one_of(*_LEVELS)),
    **dict.fromkeys(("data_path", "checkpoint_dir"), PATH),
    **dict.fromkeys(("dataset_save_path", "dataloaders_save_path"), or_none(PATH)),
    "wandb_project": or_none(TEXT),
    # training
    "learner": lower_one_of(*_LEARNERS),
    "weight_decay": NOT_NEGATIVE,
    "clip_grad_norm": or_none(
        Rule(
            lambda value: (
                isinstance(value, dict)
                and set(value) <= {"max_norm", "norm_type", "error_if_nonfinite", "foreach"}
                and is_number(value.get("max_norm"))
                and value["max_norm"] > 0
                and is_number(value.get("norm_type", 2))
                and all(value.get(key) in (None, True, False) for key in ("error_if_nonfinite", "foreach"))
            ),
            "a mapping with max_norm, a number above 0, and perhaps norm_type",
        )
    ),
    **dict.fromkeys(("loss_decimal_place", "metric_decimal_place"), _PLACES),
    "transform": or_none(one_of(*_TRANSFORMS)),
    # evaluation
    "eval_args": Rule(lambda value: isinstance(value, dict), "a mapping of split, group_by, order and mode"),
    "metrics": either(TEXT, list_of(TEXT, "a list of names of metrics", 1)),
    "topk": either(_CUT_OFF, list_of(_CUT_OFF, "a list of them", 1)),
    "valid_metric": TEXT,
    # the data
    "field_separator": Rule(_is_separator, "a character other than a quote or a line's end, or several plain ones"),
    "seq_separator": Rule(lambda value: isinstance(value, str) and value != "", "a text"),
    "encoding": or_none(Rule(_is_encoding, "an encoding such as utf-8, latin-1 or utf-16")),
    **dict.fromkeys(("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "LABEL_FIELD"), TEXT),
    "RATING_FIELD": or_none(TEXT),
    **dict.fromkeys(("NEG_PREFIX", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD"), TEXT),
    **dict.fromkeys(("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD"), TEXT),
    "kg_reverse_r": BOOL,
    "seq_len": or_none(mapping_of(integer(1), "a mapping of columns to positive integers")),
    "threshold": or_none(mapping_of(FINITE, "a mapping of a column to a number")),
    "numerical_features": TEXTS,
    "load_col": or_none(mapping_of(either(one_of("*"), TEXTS), f"{_COLUMNS.allowed} or '*'")),
    **dict.fromkeys(("unload_col", "unused_col"), or_none(_COLUMNS)),
    "additional_feat_suffix": or_none(either(TEXT, TEXTS)),
    "rm_dup_inter": or_none(one_of("first", "last")),
    "val_interval": or_none(
        mapping_of(either(_INTERVALS, TEXTS), f"a mapping of columns to {_INTERVALS.allowed}, or to lists of tokens")
    ),
    "filter_inter_by_user_or_item": BOOL,
    **dict.fromkeys(_INTERVAL_KEYS, or_none(_INTERVALS)),
    **dict.fromkeys((f"alias_of_{kind}_id" for kind in ("user", "item", "entity", "relation")), or_none(TEXTS)),
    "preload_weight": or_none(mapping_of(TEXT, "a mapping of columns to columns")),
    "normalize_field": or_none(TEXTS),
    "normalize_all": or_none(BOOL),
    "discretization": or_none(
        mapping_of(
            Rule(
                lambda value: (
                    isinstance(value, dict)
                    and (
                        value.get("method") == "LD"
                        or (value.get("method") == "ED" and integer(1).holds(value.get("bucket")))
                    )
                ),
                "",
            ),
            "a mapping of columns to {method: ED, bucket: 10} or {method: LD}",
        )
    ),
    "benchmark_filename": or_none(
        Rule(
            lambda value: TEXTS.holds(value) and len(value) == 3,
            "a list of three suffixes, of training, validation and test",
        )
    ),
}

# Settings that are text, also where it looks like something else, as the name 2024 of a data set.
TEXT_KEYS = {"dataset", "model", "encoding", "wandb_project"} | {
    key for key, rule in RUN_RULES.items() if rule is TEXT or rule is PATH
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


def check_eval_args(evaluation: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for the first part of ``eval_args`` that is not allowed."""
    for key in evaluation:
        if key not in EVAL_ARGS:
            raise SettingError(f"eval_args: key {shown(key)} is unknown.{did_you_mean(key, EVAL_ARGS)}")
    for key, rule in EVAL_ARGS.items():
        if key in evaluation and not rule.holds(evaluation[key]):
            raise SettingError(f"eval_args: {key} must be {rule.allowed}; got {shown(evaluation[key])}.")
