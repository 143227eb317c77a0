"""The keys of times: what the times of a data set mean, and whether models read them."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import Key, Scope, own_key
from recbole_posattn.settings.rules import BOOL, POSITIVE, one_of

# Of every model; for the files of properties/dataset/.
TIME_RUN_KEYS = (
    own_key(
        "time_is_order",
        one_of("auto", True, False),
        "auto",
        "(bool or str) Whether times only order the interactions of a user, so that models must not read their "
        "differences; auto: if nearly all gaps are equal.",
        Scope.DATA,
    ),
    own_key(
        "time_gaps",
        BOOL,
        True,
        "(bool) Whether models may read the differences of times; False if some times were filled in.",
        Scope.DATA,
    ),
)

# Of our models.
TIME_MODEL_KEYS = (
    Key(
        "read_times",
        one_of(True, False, "auto"),
        True,
        "(bool or str) Whether the parts of the model that read time are on: True (refused if the times of the data "
        "set must not be read), False, or auto (on if they may be read).",
    ),
    Key(
        "time_bias_positions",
        BOOL,
        False,
        "(bool) Whether 'time_bias' also has a learned bias per distance in positions, as in HSTU.",
    ),
    Key(
        "time_rope_base",
        POSITIVE,
        10000.0,
        "(float) The longest wavelength of 'time_rope' is 2π times this, in median gaps of the training data; above 0.",
    ),
)
