"""The keys of the training recipe that are not about positions: scores, regularization, averaging, schedule."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.nn.item_scores import ITEM_SCORES
from recbole_posattn.nn.losses.cross_entropy import PRECISIONS
from recbole_posattn.settings.key import Key, Scope, own_key
from recbole_posattn.settings.rules import (
    NOT_NEGATIVE,
    PROBABILITY,
    Rule,
    integer,
    is_number,
    one_of,
    or_none,
)

LR_SCHEDULERS = ("constant", "linear", "cosine")

# Schedules that lower the learning rate, and so need to know how long a run is.
DECAYING_SCHEDULERS = ("linear", "cosine")

# Of our models.
RECIPE_MODEL_KEYS = (
    Key(
        "item_dropout_prob",
        PROBABILITY,
        0.0,
        "(float) Probability of zeroing the whole embedding of an item in the history during training; in [0, 1).",
    ),
    Key(
        "score",
        one_of(*ITEM_SCORES),
        "dot",
        "(str) Score of an item: dot product ('dot'), or cosine divided by score_temperature ('cosine').",
    ),
    Key(
        "score_temperature",
        Rule(
            lambda value: is_number(value) and value >= 1e-4, "a number of at least 1e-4"
        ),  # below, gradients overflow
        0.07,
        "(float) Score cosine: the fixed temperature τ that divides it; at least 1e-4.",
    ),
    Key(
        "label_smoothing",
        PROBABILITY,
        0.0,
        "(float) CE: share of the target's probability spread over all items; in [0, 1).",
    ),
    Key(
        "loss_precision",
        one_of(*PRECISIONS),
        "float32",
        "(str) CE: type of the products with the embeddings of all items, 'float32' (or that of enable_amp) or "
        "'bfloat16'; the softmax stays in float32.",
    ),
    Key(
        "history_partition",
        one_of(True, False, "auto"),
        "auto",
        "(bool or str) Learned bias on the scores of items in the history, by how many items ago they were seen; "
        "'auto': unless mask_history leaves them out.",
        before=False,
    ),
    Key(
        "train_mask_history",
        one_of(True, False, "auto"),
        "auto",
        "(bool or str) Leave the user's earlier items, except the target, out of the loss; 'auto': with "
        "mask_history all, which leaves them out of the ranking, if the training data are dense, with at least "
        "0.02 targets per user and item.",
        before=False,
    ),
    Key(
        "weight_decay_on",
        one_of("all", "matrices"),
        "all",
        "(str) Weights that weight_decay applies to: 'all', as in RecBole, or 'matrices': linear layers and item "
        "embeddings, without biases, LayerNorms, kernels and encodings.",
    ),
)

# Of every model.
RECIPE_RUN_KEYS = (
    own_key(
        "lr_scheduler",
        or_none(one_of(*LR_SCHEDULERS)),
        None,
        "(str) Learning-rate schedule after the warm-up, per step: constant, linear or cosine decay; ~: no schedule.",
        Scope.TRAINING,
    ),
    own_key(
        "lr_warmup_epochs",
        NOT_NEGATIVE,
        0.0,
        "(float) With lr_scheduler: number of epochs, also fractional, in which the learning rate rises, step by step, "
        "to learning_rate.",
        Scope.TRAINING,
    ),
    own_key(
        "lr_decay_epochs",
        or_none(integer(1)),
        None,
        "(int) Schedules linear and cosine: number of epochs, including the warm-up, until the final learning rate; ~ "
        "is epochs, or pretrain_epochs in a pretraining. Training (not pretraining) ends there if that rate is 0, "
        "unless weights are averaged.",
        Scope.TRAINING,
    ),
    own_key(
        "lr_end_factor",
        Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
        0.0,
        "(float) Schedules linear and cosine: final learning rate as a fraction of learning_rate; in [0, 1].",
        Scope.TRAINING,
    ),
    own_key(
        "weight_averaging",
        or_none(one_of("ema", "swa")),
        None,
        "(str) Average of the weights that is validated, saved and tested: moving average over steps (ema) or mean "
        "over epochs (swa); ~: no averaging.",
        Scope.TRAINING,
    ),
    own_key(
        "ema_decay",
        PROBABILITY,
        0.999,
        "(float) Averaging ema: decay of the moving average per step; in [0, 1).",
        Scope.TRAINING,
    ),
    own_key(
        "averaging_start_epoch",
        integer(0),
        0,
        "(int) With weight_averaging: number of epochs before averaging starts.",
        Scope.TRAINING,
    ),
)
