"""The rules of our models' keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError
from recbole_posattn.nn.backbone import ACTIVATIONS, BACKBONES
from recbole_posattn.nn.encodings.build import ENCODINGS, check_encodings
from recbole_posattn.nn.kernels.base import ALIGNMENTS, NORMALIZATIONS
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, STRUCTURES, parse_kernel_structure
from recbole_posattn.nn.losses.build import LOSSES, SAMPLED_LOSSES
from recbole_posattn.nn.losses.negatives import DISTRIBUTIONS
from recbole_posattn.settings.rules import (
    BOOL,
    LARGEST,
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


def _is_structure(value: Any) -> bool:
    try:
        parse_kernel_structure(value)
    except (TypeError, ValueError, AttributeError):
        return False
    return True


def is_negatives(value: Any) -> bool:
    """Whether it describes the negatives of a sampled loss."""
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


# The keys of RecBole's train_neg_sample_args; no loss here chooses among candidates by the model, as the last two do.
NEGATIVES_OF_RECBOLE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
NEGATIVES = (
    f"a dict of distribution ({' or '.join(DISTRIBUTIONS)}), sample_num (a positive integer) and alpha (a number of at "
    "least 0)"
)
_SHARINGS = ("per_layer", "shared")

# Settings of the models registered here; each model has those that its property file names.
MODEL_RULES = {
    "n_layers": integer(1, 2**10),
    "n_heads": integer(1, 2**16),
    "hidden_size": integer(1, 2**16),
    "inner_size": or_none(integer(1, 2**20)),
    "hidden_dropout_prob": PROBABILITY,
    "attn_dropout_prob": PROBABILITY,
    "hidden_act": one_of(*ACTIVATIONS),
    "layer_norm_eps": POSITIVE,
    "initializer_range": POSITIVE,
    "backbone": one_of(*BACKBONES),
    "kernel_structure": Rule(_is_structure, f"<U>-<L>, each one of {', '.join(STRUCTURES)}"),
    "kernel_bandwidth": or_none(integer(1)),
    "kernel_decays": integer(1, 2**16),
    "kernel_rank": integer(1),
    "kernel_width_penalty": NOT_NEGATIVE,
    "kernel_sharing": Rule(
        lambda value: (
            value in _SHARINGS
            or (isinstance(value, dict) and set(value) == {"u", "l"} and all(v in _SHARINGS for v in value.values()))
        ),
        f"{' or '.join(_SHARINGS)}, or a mapping of both u and l to one of these",
    ),
    "kernel_groups": one_of(1, "n_heads", "hidden_size"),
    "kernel_normalization": one_of(*NORMALIZATIONS),
    "position_alignment": one_of(*ALIGNMENTS),
    "position_encoding": Rule(
        lambda value: isinstance(value, list) and all(isinstance(name, str) and name in ENCODINGS for name in value),
        f"a list of any of {', '.join(ENCODINGS)}",
    ),
    "all_absolute_sharing": one_of(*_SHARINGS),
    "rope_base": POSITIVE,
    "cape_positions": or_none(integer(1, 2**20)),
    "alibi_slope_exponent": POSITIVE,
    "t5_buckets": integer(2, 2**20),
    "t5_max_distance": integer(1),
    "train_objective": one_of("sequence", "augmented"),
    "window_stride": or_none(integer(1)),
    "length_bucketing": BOOL,
    "loss_type": one_of(*LOSSES),
    "loss_chunk_size": or_none(
        Rule(lambda value: value == "auto" or (is_int(value) and value >= 1), "auto or a positive integer")
    ),
    "gbce_calibration": Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
    "train_neg_sample_args": or_none(Rule(is_negatives, NEGATIVES)),
    "save_kernel_every": or_none(integer(1)),
}


def check_model_keys(model: str, given: Iterable[str], defaults: Iterable[str]) -> None:
    """Refuse a key of our models that this one does not have: it would change nothing, and the run would mislead.

    Args:
        model: Name of the model.
        given: Keys from outside.
        defaults: Keys that the property files name for this model.

    Raises:
        SettingError: Naming the key and the model that has it.
    """
    for key in sorted(set(given) & MODEL_RULES.keys() - set(defaults)):
        raise SettingError(
            f"key {key!r} is none of {model}'s, whose kernel and encoding are fixed; PosKernelSASRec has it, and "
            "every encoding under position_encoding."
        )


def check_combinations(settings: Mapping[str, Any]) -> None:
    """Refuse values that are allowed one by one but not together.

    Raises:
        SettingError: Naming the keys.
    """
    hidden_size, n_heads = settings["hidden_size"], settings["n_heads"]
    if hidden_size % n_heads:
        raise SettingError(
            f"hidden_size must be a multiple of n_heads; got hidden_size {hidden_size}, n_heads {n_heads}."
        )
    if "kernel_structure" in settings:
        _check_kernels(settings)
    _check_encodings(settings)
    _check_loss(settings)
    stride, max_length = settings["window_stride"], settings["MAX_ITEM_LIST_LENGTH"]
    if stride is not None and stride > max_length:
        raise SettingError(f"window_stride must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {stride}.")
    if stride is not None and settings["train_objective"] == "augmented":
        raise SettingError(
            f"window_stride {stride} is for train_objective 'sequence'; got 'augmented', which has no windows."
        )
    if settings["train_objective"] == "sequence" and settings.get("transform") is not None:
        raise SettingError(
            f"transform {settings['transform']!r} rewrites single histories; it needs train_objective 'augmented', "
            "got 'sequence'."
        )


def _check_loss(settings: Mapping[str, Any]) -> None:
    loss_type, negatives = settings["loss_type"], settings.get("train_neg_sample_args")
    if loss_type not in SAMPLED_LOSSES and negatives is not None:
        raise SettingError(
            f"train_neg_sample_args must be ~ with loss_type {loss_type}, which takes all items for negatives; "
            f"got {negatives!r}."
        )
    if loss_type in SAMPLED_LOSSES and settings["loss_chunk_size"] != "auto":
        raise SettingError(
            f"loss_chunk_size {settings['loss_chunk_size']} is for loss_type CE; got {loss_type}, which scores the "
            "sampled items only."
        )
    if loss_type == "gBCE" and negatives is not None and negatives.get("distribution", "uniform") != "uniform":
        raise SettingError(
            f"loss_type gBCE is calibrated for uniform negatives; got train_neg_sample_args {negatives!r}. Take SSM "
            "for popular ones."
        )


def resolved_negatives(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a sampled loss draws: ``train_neg_sample_args`` as far as given, else defaults; ``None`` for CE."""
    if settings["loss_type"] not in SAMPLED_LOSSES:
        return None
    given = settings.get("train_neg_sample_args") or {}
    sample_num = 256 if settings["loss_type"] in ("SSM", "gBCE") else 1
    return {"distribution": "uniform", "sample_num": sample_num, "alpha": 1.0, **given}


