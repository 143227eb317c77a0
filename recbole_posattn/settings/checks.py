"""Checks of settings that need more than the rule of a single key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import EvaluatorType, ModelType

from recbole_posattn.errors import SettingError, shown
from recbole_posattn.settings.eval_args import EVAL_ARGS, check_eval_args
from recbole_posattn.settings.negatives import NEGATIVES, NEGATIVES_OF_RECBOLE, is_negatives
from recbole_posattn.settings.rules import (
    BOOL,
    FINITE,
    LARGEST,
    Rule,
    check_rules,
    is_int,
    is_number,
    is_path,
    one_of,
    or_none,
)
from recbole_posattn.settings.run_keys import RUN_RULES


def _is_recbole_negatives(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= NEGATIVES_OF_RECBOLE.keys():
        return False
    given = {**NEGATIVES_OF_RECBOLE, **value}
    if given["distribution"] in (None, "None", "none"):
        return True
    return (
        given["distribution"] in ("uniform", "popularity")
        and is_int(given["sample_num"])
        and 1 <= given["sample_num"] <= LARGEST
        and is_number(given["alpha"])
        and given["alpha"] >= 0
        and isinstance(given["dynamic"], bool)
        and is_int(given["candidate_num"])
        and 0 <= given["candidate_num"] <= LARGEST
    )


_RECBOLE_NEGATIVES = Rule(
    lambda value: value in (None, "None") or _is_recbole_negatives(value),
    "a dict of distribution (uniform, popularity or none), sample_num (a positive integer), alpha (a number of at "
    "least 0), dynamic (True or False) and candidate_num (an integer of at least 0), or ~",
)
# RecBole's models that read the fields of a transform
_TRANSFORMS_OF_MODELS = {"BERT4Rec": "mask_itemseq", "SHAN": "inverse_itemseq"}
_SHARES_OF_TRANSFORMS = {"mask_itemseq": "mask_ratio", "crop_itemseq": "eta", "reorder_itemseq": "beta"}


def check_model_types(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse a setting of a RecBole model whose type differs from its default's.

    Args:
        settings: The settings to check.
        defaults: The model's property file.

    Raises:
        SettingError: Naming the first one.
    """
    check_rules(settings, {"train_neg_sample_args": _RECBOLE_NEGATIVES})
    kinds = {bool: BOOL, int: FINITE, float: FINITE, str: Rule(lambda value: isinstance(value, str), "a string")}
    kinds |= {list: Rule(lambda value: isinstance(value, (list, tuple)), "a list")}
    kinds |= {dict: Rule(lambda value: isinstance(value, dict), "a mapping")}
    for key, default in defaults.items():
        if type(default) in kinds and key not in RUN_RULES and key != "train_neg_sample_args":
            check_rules(settings, {key: kinds[type(default)]})


def check_resolved(settings: Mapping[str, Any]) -> None:
    """Refuse resolved settings, read from a checkpoint, that RecBole's Config would not have produced.

    Raises:
        SettingError: Naming the first one.
    """
    check_caches(settings)
    for key in ("topk", "metrics"):
        if not isinstance(settings[key], (list, tuple)):
            raise SettingError(f"{key} must be a list; got {shown(settings[key])}.")
    evaluation, negatives = settings["eval_args"], settings["train_neg_sample_args"]
    if not isinstance(evaluation, Mapping) or not evaluation.keys() >= EVAL_ARGS.keys():
        raise SettingError(f"eval_args must be a mapping of {', '.join(EVAL_ARGS)}; got {shown(evaluation)}.")
    check_eval_args(evaluation, settings)
    is_whole = isinstance(negatives, Mapping) and negatives.keys() >= NEGATIVES_OF_RECBOLE.keys()
    is_none = is_whole and negatives["distribution"] == "none" and negatives["dynamic"] is False
    if not is_none and not (is_whole and negatives["distribution"] != "none" and _is_recbole_negatives(negatives)):
        raise SettingError(f"train_neg_sample_args must be {_RECBOLE_NEGATIVES.allowed}; got {shown(negatives)}.")
    check_rules(settings, {"loss_negatives": or_none(Rule(is_negatives, NEGATIVES))})


def check_caches(settings: Mapping[str, Any]) -> None:
    """Refuse RecBole's caches of prepared data: they are pickles, and reading one runs any code in it. Check ours.

    Raises:
        SettingError: Naming the key.
    """
    for key in ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"):
        if settings.get(key):
            raise SettingError(
                f"{key} must be left out; got {shown(settings[key])}. RecBole's caches are pickles, which run code "
                "when they are read; preparing the data anew is fast here, and data_cache keeps plain data."
            )
    if settings.get("data_cache") is not None and not settings["lazy_prefixes"]:
        raise SettingError(
            f"data_cache {shown(settings['data_cache'])} needs lazy_prefixes: True; RecBole writes all histories out "
            "in memory."
        )


