"""A warning that names the given keys which a run does not read."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Any

from recbole_posattn.compat import source_of

from recbole.config import Config
from recbole.utils import ModelType

from recbole_posattn.errors import shown
from recbole_posattn.nn.encodings.build import READS_TIME as ENCODINGS_OF_TIME
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.settings.combinations import WHOLE_SEQUENCE_KEYS
from recbole_posattn.settings.encodings import IDENTITY
from recbole_posattn.settings.keys import DERIVED_KEYS, KEYS, KEYS_OF_EVERY_MODEL
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.origins import origin, used_names
from recbole_posattn.settings.plugins import has_installed_plugins
from recbole_posattn.settings.properties import shipped_keys

# Keys that RecBole reads besides those of its property files.
_READ_BY_RECBOLE = {"tail_ratio", "token_num_threshold"}

# What people type for a key that has another name here: the first one that the run reads.
_OTHER_NAMES = {
    **dict.fromkeys(("lr", "learningrate", "step_size"), ("learning_rate",)),
    **dict.fromkeys(("dropout", "dropout_rate", "dropout_prob"), ("hidden_dropout_prob", "dropout_prob")),
    **dict.fromkeys(("attn_dropout", "attention_dropout"), ("attn_dropout_prob",)),
    **dict.fromkeys(("embedding_size", "embedding_dim", "emb_size", "emb_dim"), ("hidden_size", "embedding_size")),
    **dict.fromkeys(("hidden_dim", "hidden_units", "d_model", "dim"), ("hidden_size", "embedding_size")),
    "hidden_size": ("embedding_size",),
    **dict.fromkeys(("num_layers", "num_blocks", "layers"), ("n_layers", "num_layers")),
    **dict.fromkeys(("num_heads", "heads"), ("n_heads", "num_heads")),
    **dict.fromkeys(("max_len", "maxlen", "max_length", "max_seq_len", "max_seq_length"), ("MAX_ITEM_LIST_LENGTH",)),
    **dict.fromkeys(("batch_size", "batch"), ("train_batch_size",)),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs", "epoch"), ("epochs",)),
    **dict.fromkeys(("patience", "early_stop", "early_stopping"), ("stopping_step",)),
    **dict.fromkeys(("optimizer", "optim"), ("learner",)),
    **dict.fromkeys(("wd", "l2", "l2_reg"), ("weight_decay",)),
}


# Keys that only one part of a model reads: the keys that select this part, and the values that do.
_STRUCTURES = ("kernel_structure", "kernel_branch")
_READ_WITH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kernel_decays": (_STRUCTURES, ("exponential", "time_decay")),
    "kernel_rank": (_STRUCTURES, ("lowrank", "time_variant")),
    "all_absolute_sharing": (("position_encoding",), ("all_absolute",)),
    "alibi_slope_exponent": (("position_encoding",), ("alibi",)),
    "cape_positions": (("position_encoding",), ("cape",)),
    "rope_base": (("position_encoding",), ("rope",)),
    **dict.fromkeys(("t5_buckets", "t5_max_distance"), (("position_encoding",), ("t5_bias",))),
    "time_rope_base": (("position_encoding",), ("time_rope",)),
    "gbce_calibration": (("loss_type",), ("gBCE",)),
    "initializer_range": (("initializer",), ("normal",)),
    "feed_forward_bias": (("backbone",), ("sasrec", "recbole")),
    "attn_dropout_prob": (("attention",), ("softmax",)),
    "hidden_act": (("backbone",), ("sasrec", "recbole")),
    "kernel_normalization_eps": (("kernel_normalization",), ("frobenius",)),
}

# Parts that are off if no times are read
_PARTS_OF_TIME = ENCODINGS_OF_TIME | STRUCTURES_OF_TIME

# The names under which models look up the fields that RecBole's transforms add.
_FIELDS_OF_TRANSFORMS = ("MASK_ITEM_SEQ", "CROP_ITEM_SEQ", "REORDER_ITEM_SEQ", "INVERSE_ITEM_SEQ")

# Keys of the kernels U and L, which the branch does not read
_OF_KERNELS = {"kernel_normalization", "kernel_normalization_eps", "kernel_first_tap_start"}


def warn_of_keys_without_effect(config: Config, settings: Mapping[str, Any]) -> None:
    """Log one warning for the given keys that the run does not read, with the nearest key that it does read.

    Further warnings name keys of a part that the model does not have, such as the base of RoPE without RoPE. The keys
    are not refused, since settings shared by all rows of a leaderboard may apply to some rows only. Keys that the
    package does not know are left to models and plugins of the user, which may read them.

    Args:
        config: With the keys that were given, and the defaults.
        settings: The resolved ones, with all plugins of the run.
    """
    model_class, given = config.model_class, config.external_config_dict
    _warn_of_keys_of_absent_parts(given, settings)
    _warn_of_keys_of_absent_kernels(given, settings)
    _warn_of_keys_of_unset_keys(given, settings, config.internal_config_dict)
    transform = settings.get("transform") if "transform" in given else None
    if transform is not None and not any(_is_named_in(model_class, field) for field in _FIELDS_OF_TRANSFORMS):
        logging.getLogger().warning(
            f"transform {transform!r} has no effect: {config.model} does not read the fields that it adds."
        )
    read = {*config.internal_config_dict, *KEYS_OF_EVERY_MODEL}
    unread = set(given) - read - _READ_BY_RECBOLE - DERIVED_KEYS
    if model_class.type == ModelType.SEQUENTIAL:
        unread -= {*WHOLE_SEQUENCE_KEYS}
    if unread:  # RecBole may read those of other data sets and types of models
        unread -= shipped_keys("dataset/*.yaml", "quick_start_config/*.yaml")
    if _has_parts_of_the_user(model_class, settings):
        unread &= MODEL_RULES.keys()
    unread = {key for key in unread if not _is_named_in(model_class, key)}
    if unread:
        names = (f"{key}{_hint(key, read - DERIVED_KEYS)}" for key in sorted(unread, key=str))
        logging.getLogger().warning(
            f"settings without effect on {config.model}, which does not have them: {', '.join(names)}"
        )


def warn_of_direction(given: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Log a warning if ``valid_metric_bigger`` contradicts ``valid_metric``, which alone decides it in RecBole."""
    bigger = settings["valid_metric_bigger"]
    if given.get("valid_metric_bigger", bigger) != bigger:
        logging.getLogger().warning(
            f"valid_metric_bigger {given['valid_metric_bigger']} has no effect: it is {bigger} for valid_metric "
            f"{settings['valid_metric']}."
        )


