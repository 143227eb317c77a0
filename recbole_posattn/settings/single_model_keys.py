"""The keys of single models: FMLPRec, BSARec, TVRec and TiSASRec."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import Key
from recbole_posattn.settings.rules import BOOL, NOT_NEGATIVE, Rule, integer, is_number

SINGLE_MODEL_KEYS = (
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
    Key(
        "tisasrec_intervals",
        integer(1, 2**20),
        256,
        "(int) The largest interval between items, in shortest intervals of the user; longer ones count as this one; "
        "at least 1.",
    ),
    Key(
        "tisasrec_embedding_l2",
        NOT_NEGATIVE,
        0.00005,
        "(float) Times the sum of the squares of all embeddings, added to the loss; at least 0.",
    ),
)
