"""Checks of the evaluation of single targets and their histories."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import ModelType

from recbole_posattn.data.splits import time_quantiles
from recbole_posattn.errors import SettingError, shown
from recbole_posattn.settings.evaluation_keys import EVALUATION_KEYS, TIME_SPLIT_KEYS
from recbole_posattn.settings.rules import is_number

_DEFAULTS = {key.name: key.default for key in EVALUATION_KEYS}


def check_evaluation(settings: Mapping[str, Any], knows_histories: bool) -> None:
    """Refuse an evaluation of single targets and their histories that is not possible.

    Args:
        settings: With RecBole's defaults filled in.
        knows_histories: Whether the model's data set provides histories.

    Raises:
        SettingError: Naming the keys.
    """
    evaluation, mask = settings["eval_args"], settings["mask_history"]
    sequential = settings["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if sequential and settings["benchmark_filename"] is not None and not knows_histories:
        raise SettingError(
            f"benchmark_filename {settings['benchmark_filename']!r}: {settings['model']} has its own data set class, "
            "which cannot read files that are already split; leave the key out."
        )
    if settings["data_cache"] is not None and not (
        sequential and knows_histories and settings["benchmark_filename"] is None
    ):
        logging.getLogger().warning(
            f"data_cache {settings['data_cache']!r} has no effect: it holds the sequences of sequential models, cut "
            "out of interactions in one file"
        )
    _check_time_split(settings)
    if mask is None:
        for key, given in {
            "eval_args with the split TQ": time_quantiles(evaluation),
            "drop_unseen_targets": settings["drop_unseen_targets"],
        }.items():
            if given:
                raise SettingError(f"{key} needs mask_history, one of none, all, except_target; got ~ (not set).")
        return
    why = None
    if not knows_histories:
        why = f"{settings['model']} uses a data set that provides no histories"
    elif sequential and not settings["lazy_prefixes"]:
        why = "without lazy_prefixes no histories are kept"
    elif evaluation["order"] != "TO":
        why = f"eval_args must have the order TO, not {evaluation['order']}"
    elif set(evaluation["mode"].values()) != {"full"}:
        why = f"eval_args must have the mode full, not {evaluation['mode']}"
    elif mask == "all" and "gauc" in map(str.lower, settings["metrics"]):
        why = "GAUC has no value for a target that is left out with its history; take except_target"
    if why is not None:
        raise SettingError(f"mask_history {mask!r} is not possible here: {why}.")


def _check_time_split(settings: Mapping[str, Any]) -> None:
    """Refuse quantiles of the split ``TQ`` that make no split, and its keys beside other splits."""
    quantiles, files = time_quantiles(settings["eval_args"]), settings["benchmark_filename"]
    if quantiles is None or files is not None:
        split = f"the split {shown(settings['eval_args']['split'])}"
        for key in TIME_SPLIT_KEYS:
            if settings[key] != _DEFAULTS[key]:
                raise SettingError(
                    f"{key} {settings[key]!r} is for the split TQ of eval_args, like {{TQ: [0.95, 0.97]}}; got "
                    f"{split if files is None else f'benchmark_filename {shown(files)}, which is already split'}."
                )
        return
    ascending = settings["time_split_second_of"] == "all"
    if not _are_quantiles(quantiles, ascending):
        kind = "two ascending quantiles" if ascending else "two quantiles"
        raise SettingError(
            f"eval_args: the split TQ must be {kind} of time in (0, 1), like "
            f"{[0.95, 0.97] if ascending else [0.92, 0.625]}; got {quantiles!r}."
        )


def _are_quantiles(value: Any, ascending: bool) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(is_number, value)):
        return False
    return all(0 < quantile < 1 for quantile in value) and (value[0] < value[1] or not ascending)
