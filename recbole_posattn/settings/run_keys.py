"""The keys of every run: RecBole's, and those that this package adds."""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.evaluator.register import metric_types

from recbole_posattn.settings.evaluation_keys import EVALUATION_KEYS
from recbole_posattn.settings.intervals import INTER_INTERVALS, INTERVALS, KG_INTERVALS
from recbole_posattn.settings.key import Key, Scope, Source, own_key, rules_of
from recbole_posattn.settings.learner import LEARNERS
from recbole_posattn.settings.recipe_keys import RECIPE_RUN_KEYS
from recbole_posattn.settings.rules import (
    BOOL,
    CLIPPING,
    DISCRETIZATION,
    FINITE,
    LARGEST,
    MODULES,
    NOT_NEGATIVE,
    OPTIONAL_PATH,
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
from recbole_posattn.settings.time_keys import TIME_RUN_KEYS


def _is_separator(value: Any) -> bool:
    """Whether a value can separate fields; pandas reads several characters as a regular expression."""
    if not isinstance(value, str) or not value or set(value) & set('"\n\r\0'):
        return False
    return len(value) == 1 or re.escape(value) == value


def _is_encoding(value: Any) -> bool:
    try:
        return "a:\n".encode(value).decode(value) == "a:\n"
    except (LookupError, TypeError, ValueError):  # ValueError: UnicodeError, and a NUL in the name
        return False


def _are_devices(value: Any) -> bool:
    """Whether a text is a value of CUDA_VISIBLE_DEVICES."""
    return isinstance(value, str) and all(_DEVICE.fullmatch(part.strip()) for part in value.split(","))


# Those that RecBole and this package define, in any case
_METRIC = Rule(
    lambda value: isinstance(value, str) and value.lower() in metric_types,
    "the name of a metric",
    suggested=lambda: metric_types,
)
_DEVICE = re.compile(r"-?\d+|(GPU|MIG)-[\w/-]+|NoDevFiles|")
_COLUMNS = mapping_of(TEXTS, "a mapping of file suffixes such as inter to lists of columns")
_PLACES = integer(0, 20)
# RecBole's caches of prepared data: checks.check_caches refuses what turns them on, with the reason.
_NO_CACHE = BOOL._replace(allowed="False; True is refused")
_NO_CACHE_PATH = OPTIONAL_PATH._replace(allowed="~; a path is refused")
_CUT_OFF = Rule(lambda value: is_int(value) and 1 <= value <= LARGEST, "a positive integer")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")

# Keys that name files and folders.
NAME_RULES = {"dataset": Rule(is_name, "a name of at most 200 bytes without / and \\")}


def _switch_of(package: str) -> Rule:
    """On or off, and on only where a package is installed."""
    return Rule(
        lambda value: value is False or (value is True and find_spec(package) is not None),
        f"False, or True where the package {package} is installed",
    )


def _recbole_key(name: str, rule: Rule, scope: Scope = Scope.TRAINING, **known: Any) -> Key:
    return Key(name, rule, source=Source.RECBOLE, scope=scope, **known)


_data_key = functools.partial(_recbole_key, scope=Scope.DATA)
_evaluation_key = functools.partial(_recbole_key, scope=Scope.EVALUATION)
_execution_key = functools.partial(_recbole_key, scope=Scope.EXECUTION)


# Keys of every run, whatever the model. The defaults of train_batch_size and valid_metric are those of our models.
RUN_KEYS = (
    own_key(
        "preset",
        None,
        None,
        "(str) Set of settings for this package's models: paper (the released model of arXiv 2602.21052), or a YAML "
        "file of keys; ~: none.",
        Scope.TRAINING,
        names_settings=True,
    ),
    own_key(
        "plugins",
        MODULES,
        [],
        "(list of str) Modules that register models, kernels, encodings or losses; --plugin=MODULE adds one.",
        Scope.TRAINING,
        resumable="yes",
        changes_result=False,
    ),
    *EVALUATION_KEYS,
    _recbole_key("epochs", integer(0), resumable="yes"),
    _recbole_key("eval_step", integer(0)),
    _recbole_key("stopping_step", integer(0), resumable="yes"),
    Key(
        "max_minutes",
        or_none(POSITIVE),
        None,
        "(float) Minutes of training after which a run ends with its best epoch so far, at the earliest after one "
        "epoch; ~: no limit.",
        resumable="yes",
        changes_result=False,
        source=Source.OVERALL,
        scope=Scope.EXECUTION,
    ),
    _recbole_key("seed", integer(0, 2**32 - 1), Scope.RUN),
    Key(
        "train_batch_size",
        integer(1),
        128,
        "(int) Sequences (train_objective: sequence) or prefixes (augmented) in a batch.",
        resumable="recorded",
        sizes=("training",),
    ),
    _execution_key("eval_batch_size", integer(1), resumable="yes", sizes=("evaluation",)),
    _recbole_key("MAX_ITEM_LIST_LENGTH", integer(1, 2**20), sizes=("training", "evaluation")),
    _recbole_key("learning_rate", POSITIVE, resumable="recorded"),
    own_key(
        "lazy_prefixes",
        BOOL,
        True,
        "(bool) Sequential models: cut histories out per batch (True), or materialise all, as RecBole does (False).",
        Scope.EXECUTION,
    ),
    own_key(
        "data_cache",
        OPTIONAL_PATH,
        None,
        "(str) Sequential models: a folder for memory-mapped files of interactions, for data larger than memory; later "
        "runs on the same data reuse them. ~ keeps interactions in memory.",
        Scope.EXECUTION,
        resumable="yes",
        changes_result=False,
    ),
    own_key(
        "trim_padding",
        one_of("auto", True, False),
        "auto",
        "(bool or str) RecBole's sequential models: compute batches without most of the padding if that gives the same "
        "loss and scores (auto), or else refuse the model (True); False: as in RecBole.",
        Scope.TRAINING,
        before=False,
    ),
    _recbole_key("enable_amp", BOOL, resumable="recorded"),
    own_key(
        "torch_compile",
        BOOL,
        False,
        "(bool) Compile the model with torch.compile; the first steps take longer.",
        Scope.EXECUTION,
    ),
    own_key(
        "save_last_every",
        or_none(integer(1)),
        1,
        "(int) Write last.pth, from which --resume continues, every this many epochs; ~: never.",
        Scope.EXECUTION,
        resumable="yes",
        changes_result=False,
    ),
    *RECIPE_RUN_KEYS,
    *TIME_RUN_KEYS,
    own_key(
        "process_timeout",
        Rule(lambda value: is_number(value) and 1 <= value <= 10**6, "a number of seconds from 1 to 1e6"),
        1800,
        "(float) Seconds that one of several processes waits for the others before the run ends with an error.",
        Scope.EXECUTION,
        resumable="yes",
        changes_result=False,
    ),
    _execution_key(
        "gpu_id",
        either(
            Rule(is_int, "a number"),
            Rule(_are_devices, "a string of numbers or identifiers such as '0,1'"),
            Rule(lambda value: isinstance(value, tuple) and all(map(is_int, value)), "several numbers"),
        ),
        resumable="yes",
        changes_result=False,
    ),
    _execution_key("worker", integer(0, 1024), resumable="yes"),
    _execution_key("use_gpu", BOOL, resumable="yes"),
    _execution_key("reproducibility", BOOL),
    _execution_key("show_progress", BOOL, resumable="yes", changes_result=False),
    *(_execution_key(name, _NO_CACHE) for name in ("save_dataset", "save_dataloaders")),
    *(_recbole_key(name, BOOL) for name in ("shuffle", "enable_scaler", "require_pow")),
    _evaluation_key("repeatable", BOOL),
    _execution_key("log_wandb", _switch_of("wandb"), resumable="yes", changes_result=False),
    own_key(
        "log_mlflow",
        _switch_of("mlflow"),
        False,
        "(bool) Log settings and metrics to MLflow, as configured by its environment variables.",
        Scope.EXECUTION,
        resumable="yes",
        changes_result=False,
    ),
    _execution_key("state", or_none(lower_one_of(*_LEVELS)), resumable="yes", changes_result=False),
    _execution_key("data_path", PATH, resumable="yes", changes_result=False),
    _execution_key("checkpoint_dir", PATH, resumable="yes", changes_result=False),
    *(_execution_key(name, _NO_CACHE_PATH) for name in ("dataset_save_path", "dataloaders_save_path")),
    _execution_key("wandb_project", or_none(TEXT), resumable="yes"),
    _recbole_key("learner", lower_one_of(*LEARNERS)),
    _recbole_key("weight_decay", NOT_NEGATIVE),
    own_key(
        "learner_args",
        Rule(lambda value: isinstance(value, dict), "a mapping of further arguments of the optimizer"),
        {},
        "(dict) Arguments of the optimizer ('learner') in addition to learning_rate and weight_decay, with PyTorch's "
        "names, such as {betas: [0.9, 0.98]} for adam.",
        Scope.TRAINING,
    ),
    _recbole_key("clip_grad_norm", or_none(CLIPPING), resumable="recorded"),
    _execution_key("loss_decimal_place", _PLACES),
    _evaluation_key("metric_decimal_place", _PLACES),
    _recbole_key("transform", or_none(one_of(*_TRANSFORMS))),
    _evaluation_key(
        "eval_args", Rule(lambda value: isinstance(value, dict), "a mapping of split, group_by, order and mode")
    ),
    _evaluation_key(
        "metrics", either(_METRIC, list_of(_METRIC, "a list of names of metrics, such as [Recall, NDCG]", 1))
    ),
    _evaluation_key("topk", either(_CUT_OFF, list_of(_CUT_OFF, "a list of them", 1))),
    Key(
        "valid_metric",
        TEXT,
        "NDCG@10",
        "(str) Metric for early stopping and the best epoch (the paper: NDCG@10), from RecBole's 'metrics' and 'topk'.",
        scope=Scope.EVALUATION,
    ),
    _evaluation_key("valid_metric_bigger", BOOL),
    _data_key(
        "field_separator", Rule(_is_separator, "a character other than a quote or a line's end, or several plain ones")
    ),
    _data_key("seq_separator", Rule(lambda value: isinstance(value, str) and value != "", "a string")),
    Key(
        "encoding",
        or_none(Rule(_is_encoding, "an encoding such as utf-8, latin-1 or utf-16")),
        "utf-8",
        "(str) Encoding of the atomic files.",
        source=Source.UNLISTED,
        scope=Scope.DATA,
    ),
    *(_data_key(name, TEXT) for name in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "LABEL_FIELD")),
    _data_key("RATING_FIELD", or_none(TEXT)),
    *(_data_key(name, TEXT) for name in ("NEG_PREFIX", "LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "POSITION_FIELD")),
    *(
        _data_key(name, TEXT)
        for name in ("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD")
    ),
    _data_key("kg_reverse_r", BOOL),
    _data_key("seq_len", or_none(mapping_of(integer(1), "a mapping of columns to positive integers"))),
    _data_key("threshold", or_none(mapping_of(FINITE, "a mapping of a column to a number"))),
    _data_key("numerical_features", TEXTS),
    _data_key("load_col", or_none(mapping_of(either(one_of("*"), TEXTS), f"{_COLUMNS.allowed} or '*'"))),
    *(_data_key(name, or_none(_COLUMNS)) for name in ("unload_col", "unused_col")),
    _data_key("additional_feat_suffix", or_none(either(TEXT, TEXTS))),
    _evaluation_key("rm_dup_inter", or_none(one_of("first", "last")), filters_rows=True),
    _evaluation_key(
        "val_interval",
        or_none(
            mapping_of(either(INTERVALS, TEXTS), f"a mapping of columns to {INTERVALS.allowed}, or to lists of tokens")
        ),
        filters_rows=True,
    ),
    _evaluation_key("filter_inter_by_user_or_item", BOOL),
    *(_evaluation_key(name, or_none(INTERVALS), filters_rows=True) for name in INTER_INTERVALS),
    *(_data_key(name, or_none(INTERVALS)) for name in KG_INTERVALS),
    *(
        _data_key(name, or_none(TEXTS))
        for name in ("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id")
    ),
    _data_key("preload_weight", or_none(mapping_of(TEXT, "a mapping of columns to columns"))),
    _data_key("normalize_field", or_none(TEXTS)),
    _data_key("normalize_all", or_none(BOOL)),
    _data_key("discretization", or_none(DISCRETIZATION)),
    _evaluation_key(
        "benchmark_filename",
        or_none(
            Rule(
                lambda value: TEXTS.holds(value) and len(value) == 3,
                "a list of three suffixes, of training, validation and test",
            )
        ),
    ),
)

RUN_RULES = rules_of(RUN_KEYS)

# Settings that are text even if they look like something else, such as a data set named 2024.
TEXT_KEYS = {"dataset", "model", "encoding", "wandb_project"} | {
    key for key, rule in RUN_RULES.items() if rule is TEXT or rule is PATH
}