def _warn_of_keys_of_unset_keys(given: Collection[str], settings: Mapping[str, Any], own: Collection[str]) -> None:
    if "window_stride" in given and settings["window_stride"] is not None and settings.get("train_objective") is None:
        logging.getLogger().warning(
            "window_stride has no effect: it is for train_objective sequence, which is not set."
        )
    if "weight_decay_on" in own and settings["weight_decay_on"] != "all" and not settings["weight_decay"]:
        logging.getLogger().warning("weight_decay_on has no effect: weight_decay is 0.")


def _warn_of_keys_of_absent_parts(given: Collection[str], settings: Mapping[str, Any]) -> None:
    for key, (others, values) in _READ_WITH.items():
        is_changed = key in given and settings.get(key) != KEYS[key].default
        if is_changed and all(other in settings for other in others) and not _has_part(settings, others, values):
            got = " and ".join(f"{other} {shown(settings[other])}" for other in others)
            got += ", and no times are read" if _PARTS_OF_TIME & {*values} and not settings.get("reads_time") else ""
            logging.getLogger().warning(
                f"{key} has no effect: it is for {' or '.join(others)} {' or '.join(values)}; got {got}."
            )


def _warn_of_keys_of_absent_kernels(given: Collection[str], settings: Mapping[str, Any]) -> None:
    if "kernel_branch" not in settings:
        return
    if settings["attention"] == "none":
        unread, why = _OF_KERNELS, "attention none has no kernels U and L"
        if "n_heads" in given and settings["kernel_branch_groups"] != "n_heads":
            logging.getLogger().warning("n_heads has no effect: attention none has no heads.")
    elif settings["kernel_structure"] == IDENTITY:
        unread, why = {"kernel_groups", "kernel_sharing", *_OF_KERNELS}, f"kernel_structure {IDENTITY} has no kernels"
    else:
        return
    for key in sorted(unread & set(given)):
        logging.getLogger().warning(f"{key} has no effect: {why}.")


def _has_part(settings: Mapping[str, Any], keys: Collection[str], values: Collection[str]) -> bool:
    """Whether one of the keys has one of the values, perhaps among others as in ``toeplitz-lowrank``."""
    found: set[Any] = set()
    for key in keys:
        value = settings[key]
        found.update(value if isinstance(value, list) else str(value).split("-"))
    if not settings.get("reads_time"):
        found -= _PARTS_OF_TIME
    return bool(found & set(values))


def _has_parts_of_the_user(model_class: type, settings: Mapping[str, Any]) -> bool:
    """Whether code of the user takes part in the run, which may read any key."""
    package = model_class.__module__.partition(".")[0]
    return (
        package not in ("recbole", "recbole_posattn")
        or bool(settings["plugins"])
        or has_installed_plugins()
        or any(origin(key, name) is not None for key, name in used_names(settings))
    )


def _is_named_in(model_class: type, key: str) -> bool:
    """Whether the source of a model or of its bases has the key in quotes: some keys are in no property file."""
    for each in model_class.__mro__:
        if each.__module__.startswith(("torch.", "builtins")):
            continue
        source = source_of(each)
        if f'"{key}"' in source or f"'{key}'" in source:
            return True
    return False


def _hint(key: str, read: Collection[str]) -> str:
    nearest = [name for name in _OTHER_NAMES.get(str(key).lower(), ()) if name in read]
    if not nearest:
        by_lower = {str(name).lower(): name for name in read}
        close = difflib.get_close_matches(str(key).lower(), by_lower, n=1, cutoff=0.75)
        nearest = [by_lower[name] for name in close]
    return f" (did you mean {nearest[0]}?)" if nearest else ""
