"""Settings as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import recbole_posattn.compat  # noqa: F401

import numpy as np


def plain_data(value: Any) -> Any:
    """``value`` with enums, devices, NumPy numbers and tuples made strings, numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_data(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)