def validates(settings: Mapping[str, Any]) -> bool:
    """Whether any epoch is followed by a validation."""
    split, has_parts = settings["eval_args"]["split"], settings["benchmark_filename"] is not None
    no_rows = isinstance(split, dict) and (
        split.get("LS") == "test_only"
        or any(isinstance(split.get(kind), (list, tuple)) and split[kind][1] == 0 for kind in ("RS", "TS"))
    )
    pretrains = settings.get("train_stage", "finetune") != "finetune"
    return min(settings["eval_step"], settings["epochs"]) > 0 and not pretrains and (has_parts or not no_rows)


def check_validation_metric(settings: Mapping[str, Any]) -> None:
    """Refuse a ``valid_metric`` that the validation will not compute; RecBole fails on it after the first epoch."""
    if not validates(settings):
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
    """Refuse columns of users and items that are not loaded, or are the same column, before RecBole fails on them.

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
                f"{key} {shown(column)}: load_col, unload_col and unused_col must keep this column of inter, such as "
                f"{{inter: [user_id, item_id, timestamp]}}; got load_col {shown(settings['load_col'])}."
            )


def check_recbole_model(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse values that a RecBole model fails on once its training begins.

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
            f"train_neg_sample_args must not be dynamic with {model}, which has no scores during training; "
            f"got {negatives!r}."
        )
    length = settings["MAX_ITEM_LIST_LENGTH"]
    if model == "FEARec" and int(settings["topk_factor"] * math.log(length)) < 1:
        raise SettingError(
            f"FEARec attends to topk_factor × ln(MAX_ITEM_LIST_LENGTH) delays, rounded down, of which there must be at "
            f"least one; got {settings['topk_factor']:g} × ln({length})."
        )


# The key of the checkpoint that a stage of training starts from.
PRETRAINED = "pre_model_path"

# RecBole's models that are trained in stages: the key of the stage, and whether each stage needs a pretrained model.
_STAGES = {
    "S3Rec": ("train_stage", {"pretrain": False, "finetune": True}),
    "RaCT": ("train_stage", {"actor_pretrain": False, "critic_pretrain": True, "finetune": True}),
    "ConvNCF": ("train_method", {"no_pretrain": False, "after_pretrain": True}),
}


def pretrained_file(model: str, settings: Mapping[str, Any]) -> str | None:
    """The checkpoint that a RecBole model starts from; ``None`` if it starts from scratch.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.
    """
    if model not in _STAGES:
        return None
    key, stages = _STAGES[model]
    return settings[PRETRAINED] if stages[settings[key]] else None


def check_stage(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse an unknown stage of training, or one whose pretrained model is missing.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.

    Raises:
        SettingError: Naming the key.
    """
    if model not in _STAGES:
        return
    key, stages = _STAGES[model]
    check_rules(settings, {key: one_of(*stages)})
    file = pretrained_file(model, settings)
    if file is None or (is_path(file) and Path(file).is_file()):
        return
    before = "of BPR" if model == "ConvNCF" else f"that an earlier stage of {model} has written"
    what = f"there is no file {shown(str(file))}" if file else "got none"
    raise SettingError(f"{PRETRAINED} must be a checkpoint {before}, with {key} {settings[key]}; {what}.")


def check_transform(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse a ``transform`` that RecBole fails on in the first batch.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.

    Raises:
        SettingError: Naming the key: the transform, or the share of a history that it changes.
    """
    transform, needed = settings.get("transform"), _TRANSFORMS_OF_MODELS.get(model)
    if needed is not None and transform != needed:
        raise SettingError(f"transform must be {needed} with {model}, which reads its fields; got {transform!r}.")
    key = _SHARES_OF_TRANSFORMS.get(str(transform))
    if key is not None:
        share: Any = settings.get(key)
        if not is_number(share) or not 0 <= share <= 1:
            raise SettingError(f"transform {transform!r} needs {key}, a number in [0, 1]; got {share!r}.")
        length = settings["MAX_ITEM_LIST_LENGTH"]
        if transform == "mask_itemseq" and int(share * length) < 1:
            raise SettingError(
                f"transform {transform!r} masks {key} × MAX_ITEM_LIST_LENGTH items, rounded down, of which there must "
                f"be at least one; got {share:g} × {length}."
            )


# RecBole resolves these to values that the rules for given values do not allow.
_RESOLVED_OTHERWISE = {"train_neg_sample_args"}


def check_resolved_rules(settings: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """:func:`recbole_posattn.settings.rules.check_rules`, for the settings of a finished configuration."""
    check_rules(settings, {key: rule for key, rule in rules.items() if key not in _RESOLVED_OTHERWISE})
