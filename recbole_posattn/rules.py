"""What the settings may be: a rule for each key, and the combinations that make no sense."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from recbole.utils import EvaluatorType, ModelType

from recbole_posattn.data.splits import time_quantiles
from recbole_posattn.errors import SettingError, did_you_mean
from recbole_posattn.model.backbone import ACTIVATIONS, BACKBONES
from recbole_posattn.model.losses import DISTRIBUTIONS, LOSSES, SAMPLED_LOSSES
from recbole_posattn.position.encodings import ENCODINGS, check_encodings
from recbole_posattn.position.kernels import (
    ALIGNMENTS,
    BANDED_STRUCTURES,
    NORMALIZATIONS,
    STRUCTURES,
    parse_kernel_structure,
)


class Rule(NamedTuple):
    """What a key may be: a test of the value, and the words for it."""

    holds: Callable[[Any], bool]
    allowed: str


def _integer(minimum: int) -> Rule:
    words = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
    return Rule(lambda value: _is_int(value) and value >= minimum, words)


def _one_of(*choices: Any) -> Rule:
    def holds(value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in choices)  # True is not 1

    return Rule(holds, "one of " + ", ".join(map(str, choices)))


def _or_none(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.allowed}, or ~")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_structure(value: Any) -> bool:
    try:
        parse_kernel_structure(value)
    except ValueError:
        return False
    return True


def _is_negatives(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= NEGATIVES_OF_RECBOLE.keys():
        return False
    given = {**NEGATIVES_OF_RECBOLE, **value}
    return (
        given["distribution"] in DISTRIBUTIONS
        and _is_int(given["sample_num"])
        and given["sample_num"] >= 1
        and _is_number(given["alpha"])
        and given["alpha"] >= 0
        and not given["dynamic"]
    )


# The keys of RecBole's train_neg_sample_args; no loss here chooses among candidates by the model, as the last two do.
NEGATIVES_OF_RECBOLE = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
_NEGATIVES = (
    f"a dict of distribution ({' or '.join(DISTRIBUTIONS)}), sample_num (a positive integer) and alpha (a number of at "
    "least 0)"
)
_SHARINGS = ("per_layer", "shared")
_BOOL = _one_of(True, False)
_PROBABILITY = Rule(lambda value: _is_number(value) and 0 <= value < 1, "a number in [0, 1)")
_POSITIVE = Rule(lambda value: _is_number(value) and value > 0, "a number above 0")
_NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "a number of at least 0")

# Settings of every run, whatever the model.
RUN_RULES = {
    "epochs": _integer(0),
    "eval_step": _integer(0),
    "stopping_step": _integer(0),
    "seed": _integer(0),
    "train_batch_size": _integer(1),
    "eval_batch_size": _integer(1),
    "MAX_ITEM_LIST_LENGTH": _integer(1),
    "learning_rate": _POSITIVE,
    "lazy_prefixes": _BOOL,
    "enable_amp": _BOOL,
    "torch_compile": _BOOL,
    "mask_history": _or_none(_one_of("none", "all", "except_target")),
    "drop_unseen_targets": _BOOL,
    "save_last_every": _or_none(_integer(1)),
}

# Settings of the models registered here; each model has those that its property file names.
MODEL_RULES = {
    "n_layers": _integer(1),
    "n_heads": _integer(1),
    "hidden_size": _integer(1),
    "inner_size": _or_none(_integer(1)),
    "hidden_dropout_prob": _PROBABILITY,
    "attn_dropout_prob": _PROBABILITY,
    "hidden_act": _one_of(*ACTIVATIONS),
    "layer_norm_eps": _POSITIVE,
    "initializer_range": _POSITIVE,
    "backbone": _one_of(*BACKBONES),
    "kernel_structure": Rule(_is_structure, f"<U>-<L>, each one of {', '.join(STRUCTURES)}"),
    "kernel_bandwidth": _or_none(_integer(1)),
    "kernel_decays": _integer(1),
    "kernel_rank": _integer(1),
    "kernel_width_penalty": _NOT_NEGATIVE,
    "kernel_sharing": Rule(
        lambda value: (
            value in _SHARINGS
            or (isinstance(value, dict) and set(value) == {"u", "l"} and all(v in _SHARINGS for v in value.values()))
        ),
        f"{' or '.join(_SHARINGS)}, or a mapping of both u and l to one of these",
    ),
    "kernel_groups": _one_of(1, "n_heads", "hidden_size"),
    "kernel_normalization": _one_of(*NORMALIZATIONS),
    "position_alignment": _one_of(*ALIGNMENTS),
    "position_encoding": Rule(
        lambda value: isinstance(value, list) and all(name in ENCODINGS for name in value),
        f"a list of any of {', '.join(ENCODINGS)}",
    ),
    "all_absolute_sharing": _one_of(*_SHARINGS),
    "rope_base": _POSITIVE,
    "cape_positions": _or_none(_integer(1)),
    "alibi_slope_exponent": _POSITIVE,
    "t5_buckets": _integer(2),
    "t5_max_distance": _integer(1),
    "train_objective": _one_of("sequence", "augmented"),
    "window_stride": _or_none(_integer(1)),
    "length_bucketing": _BOOL,
    "loss_type": _one_of(*LOSSES),
    "loss_chunk_size": _or_none(
        Rule(lambda value: value == "auto" or (_is_int(value) and value >= 1), "auto or a positive integer")
    ),
    "gbce_calibration": Rule(lambda value: _is_number(value) and 0 <= value <= 1, "a number in [0, 1]"),
    "train_neg_sample_args": _or_none(Rule(_is_negatives, _NEGATIVES)),
    "save_kernel_every": _or_none(_integer(1)),
}


def check_rules(settings: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raise :class:`SettingError` for the first key whose value its rule does not allow."""
    for key, rule in rules.items():
        if key in settings and not rule.holds(settings[key]):
            hint = ""
            if key == "kernel_structure":
                hint = did_you_mean(settings[key], map("-".join, itertools.product(STRUCTURES, repeat=2)))
            raise SettingError(f"{key} must be {rule.allowed}; got {settings[key]!r}.{hint}")


