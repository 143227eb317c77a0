"""What the negatives of a sampled loss may be."""

from __future__ import annotations

from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.nn.losses.negatives import DISTRIBUTIONS
from recbole_posattn.settings.rules import LARGEST, is_int, is_number


def is_negatives(value: Any) -> bool:
    """Whether a value describes the negatives of a sampled loss."""
    if not isinstance(value, dict) or not set(value) <= NEGATIVES_OF_RECBOLE.keys():
        return False
    given = {**NEGATIVES_OF_RECBOLE, **value}
    return (
        isinstance(given["distribution"], str)
        and given["distribution"] in DISTRIBUTIONS
        and is_int(given["sample_num"])
        and 1 <= given["sample_num"] <= LARGEST
        and is_number(given["alpha"])
        and given["alpha"] >= 0
        and not given["dynamic"]
    )


# The keys of RecBole's train_neg_sample_args. The last two let the model choose among candidates, as no loss here does.
NEGATIVES_OF_RECBOLE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
NEGATIVES = (
    f"a dict of distribution ({' or '.join(DISTRIBUTIONS)}), sample_num (a positive integer) and alpha (a number of at "
    "least 0)"
)
