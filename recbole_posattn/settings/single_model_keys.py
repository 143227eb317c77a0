"""The keys of single models: FMLPRec, BSARec, TVRec and TiSASRec."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.settings.key import Key
from recbole_posattn.settings.rules import BOOL, NOT_NEGATIVE, Rule, integer, is_number

BSAREC_CUTOFF = 5  # the authors' on amazon-beauty

SINGLE_MODEL_KEYS = (
    Key(
        "filter_padding",
        BOOL,
        True,
        "(bool) Include padding, with its position embeddings, in the filter, as in the authors' code; False leaves "
        "it out, which is faster.",
    ),
    Key(
        "bsarec_alpha",
        Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
        0.7,
        "(float) Weight of the filter relative to the attention; in [0, 1].",
    ),
    Key(
        "bsarec_cutoff",
        integer(1),
        BSAREC_CUTOFF,
        "(int) Number of lowest frequency components that the low pass keeps, of MAX_ITEM_LIST_LENGTH; at least 1.",
    ),
    Key(
        "tvrec_orthogonality",
        NOT_NEGATIVE,
        0.0,
        "(float) Weight of a penalty in the loss: the overlap of the filters in each basis; at least 0.",
    ),
    Key(
        "tisasrec_intervals",
        integer(1, 2**20),
        256,
        "(int) Largest interval between items, in units of the user's shortest interval; longer ones are clipped; at "
        "least 1.",
    ),
    Key(
        "tisasrec_embedding_l2",
        NOT_NEGATIVE,
        0.00005,
        "(float) Weight of a penalty in the loss: the sum of the squares of all embeddings; at least 0.",
    ),
)
