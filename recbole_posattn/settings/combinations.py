"""Combinations of our models' settings that make no sense together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError
from recbole_posattn.nn.encodings.build import check_encodings
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, parse_kernel_structure
from recbole_posattn.nn.losses.build import SAMPLED_LOSSES
from recbole_posattn.settings.model_keys import MODEL_RULES


def check_model_keys(model: str, given: Iterable[str], defaults: Iterable[str]) -> None:
    """Refuse a key of our models that this model does not have: it would have no effect.

    Args:
        model: Name of the model.
        given: The keys that were given.
        defaults: Keys that the property files name for this model.

    Raises:
        SettingError: Naming the key and the model that has it.
    """
    for key in sorted(set(given) & MODEL_RULES.keys() - set(defaults)):
        raise SettingError(
            f"{model} has no key {key!r}: its kernel and encoding are fixed; PosKernelSASRec has the key, and "
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
    _check_block(settings)
    stride, max_length = settings["window_stride"], settings["MAX_ITEM_LIST_LENGTH"]
    if stride is not None and stride > max_length:
        raise SettingError(f"window_stride must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {stride}.")
    if stride is not None and settings["train_objective"] == "augmented":
        raise SettingError(
            f"window_stride {stride} is for train_objective 'sequence'; got 'augmented', which has no windows."
        )
    _check_last_window(settings)
    if settings["train_objective"] == "sequence" and settings.get("transform") is not None:
        raise SettingError(
            f"transform {settings['transform']!r} rewrites single histories; it needs train_objective 'augmented', "
            "got 'sequence'."
        )


def _check_last_window(settings: Mapping[str, Any]) -> None:
    if not settings.get("last_window_only"):
        return
    stride, objective = settings["window_stride"], settings["train_objective"]
    if objective != "sequence":
        raise SettingError(f"last_window_only is for train_objective 'sequence'; got {objective!r}, without windows.")
    if stride is not None:
        raise SettingError(
            f"last_window_only leaves one window of a history; got window_stride {stride}: leave it out."
        )


def _check_block(settings: Mapping[str, Any]) -> None:
    if settings.get("attend_padding") and settings["position_alignment"] != "end":
        raise SettingError(
            "attend_padding needs position_alignment 'end': padding behind the items is never attended; "
            f"got {settings['position_alignment']!r}."
        )
    if settings.get("output_projection") and settings["backbone"] != "sasrec":
        raise SettingError(
            f"output_projection is for backbone 'sasrec'; got {settings['backbone']!r}, which always has a projection."
        )


def _check_loss(settings: Mapping[str, Any]) -> None:
    loss_type, negatives = settings["loss_type"], settings.get("train_neg_sample_args")
    if loss_type not in SAMPLED_LOSSES and negatives is not None:
        raise SettingError(
            f"train_neg_sample_args must be ~ with loss_type {loss_type}, which uses all items as negatives; "
            f"got {negatives!r}."
        )
    if loss_type in SAMPLED_LOSSES and settings["loss_chunk_size"] != "auto":
        raise SettingError(
            f"loss_chunk_size {settings['loss_chunk_size']} is for loss_type CE; got {loss_type}, which scores the "
            "sampled items only."
        )
    if loss_type == "gBCE" and negatives is not None and negatives.get("distribution", "uniform") != "uniform":
        raise SettingError(
            f"loss_type gBCE is calibrated for uniform negatives; got train_neg_sample_args {negatives!r}. Use SSM "
            "for popular ones."
        )


def resolved_negatives(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The negatives of a sampled loss: ``train_neg_sample_args`` completed with defaults; ``None`` for CE."""
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
    encodings = settings.get("position_encoding")  # None if the model has a fixed encoding, and the keys of that one
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
