"""Settings that are intervals, such as ``[5,inf)``."""

from __future__ import annotations

import re
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.rules import Rule

_INTERVAL = re.compile(r"\s*[\[(]([^,]*),([^,]*)[\])]\s*")


def _is_interval(text: str) -> bool:
    """Whether it is an interval that RecBole can read, and is not empty."""
    match = _INTERVAL.fullmatch(text)
    try:
        lower, upper = map(float, match.groups()) if match else (1, 0)
    except ValueError:
        return False
    return lower <= upper


def _is_intervals(value: Any) -> bool:
    return isinstance(value, str) and all(map(_is_interval, value.split(";")))


INTERVALS = Rule(_is_intervals, 'intervals such as "[5,inf)" or "[1,2];[4,9)"')

# Intervals of counts, of interactions and of triples; val_interval is a mapping of columns to intervals.
INTER_INTERVALS = ("user_inter_num_interval", "item_inter_num_interval")
KG_INTERVALS = ("entity_kg_num_interval", "relation_kg_num_interval")


def write_intervals(settings: dict[str, Any]) -> None:
    """Turn the intervals among the settings into text.

    YAML and Python read the closed interval ``[5,9]`` as a list, and Python reads the open one ``(4,10)`` as a tuple.
    RecBole accepts both, but a tuple would return from a checkpoint as a list.

    Several intervals of counts are put in ascending order: if there is a file of users or items, RecBole uses the lower
    bound of the first interval as the minimum of all.

    Args:
        settings: The settings, changed in place.
    """
    for key in (*INTER_INTERVALS, *KG_INTERVALS):
        if key in settings:
            settings[key] = _in_order(_interval_text(settings[key]))
    if isinstance(settings.get("val_interval"), dict):
        settings["val_interval"] = {key: _interval_text(value) for key, value in settings["val_interval"].items()}


def _in_order(value: Any) -> Any:
    """Several intervals by their lower bounds; anything else unchanged."""
    if not _is_intervals(value) or ";" not in value:
        return value
    return ";".join(sorted(value.split(";"), key=lambda text: float(text.strip()[1:].partition(",")[0])))


def _interval_text(value: Any) -> Any:
    """A list or tuple of two bounds as text; anything else, such as a list of tokens, unchanged."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or all(isinstance(bound, str) for bound in value):
        return value
    left, right = "[]" if isinstance(value, list) else "()"
    text = f"{left}{value[0]},{value[1]}{right}"
    return text if _is_interval(text) else value
