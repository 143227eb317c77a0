"""Rules for the values of settings, and how they are combined."""

from __future__ import annotations

import itertools
import keyword
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, did_you_mean, shown, typed

# The largest integer that a setting may be; torch's loaders and loops fail beyond it.
LARGEST = 2**31 - 1
_LARGEST_FLOAT = 3.4e38


class Rule(NamedTuple):
    """The values that a key may have.

    Attributes:
        holds: Whether a value is allowed.
        allowed: The allowed values in words.
        maximum: The largest allowed integer.
        suggested: The texts among which the nearest to a wrong value is offered.
    """

    holds: Callable[[Any], bool]
    allowed: str
    maximum: int | None = None
    suggested: Callable[[], Iterable[str]] = tuple


def integer(minimum: int, maximum: int = LARGEST) -> Rule:
    """An integer from a minimum to a maximum, both included."""
    words = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    return Rule(lambda value: is_int(value) and value >= minimum, words, maximum)


def one_of(*choices: Any) -> Rule:
    """One of some values, compared by type, too."""

    def holds(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)  # True is not 1

    texts = [choice for choice in choices if isinstance(choice, str)]
    return Rule(holds, "one of " + ", ".join(map(str, choices)), suggested=lambda: texts)


def or_none(rule: Rule) -> Rule:
    """What a rule allows, or ``None``."""
    return rule._replace(holds=lambda value: value is None or rule.holds(value), allowed=f"{rule.allowed}, or ~")


def either(*rules: Rule) -> Rule:
    """What any of the rules allows."""
    return Rule(
        lambda value: any(rule.holds(value) for rule in rules),
        " or ".join(rule.allowed for rule in rules),
        suggested=lambda: itertools.chain.from_iterable(rule.suggested() for rule in rules),
    )


def list_of(rule: Rule, words: str, minimum: int = 0) -> Rule:
    """A list of at least ``minimum`` values that a rule allows; ``words`` describe it."""

    def holds(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) >= minimum and all(map(rule.holds, value))

    return Rule(holds, words, suggested=rule.suggested)


def mapping_of(rule: Rule, words: str) -> Rule:
    """A mapping from texts to values that a rule allows; ``words`` describe it."""

    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(map(_is_text, value)) and all(map(rule.holds, value.values()))

    return Rule(holds, words)


def is_int(value: Any) -> bool:
    """Whether a value is an integer and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a number that torch can hold: a float finite in 32 bits, or an integer of 64 bits."""
    return abs(value) <= _LARGEST_FLOAT if isinstance(value, float) else is_int(value) and abs(value) < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def is_path(value: Any) -> bool:
    """Whether a value can be a path."""
    return isinstance(value, Path) or (isinstance(value, str) and value != "" and "\0" not in value)


def is_name(value: Any) -> bool:
    """Whether a value can be the name of a folder and of the files in it."""
    return _is_text(value) and value not in (".", "..") and not set(value) & set("/\\") and len(value.encode()) <= 200


def is_module(value: Any) -> bool:
    """Whether a value can be the dotted name of a module, of at most 200 characters."""
    parts = value.split(".") if isinstance(value, str) and len(value) <= 200 else [""]
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


BOOL = one_of(True, False)
PROBABILITY = Rule(lambda value: is_number(value) and 0 <= value < 1, "a number in [0, 1)")
POSITIVE = Rule(lambda value: is_number(value) and value > 0, "a number above 0")
NOT_NEGATIVE = Rule(lambda value: is_number(value) and value >= 0, "a number of at least 0")
TEXT = Rule(_is_text, "a string")
PATH = Rule(is_path, "a path")
OPTIONAL_PATH = or_none(PATH)
FINITE = Rule(is_number, "a number")
TEXTS = list_of(TEXT, "a list of strings")
MODULE = Rule(is_module, "the dotted name of a module, such as my_package.my_module")
MODULES = list_of(MODULE, "a list of dotted names of modules, such as [my_package.my_module]")


def lower_one_of(*choices: str) -> Rule:
    """One of some texts, in upper or lower case."""
    words = "one of " + ", ".join(choices)
    return Rule(lambda value: isinstance(value, str) and value.lower() in choices, words, suggested=lambda: choices)


def check_rules(settings: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raise :class:`SettingError` for the first key whose value its rule does not allow."""
    for key, rule in rules.items():
        if key not in settings:
            continue
        value = settings[key]
        if not rule.holds(value):
            raise SettingError(f"{key} must be {rule.allowed}; got {typed(value)}.{_hint(value, rule)}")
        if rule.maximum is not None and is_int(value) and value > rule.maximum:
            raise SettingError(f"{key} must be at most {rule.maximum:,}; got {shown(value)}.")


def _hint(value: Any, rule: Rule) -> str:
    """The suggestion for a wrong text, or for the first wrong one in a list of texts."""
    is_list = isinstance(value, (list, tuple))
    given = value if is_list else [value]
    if not all(isinstance(each, str) for each in given):
        return ""
    known = [each for each in rule.suggested() if rule.holds([each] if is_list else each)]
    wrong = [each for each in given if not rule.holds([each] if is_list else each)]
    return did_you_mean(wrong[0], known) if wrong else ""


# Arguments of torch.nn.utils.clip_grad_norm_.
CLIPPING = Rule(
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


def _is_discretization(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return value.get("method") == "LD" or (value.get("method") == "ED" and integer(1).holds(value.get("bucket")))


# RecBole's ways to turn numbers into classes.
DISCRETIZATION = mapping_of(
    Rule(_is_discretization, ""), "a mapping of columns to {method: ED, bucket: 10} or {method: LD}"
)