def _check_kernels(settings: Mapping[str, Any]) -> None:
    structure, bandwidth = settings["kernel_structure"], settings["kernel_bandwidth"]
    parts = set(parse_kernel_structure(structure))
    banded = parts & set(BANDED_STRUCTURES)
    max_length = settings["MAX_ITEM_LIST_LENGTH"]
    if banded and bandwidth is None:
        raise SettingError(
            f"kernel_structure {structure!r} needs kernel_bandwidth, the lags a banded kernel keeps "
            f"(1 to {max_length}); got none."
        )
    if bandwidth is not None and not banded:
        raise SettingError(
            f"kernel_bandwidth {bandwidth} is for banded structures; got kernel_structure {structure!r}."
        )
    for key, size in {
        "kernel_bandwidth": bandwidth,
        "kernel_rank": settings["kernel_rank"] if "lowrank" in parts else None,
    }.items():
        if size is not None and size > max_length:
            raise SettingError(f"{key} must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {size}.")
    if settings["kernel_width_penalty"] and "adaptive_band" not in parts:
        raise SettingError(
            f"kernel_width_penalty {settings['kernel_width_penalty']} is for the structure adaptive_band; "
            f"got kernel_structure {structure!r}."
        )


def _check_encodings(settings: Mapping[str, Any]) -> None:
    encodings = settings.get("position_encoding")  # a model with one fixed encoding has the keys of that one instead
    try:
        check_encodings(encodings or [])
    except ValueError as error:
        raise SettingError(f"{error}.") from None
    hidden_size, n_heads = settings["hidden_size"], settings["n_heads"]
    rotary = "rope_base" in settings if encodings is None else "rope" in encodings
    if rotary and hidden_size // n_heads % 2:
        raise SettingError(
            f"rope rotates channels in pairs: hidden_size / n_heads must be even; got {hidden_size} / {n_heads}."
        )
    if "t5_buckets" in settings and settings["t5_max_distance"] <= settings["t5_buckets"] // 2:
        raise SettingError(
            "t5_max_distance must be above t5_buckets / 2; "
            f"got t5_max_distance {settings['t5_max_distance']}, t5_buckets {settings['t5_buckets']}."
        )
