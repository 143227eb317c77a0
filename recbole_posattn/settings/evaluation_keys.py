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
        "(str) Evaluation protocol: leave_one_out, leave_one_out_masked, temporal, temporal_paper, or a YAML file of "
        "keys; ~: the other keys define the evaluation.",
        Scope.RUN,
        names_settings=True,
    ),
    own_key(
        "mask_history",
        or_none(one_of("none", "all", "except_target")),
        None,
        "(str) Items left out of the ranking of each target: none, all (the user's history), or except_target (the "
        "history without the target); ~: as in RecBole.",
        Scope.EVALUATION,
    ),
    own_key(
        "drop_unseen_targets",
        BOOL,
        False,
        "(bool) With mask_history: leave targets whose item never occurs in training out of the evaluation.",
        Scope.EVALUATION,
    ),
    own_key(
        "drop_unseen_items",
        BOOL,
        False,
        "(bool) With the split TQ: remove items that never occur in training from targets, histories and the "
        "catalogue.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_second_of",
        one_of("all", "rest"),
        "all",
        "(str) Times over which the second quantile of the split TQ is taken: all, or the rest after the first cut.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_method",
        one_of("linear", "lower", "higher", "midpoint", "nearest"),
        "linear",
        "(str) Interpolation of the quantiles of the split TQ, a method of numpy.quantile: linear, lower, higher, "
        "midpoint or nearest.",
        Scope.EVALUATION,
    ),
    own_key(
        "time_split_tie",
        one_of("earlier", "later"),
        "earlier",
        "(str) The part that gets interactions exactly at the time of a cut of the split TQ: earlier or later.",
        Scope.EVALUATION,
    ),
    own_key(
        "max_valid_rows",
        or_none(integer(1)),
        None,
        "(int) Maximum number of validation rows in the split TQ; if there are more, the first cut moves towards the "
        "second one. ~: no limit.",
        Scope.EVALUATION,
    ),
)

# Those that have no effect with another split than TQ, and are refused there.
TIME_SPLIT_KEYS = (
    *("drop_unseen_items", "time_split_second_of", "time_split_method", "time_split_tie", "max_valid_rows"),
)
