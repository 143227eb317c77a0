"""The parts of ``eval_args``."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import ModelType

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.rules import Rule, is_number, one_of

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
        return numbers and min(given) >= 0 and given[0] > 0
    return kind == "TQ"  # see check_evaluation


EVAL_ARGS = {
    "split": Rule(
        _is_split,
        "one of {LS: valid_and_test, valid_only or test_only}, {RS: [0.8, 0.1, 0.1]}, {TS: [0.8, 0.1, 0.1]} and "
        "{TQ: [0.95, 0.97]}, with a share of training above 0",
    ),
    "group_by": Rule(lambda value: value in _GROUPS, "user or none"),
    "order": one_of("RO", "TO"),
    "mode": Rule(_is_mode, "full, labeled, uni100 or pop100, with any number, or a mapping of valid and test to these"),
}


def check_eval_args(evaluation: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check the parts of ``eval_args``.

    Args:
        evaluation: The given parts.
        settings: All settings, to check what RecBole sets where a part is left out: it splits by ratio in random order,
            and refuses that order when it builds the data of a sequential model.

    Raises:
        SettingError: For the first part that is not allowed.
    """
    for key in evaluation:
        if key not in EVAL_ARGS:
            raise SettingError(f"eval_args: key {shown(key)} is unknown.{did_you_mean(key, EVAL_ARGS)}")
    for key, rule in EVAL_ARGS.items():
        if key in evaluation and not rule.holds(evaluation[key]):
            raise SettingError(f"eval_args: {key} must be {rule.allowed}; got {shown(evaluation[key])}.")
    if settings.get("MODEL_TYPE") != ModelType.SEQUENTIAL:
        return
    if evaluation.get("order") != "TO":
        got = "got RO" if "order" in evaluation else "it is left out, and RecBole then sets RO"
        raise SettingError(
            f"eval_args: order must be TO (by time) for sequential models; {got}. Give order: TO, or a protocol, "
            "such as --protocol=leave_one_out."
        )
    if "split" not in evaluation and settings.get("benchmark_filename") is None:
        logging.getLogger().warning(
            "eval_args leaves out split, which RecBole then sets to {RS: [0.8, 0.1, 0.1]}; give it as well, or a "
            "protocol, such as --protocol=leave_one_out."
        )