def check_caches(settings: Mapping[str, Any]) -> None:
    """Refuse RecBole's caches of prepared data, which are pickles: reading one runs whatever is in it.

    Raises:
        SettingError: Naming the key.
    """
    for key in ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path"):
        if settings.get(key):
            raise SettingError(
                f"{key} must be left out; got {settings[key]!r}. RecBole's caches are pickles, which run code when "
                "they are read; preparing the data anew is fast here."
            )


def check_validation_metric(settings: Mapping[str, Any]) -> None:
    """Refuse a ``valid_metric`` that the evaluation will not compute; RecBole fails on it after the first epoch."""
    metrics, topk = settings["metrics"], settings["topk"]
    if settings["eval_type"] == EvaluatorType.VALUE:
        computed = metrics
    else:
        cut_off = [metric for metric in metrics if metric.lower() != "gauc"]  # which looks at the whole ranking
        computed = [f"{metric}@{k}" for metric in cut_off for k in topk]
        computed += [metric for metric in metrics if metric not in cut_off]
    if settings["valid_metric"].lower() not in map(str.lower, computed):
        raise SettingError(
            f"valid_metric must be one of {', '.join(computed)} (keys metrics and topk); "
            f"got {settings['valid_metric']!r}."
        )


def check_evaluation(settings: Mapping[str, Any], knows_histories: bool) -> None:
    """Refuse an evaluation of single targets and their histories that cannot be had.

    Args:
        settings: With RecBole's defaults filled in.
        knows_histories: Whether the model's data set can tell histories.

    Raises:
        SettingError: Naming the keys.
    """
    evaluation, mask = settings["eval_args"], settings["mask_history"]
    quantiles = time_quantiles(evaluation)
    if quantiles is not None and not _are_quantiles(quantiles):
        raise SettingError(
            f"eval_args: the split TQ must be two ascending quantiles of time in (0, 1), like [0.95, 0.97]; "
            f"got {quantiles!r}."
        )
    if mask is None:
        for key, given in {
            "eval_args with the split TQ": quantiles,
            "drop_unseen_targets": settings["drop_unseen_targets"],
        }.items():
            if given:
                raise SettingError(f"{key} needs mask_history, one of none, all, except_target; got none of them.")
        return
    why = None
    if not knows_histories:
        why = f"{settings['model']} reads a data set that tells no histories"
    elif settings["MODEL_TYPE"] == ModelType.SEQUENTIAL and not settings["lazy_prefixes"]:
        why = "without lazy_prefixes no histories are kept"
    elif settings["benchmark_filename"] is not None:
        why = "files that are split already (benchmark_filename) hold no whole histories"
    elif evaluation["order"] != "TO":
        why = f"eval_args must have the order TO, not {evaluation['order']}"
    elif set(evaluation["mode"].values()) != {"full"}:
        why = f"eval_args must have the mode full, not {evaluation['mode']}"
    elif mask == "all" and "gauc" in map(str.lower, settings["metrics"]):
        why = "GAUC has no value for a target that is left out with its history; take except_target"
    if why is not None:
        raise SettingError(f"mask_history {mask!r} cannot be heeded: {why}.")


def _are_quantiles(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_is_number, value)):
        return False
    return 0 < value[0] < value[1] < 1


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
