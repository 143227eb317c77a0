"""The keys of single filter models: FMLPRec, BSARec and TVRec."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import Key
from recbole_posattn.settings.rules import BOOL, NOT_NEGATIVE, Rule, integer, is_number

FILTER_MODEL_KEYS = (
    Key(
        "filter_padding",
        BOOL,
        True,
        "(bool) Padding, with its position embeddings, takes part in the filter, as in the authors' code; False leaves "
        "it out, which is faster.",
    ),
    Key(
        "bsarec_alpha",
        Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
        0.7,
        "(float) Share of the filter beside the attention; in [0, 1].",
    ),
    Key(
        "bsarec_cutoff",
        integer(1),
        5,
        "(int) Components that the low pass keeps, the lowest of MAX_ITEM_LIST_LENGTH frequencies; at least 1.",
    ),
    Key(
        "tvrec_orthogonality",
        NOT_NEGATIVE,
        0.0,
        "(float) Times the overlap of the filters in each basis, added to the loss; at least 0.",
    ),
)
