"""The keys of our models."""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.nn.backbone import ACTIVATIONS
from recbole_posattn.nn.backbones import BACKBONES
from recbole_posattn.nn.encoder import BIAS_INITIALIZERS, INITIALIZERS, KERNEL_SHARINGS
from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.base import ALIGNMENTS, NORMALIZATIONS, TAP_STARTS
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.settings.encodings import IDENTITY
from recbole_posattn.settings.key import Key, Scope, rules_of
from recbole_posattn.settings.negatives import NEGATIVES, is_negatives
from recbole_posattn.settings.part_rules import part_rules
from recbole_posattn.settings.recipe_keys import RECIPE_MODEL_KEYS
from recbole_posattn.settings.rules import (
    BOOL,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    Rule,
    integer,
    is_int,
    is_number,
    one_of,
    or_none,
)
from recbole_posattn.settings.single_model_keys import SINGLE_MODEL_KEYS
from recbole_posattn.settings.time_keys import TIME_MODEL_KEYS

_SHARINGS = ("per_layer", "shared")

# The keys of the models registered here; each model has those that its property file names, with the default given here
# unless it is a published model, whose file has its authors' settings.
MODEL_KEYS = (
    Key("n_layers", integer(1, 2**10), 2, "(int) Number of transformer blocks; at least 1.", sizes=("training",)),
    Key("n_heads", integer(1, 2**16), 1, "(int) Number of attention heads; must divide hidden_size."),
    Key(
        "hidden_size",
        integer(1, 2**16),
        64,
        "(int) Channels of the hidden states and item embeddings.",
        sizes=("training", "evaluation"),
    ),
    Key(
        "inner_size",
        or_none(
            Rule(
                lambda value: value == "4x" or (is_int(value) and value >= 1),
                "4x or a positive integer",
                maximum=2**20,
            )
        ),
        "4x",
        "(int or str) Inner channels of the feed-forward networks; ~: hidden_size, as in the paper; '4x': four times "
        "hidden_size.",
    ),
    Key(
        "hidden_dropout_prob",
        PROBABILITY,
        0.5,
        "(float) Probability of zeroing an element of a hidden state; in [0, 1).",
    ),
    Key("attn_dropout_prob", PROBABILITY, 0.5, "(float) Probability of zeroing an attention weight; in [0, 1)."),
    Key(
        "hidden_act",
        one_of(*ACTIVATIONS),
        "gelu",
        f"(str) Activation of the feed-forward networks; in {list(ACTIVATIONS)}.",
    ),
    Key("layer_norm_eps", POSITIVE, 1e-8, "(float) Added to the variance in LayerNorm; above 0."),
    Key(
        "initializer",
        one_of(*INITIALIZERS),
        "normal",
        "(str) Initialization of all matrices except the kernels: 'normal', 'xavier_uniform' or 'xavier_normal'; "
        "the suffix '_stacked' takes W_Q, W_K and W_V as one matrix, as in nn.MultiheadAttention.",
    ),
    Key("initializer_range", POSITIVE, 0.02, "(float) Standard deviation of the normal initialization; above 0."),
    Key(
        "init_padding_row",
        BOOL,
        False,
        "(bool) Initialize the padding item's embedding like the others instead of with 0; in both cases CE trains it "
        "as a negative, except for a 0 with score cosine, which stays 0.",
    ),
    Key(
        "feed_forward_bias",
        one_of(*BIAS_INITIALIZERS),
        "zeros",
        "(str) Initialization of the biases of the feed-forward networks: 'zeros', or 'uniform' as in PyTorch.",
    ),
    Key(
        "backbone",
        one_of(*BACKBONES),
        "recbole",
        "(str) Block: the paper's ('sasrec'), RecBole's TransformerEncoder ('recbole'), or LiGR's gated one ('ligr').",
    ),
    Key(
        "output_projection",
        BOOL,
        False,
        "(bool) Backbone sasrec: project the concatenated heads after attention, as nn.MultiheadAttention does.",
    ),
    Key(
        "attend_padding",
        BOOL,
        False,
        "(bool) Attend to the padding in front of short sequences, with the biases as its keys and values, instead of "
        "masking it.",
    ),
    Key(
        "attention",
        one_of("softmax", "none"),
        "softmax",
        "(str) Causal self-attention ('softmax'), or 'none': only kernel_branch mixes the positions.",
    ),
    Key(
        "kernel_structure",
        part_rules()["kernel_structure"],
        IDENTITY,
        f"(str) <U>-<L>, each one of {list(STRUCTURES)}.",
    ),
    Key(
        "kernel_bandwidth",
        or_none(integer(1)),
        None,
        "(int) Number of lags of a banded structure, 1 (the diagonal) to MAX_ITEM_LIST_LENGTH; required by these.",
    ),
    Key("kernel_decays", integer(1, 2**16), 4, "(int) Number of decays of 'exponential' and 'time_decay'; at least 1."),
    Key(
        "kernel_rank",
        integer(1),
        8,
        "(int) Rank of 'lowrank', 1 to MAX_ITEM_LIST_LENGTH; number of basis filters of 'time_variant', at least 1.",
    ),
    Key(
        "kernel_width_penalty",
        NOT_NEGATIVE,
        0.0,
        "(float) Weight of a penalty in the loss: the mean share of lags that 'adaptive_band' keeps; at least 0.",
    ),
    Key(
        "kernel_sharing",
        Rule(
            lambda value: (
                value in KERNEL_SHARINGS
                or (
                    isinstance(value, dict)
                    and set(value) == {"u", "l"}
                    and all(v in KERNEL_SHARINGS for v in value.values())
                )
            ),
            f"{', '.join(KERNEL_SHARINGS)}, or a mapping of both u and l to one of these",
        ),
        "per_layer",
        "(str or dict) 'per_layer', 'shared' by all layers, 'shared_if_full' (if the structure is full), or one for U "
        "and one for L: {u: per_layer, l: shared}.",
    ),
    Key(
        "kernel_groups",
        one_of(1, "n_heads", "hidden_size"),
        1,
        "(int or str) Independent kernels over the channels: 1 (the paper), 'n_heads' or 'hidden_size'.",
    ),
    Key(
        "kernel_normalization",
        one_of(*NORMALIZATIONS),
        "none",
        "(str) Divide each kernel by the norm of its weights in the forward pass ('frobenius', the paper), or 'none'.",
    ),
    Key(
        "kernel_normalization_eps",
        NOT_NEGATIVE,
        0.0,
        "(float) Added to the norm by which a kernel is divided; at least 0.",
    ),
    Key(
        "kernel_first_tap_start",
        one_of(*TAP_STARTS),
        "identity",
        "(str) Initial weight at lag 0 of L's Toeplitz structures: 1 ('identity'), or small as at all other lags "
        "('half_normal').",
    ),
    Key(
        "kernel_branch",
        part_rules()["kernel_branch"],
        "toeplitz",
        "(str) A kernel M parallel to the attention, which adds γ ⊙ dropout(M h), h the block's normalized input; ~ "
        "(the paper) or one of "
        f"{list(STRUCTURES)}.",
        before=None,
    ),
    Key(
        "kernel_branch_groups",
        one_of(1, "n_heads", "hidden_size"),
        "hidden_size",
        "(int or str) Independent kernels of the branch over the channels: 1, 'n_heads' or 'hidden_size'.",
    ),
    Key(
        "position_alignment",
        one_of(*ALIGNMENTS),
        "end",
        "(str) Position of short sequences: newest item at the last ('end') or oldest at the first position ('start').",
    ),
    Key(
        "position_encoding",
        part_rules()["position_encoding"],
        "auto",
        f"(list or str) Encodings beside the kernels, any of {list(ENCODINGS)}; 'auto': 'rope' with a kernel_branch "
        "and no kernels in the attention (kernel_structure identity-identity), otherwise none.",
        before=[],
    ),
    Key(
        "all_absolute_sharing",
        one_of(*_SHARINGS),
        "per_layer",
        "(str) Embeddings of 'all_absolute': one per layer ('per_layer') or one for all layers ('shared').",
    ),
    Key("rope_base", POSITIVE, 10000.0, "(float) The longest wavelength of 'rope' is 2π times this; above 0."),
    Key(
        "cape_positions",
        or_none(integer(1, 2**20)),
        None,
        "(int) Number of learned positions of 'cape', at least 1; ~: MAX_ITEM_LIST_LENGTH.",
    ),
    Key(
        "alibi_slope_exponent",
        POSITIVE,
        8.0,
        "(float) E in the slopes 2^(-E i / n_heads) of 'alibi', i = 1 … n_heads; above 0.",
    ),
    Key("t5_buckets", integer(2, 2**20), 32, "(int) Number of distance buckets of 't5_bias'; at least 2."),
    Key(
        "t5_max_distance",
        integer(1),
        128,
        "(int) Distance from which 't5_bias' uses the last bucket; above t5_buckets / 2.",
    ),
    Key(
        "train_objective",
        one_of("sequence", "augmented"),
        "sequence",
        "(str) A loss at every position ('sequence') or at the end of each prefix, as in RecBole ('augmented').",
    ),
    Key(
        "window_stride",
        or_none(integer(1)),
        None,
        "(int) Objective sequence: stride between windows of a long history, 1 to MAX_ITEM_LIST_LENGTH; ~: "
        "MAX_ITEM_LIST_LENGTH, without overlap.",
    ),
    Key(
        "last_window_only",
        BOOL,
        False,
        "(bool) Objective sequence: train only on the newest window of a long history, a user's last "
        "MAX_ITEM_LIST_LENGTH targets.",
    ),
    Key(
        "length_bucketing",
        BOOL,
        True,
        "(bool) Compute the short and long sequences of a batch separately, with less padding.",
    ),
    Key(
        "loss_type",
        part_rules()["loss_type"],
        "CE",
        "(str) Loss: cross-entropy over all items ('CE'), or with sampled negatives 'SSM', 'TSSM', 'BCE', 'gBCE' or "
        "'BPR'.",
    ),
    Key(
        "loss_chunk_size",
        or_none(Rule(lambda value: value == "auto" or (is_int(value) and value >= 1), "auto or a positive integer")),
        "auto",
        "(int or str) CE: number of targets whose scores are in memory at a time, 'auto', or ~ for all.",
        resumable="recorded",
        sizes=("training",),
    ),
    Key(
        "gbce_calibration",
        Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
        0.75,
        "(float) gBCE: calibration t, from 0 (BCE) to 1 (calibrated probabilities).",
    ),
    Key(
        "train_neg_sample_args",
        or_none(Rule(is_negatives, NEGATIVES)),
        None,
        "(dict) Negatives of a sampled loss, {distribution: uniform or popularity, sample_num: k, alpha: 1.0}; ~: "
        "uniform, 1 (BCE, BPR) or 256 (SSM, TSSM, gBCE).",
    ),
    *RECIPE_MODEL_KEYS,
    *TIME_MODEL_KEYS,
    Key(
        "save_kernel_every",
        or_none(integer(1)),
        None,
        "(int) Save the kernels every this many epochs in the folder of the checkpoint, for 'recbole-posattn inspect'; "
        "~: never.",
        changes_result=False,
        scope=Scope.EXECUTION,
    ),
)

MODEL_RULES = rules_of((*MODEL_KEYS, *SINGLE_MODEL_KEYS))
