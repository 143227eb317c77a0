"""What one field of an atomic file may hold."""

from __future__ import annotations

import re

import recbole_posattn.compat  # noqa: F401

from recbole.utils import FeatureType

from recbole_posattn.data.blocks import SEQUENCES, Column
from recbole_posattn.data.text import LARGEST, NUMBER, READ_AS_MISSING
from recbole_posattn.errors import shown

_NUMBER = re.compile(NUMBER)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)


def problem(column: Column, field: str, seq_separator: str) -> str | None:
    """What is wrong with a field, as the end of a sentence about its column; ``None`` if it is correct.

    Args:
        column: Its column.
        field: Its text.
        seq_separator: Between the values of a sequence.
    """
    if not field or field in READ_AS_MISSING:
        missing = f"is {field!r}, which is read as a missing value" if field else "has no value"
        return missing if column.required else None
    if column.type == FeatureType.FLOAT:
        return _number_problem(field)
    if column.required and column.type in SEQUENCES and not any(field.split(seq_separator)):
        return f"has no value, only separators: {shown(field)}"
    if column.type == FeatureType.FLOAT_SEQ:
        return next(filter(None, map(_number_problem, filter(None, field.split(seq_separator)))), None)
    return None


def has_value(field: str, seq_separator: str) -> bool:
    """Whether a field has a value, or a sequence at least one."""
    return field not in READ_AS_MISSING and any(field.split(seq_separator))


def _number_problem(text: str) -> str | None:
    number = text.strip(" \t\r\n\v\f")
    if _NUMBER.fullmatch(number):
        return None if abs(float(number)) <= LARGEST else f"must be a number of at most 3.4e38; got {shown(text)}"
    if _INFINITE.fullmatch(number):
        return f"must be a finite number; got {shown(text)}"
    return f"must be a number; got {shown(text)}"
