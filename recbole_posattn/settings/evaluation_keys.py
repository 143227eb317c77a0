"""The keys that this package adds to RecBole's evaluation."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import Scope, own_key
from recbole_posattn.settings.rules import BOOL, integer, one_of, or_none

EVALUATION_KEYS = (
    own_key(
        "protocol",
        None,
        None,
        "(str) How to evaluate: leave_one_out, leave_one_out_masked, temporal, temporal_paper, or a YAML file of such "
        "keys; ~ leaves it to the keys themselves.",
        Scope.RUN,
    ),
    own_key(
        "mask_history",
        or_none(one_of("none", "all", "except_target")),
        None,
        "(str) Items left out of the ranking of each target: none, all (the user's history), except_target; ~ is "
        "RecBole's way.",
        Scope.EVALUATION,
    ),
    own_key(
        "drop_unseen_targets",
        BOOL,
        False,
        "(bool) With mask_history: whether targets whose item never occurs in training are left out of evaluation.",
        Scope.EVALUATION,
    ),
    own_key(
        "drop_unseen_items",
        BOOL,
        False,
        "(bool) With the split TQ: whether items that never occur in training are left out of targets, histories and "
        "the catalogue.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_second_of",
        one_of("all", "rest"),
        "all",
        "(str) What the second quantile of the split TQ is of: all times, or the rest behind the first cut.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_method",
        one_of("linear", "lower", "higher", "midpoint", "nearest"),
        "linear",
        "(str) How the split TQ finds a quantile between two times, a method of numpy.quantile: linear, lower, higher, "
        "midpoint or nearest.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_tie",
        one_of("earlier", "later"),
        "earlier",
        "(str) The part of interactions at the very time of a cut of the split TQ: the earlier or the later one.",
        Scope.EVALUATION,
    ),
    own_key(
        "max_valid_rows",
        or_none(integer(1)),
        None,
        "(int) Most rows of validation in the split TQ; with more, its first cut moves towards the second one. ~ is no "
        "limit.",
        Scope.EVALUATION,
    ),
)

# Those that have no effect with another split than TQ, and are refused there.
TIME_SPLIT_KEYS = (
    *("drop_unseen_items", "time_split_second_of", "time_split_method", "time_split_tie", "max_valid_rows"),
)
