"""The rules of the keys that name a kernel structure, encodings or a loss, including those registered later."""

from __future__ import annotations

import itertools
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.structures import STRUCTURES, parse_kernel_structure
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.settings.rules import Rule, one_of, or_none


def part_rules() -> dict[str, Rule]:
    """The rule of each key, by the names known now."""
    return {
        "kernel_structure": Rule(
            _is_structure,
            f"<U>-<L>, each one of {', '.join(STRUCTURES)}",
            suggested=lambda: map("-".join, itertools.product(STRUCTURES, repeat=2)),
        ),
        "kernel_branch": or_none(one_of(*STRUCTURES)),
        "position_encoding": Rule(
            lambda value: (
                value == "auto"
                or (isinstance(value, list) and all(isinstance(name, str) and name in ENCODINGS for name in value))
            ),
            f"auto or a list of any of {', '.join(ENCODINGS)}",
            suggested=lambda: ["auto", *ENCODINGS],
        ),
        "loss_type": one_of(*LOSSES),
    }


def _is_structure(value: Any) -> bool:
    try:
        parse_kernel_structure(value)
    except (TypeError, ValueError, AttributeError):
        return False
    return True
