"""Combinations of our models' settings that make no sense together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType

from recbole_posattn.errors import SettingError, typed
from recbole_posattn.nn.encodings.build import AT_INPUT, check_encodings
from recbole_posattn.nn.kernels.structures import BANDED_STRUCTURES, parse_kernel_structure
from recbole_posattn.nn.kernels.structures import READS_TIME as STRUCTURES_OF_TIME
from recbole_posattn.nn.losses.build import SAMPLED_LOSSES
from recbole_posattn.settings.model_keys import MODEL_RULES
from recbole_posattn.settings.rules import check_rules
from recbole_posattn.settings.single_model_keys import BSAREC_CUTOFF, SINGLE_MODEL_KEYS

# RecBole's models with outputs at all positions, each of which depends on no later item, and which the model takes by
# gather_indexes at the very end: they can be trained on whole sequences. S3Rec is one in its last stage.
WHOLE_SEQUENCE_MODELS = ("FDSA", "GRU4Rec", "GRU4RecF", "GRU4RecKG", "S3Rec", "SASRec", "SASRecF")
WHOLE_SEQUENCE_KEYS = ("train_objective", "window_stride")


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
        if key in {single.name for single in SINGLE_MODEL_KEYS}:
            raise SettingError(
                f"{model} has no key {key!r}: it belongs to other models, see docs/models.md; leave it out."
            )
        if not key.startswith(("kernel_", "position_encoding")):
            raise SettingError(f"{model} has no key {key!r}; leave it out.")
        raise SettingError(
            f"{model} has no key {key!r}: its kernel and encoding are fixed; PosKernelSASRec has the key, and "
            "every encoding under position_encoding."
        )


def check_combinations(settings: Mapping[str, Any]) -> None:
    """Refuse values that are allowed one by one but not together.

    Raises:
        SettingError: Naming the keys.
    """
    hidden_size, n_heads = settings["hidden_size"], settings.get("n_heads", 1)
    if hidden_size % n_heads:
        raise SettingError(
            f"hidden_size must be a multiple of n_heads; got hidden_size {hidden_size}, n_heads {n_heads}."
        )
    if "kernel_structure" in settings:
        _check_kernels(settings)
    if settings.get("bsarec_cutoff", 0) > BSAREC_CUTOFF:  # the default is right for any length
        _check_lags(settings, "bsarec_cutoff")
    _check_encodings(settings)
    _check_loss(settings)
    _check_block(settings)
    _check_windows(settings)


def reads_padded_histories(config: Config) -> bool:
    """Whether a model reads histories padded by RecBole, and does not cut them itself as ours do."""
    return config["MODEL_TYPE"] == ModelType.SEQUENTIAL and "length_bucketing" not in config.internal_config_dict


def trains_on_whole_sequences(config: Config) -> bool:
    """Whether a RecBole model, which has no such key, is trained with a loss at every position."""
    return config["train_objective"] == "sequence" and "train_objective" not in config.internal_config_dict


def check_whole_sequences(model: str, model_class: type[AbstractRecommender], settings: Mapping[str, Any]) -> None:
    """Check ``train_objective`` and ``window_stride`` for a RecBole model, which has neither by default.

    Args:
        model: Its name.
        model_class: Its class.
        settings: With RecBole's defaults filled in.

    Raises:
        SettingError: If the model cannot be trained on whole sequences, or other settings do not allow it.
    """
    objective = settings.get("train_objective")
    if model_class.type != ModelType.SEQUENTIAL or objective is None:
        return
    values = {"window_stride": None, **settings}
    check_rules(values, {key: MODEL_RULES[key] for key in WHOLE_SEQUENCE_KEYS})
    if objective == "sequence":
        _check_outputs(model, model_class, settings)
    _check_windows(values)


def _check_outputs(model: str, model_class: type[AbstractRecommender], settings: Mapping[str, Any]) -> None:
    if not any(base.__name__ in WHOLE_SEQUENCE_MODELS for base in model_class.__mro__):
        raise SettingError(
            f"train_objective 'sequence' is not possible with {model}, which has no causal output at each position; of "
            f"RecBole's models, {', '.join(WHOLE_SEQUENCE_MODELS)} have one. Leave the key out."
        )
    if settings.get("loss_type") != "CE":
        raise SettingError(
            f"train_objective 'sequence' needs loss_type CE with {model}, which otherwise draws one negative per row; "
            f"got {typed(settings.get('loss_type'))}."
        )
    if settings["torch_compile"]:
        raise SettingError(f"torch_compile is not possible with train_objective 'sequence' and {model}; leave it out.")
    if settings.get("train_stage") == "pretrain":
        raise SettingError(f"train_objective 'sequence' needs train_stage finetune with {model}; got pretrain.")


def _check_windows(settings: Mapping[str, Any]) -> None:
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
            f"transform {settings['transform']!r} rewrites single histories, which train_objective 'sequence' does not "
            "have; leave it out."
        )


def _check_last_window(settings: Mapping[str, Any]) -> None:
    if not settings.get("last_window_only"):
        return
    stride, objective = settings["window_stride"], settings["train_objective"]
    if objective != "sequence":
        raise SettingError(
            f"last_window_only is for train_objective 'sequence'; got {objective!r}, without windows: set "
            "last_window_only False."
        )
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
            f"output_projection is for backbone 'sasrec'; got {settings['backbone']!r}, which always has a "
            "projection: set output_projection False."
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
            f"loss_chunk_size {settings['loss_chunk_size']} is for loss_type CE; got {loss_type}, which scores only "
            "the sampled items."
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
    sample_num = 256 if settings["loss_type"] in ("SSM", "TSSM", "gBCE") else 1
    return {"distribution": "uniform", "sample_num": sample_num, "alpha": 1.0, **given}


def check_attention(settings: Mapping[str, Any], given: Iterable[str]) -> None:
    """Refuse a model that mixes no positions, and keys that were given for an attention or a branch that is not there.

    Args:
        settings: With defaults filled in.
        given: The keys that were given.

    Raises:
        SettingError: Naming the keys.
    """
    if "kernel_branch" not in settings:
        return
    branch, given = settings["kernel_branch"], set(given)
    if branch is None and "kernel_branch_groups" in given:
        raise SettingError(
            f"kernel_branch_groups {settings['kernel_branch_groups']} is for a branch; got kernel_branch ~. Name its "
            "structure, such as --kernel_branch=toeplitz."
        )
    if settings["attention"] != "none":
        return
    nothing = _why_it_mixes_nothing(branch, settings)
    if nothing is not None:
        raise SettingError(
            "attention 'none' needs kernel_branch, which mixes the positions instead, such as "
            f"--kernel_branch=toeplitz; got {nothing}."
        )
    for key in ("kernel_structure", "kernel_groups", "kernel_sharing"):
        if key in given:
            raise SettingError(
                f"{key} {settings[key]!r} is for the kernels U and L of the attention; got attention 'none'. Leave it "
                "out; the branch has kernel_branch and kernel_branch_groups."
            )
    for key in ("output_projection", "attend_padding"):
        if settings[key]:
            raise SettingError(f"{key} {settings[key]} is for the attention; got attention 'none': set {key} False.")


def _why_it_mixes_nothing(branch: str | None, settings: Mapping[str, Any]) -> str | None:
    """The settings with which a branch mixes no positions; ``None`` if it mixes them."""
    if branch in (None, "identity"):
        return branch or "~"
    if branch in BANDED_STRUCTURES and settings["kernel_bandwidth"] == 1:
        return f"{branch} with kernel_bandwidth 1"
    if branch in STRUCTURES_OF_TIME and settings["read_times"] is False:
        return f"{branch} with read_times False"
    return None


def _check_kernels(settings: Mapping[str, Any]) -> None:
    bandwidth, branch = settings["kernel_bandwidth"], settings["kernel_branch"]
    parts_of: dict[str, tuple[str, ...]] = {}
    if settings["attention"] != "none":
        parts_of["kernel_structure"] = parse_kernel_structure(settings["kernel_structure"])
    if branch is not None:
        parts_of["kernel_branch"] = (branch,)
    parts = {part for of_key in parts_of.values() for part in of_key}
    structures = " and ".join(f"{key} {settings[key]!r}" for key in parts_of)
    banded = [f"{key} {settings[key]!r}" for key, of_key in parts_of.items() if {*of_key} & {*BANDED_STRUCTURES}]
    max_length = settings["MAX_ITEM_LIST_LENGTH"]
    if banded and bandwidth is None:
        raise SettingError(
            f"{' and '.join(banded)} need{'s' if len(banded) == 1 else ''} kernel_bandwidth, the lags a banded "
            f"kernel keeps (1 to {max_length}); got ~."
        )
    if bandwidth is not None and not banded:
        raise SettingError(f"kernel_bandwidth {bandwidth} is for banded structures; got {structures}.")
    if bandwidth is not None:
        _check_lags(settings, "kernel_bandwidth")
    if "lowrank" in parts:
        _check_lags(settings, "kernel_rank")
    if settings["kernel_width_penalty"] and "adaptive_band" not in parts:
        raise SettingError(
            f"kernel_width_penalty {settings['kernel_width_penalty']} is for the structure adaptive_band; "
            f"got {structures}."
        )


def _check_lags(settings: Mapping[str, Any], key: str) -> None:
    max_length = settings["MAX_ITEM_LIST_LENGTH"]
    if settings[key] > max_length:
        raise SettingError(f"{key} must be at most MAX_ITEM_LIST_LENGTH, which is {max_length}; got {settings[key]}.")


def _check_encodings(settings: Mapping[str, Any]) -> None:
    encodings = settings.get("position_encoding")  # None if the model has a fixed encoding, and the keys of that one
    try:
        check_encodings(encodings or [])
    except ValueError as error:
        raise SettingError(f"{error}.") from None
    inside = [name for name in encodings or [] if name not in AT_INPUT]
    if inside and settings["attention"] == "none":
        raise SettingError(
            f"position_encoding {inside} acts inside the attention; got attention 'none', with which it must be any of "
            f"{', '.join(sorted(AT_INPUT))}."
        )
    _check_positions_of_time_bias(settings, encodings)
    hidden_size, n_heads = settings["hidden_size"], settings.get("n_heads", 1)
    turning = next((name for name in ("rope", "time_rope") if name in (encodings or [])), None)
    rotary = "rope_base" in settings if encodings is None else turning is not None
    if rotary and hidden_size // n_heads % 2:
        raise SettingError(
            f"{turning or 'rope'} rotates channels in pairs: hidden_size / n_heads must be even; got {hidden_size} / "
            f"{n_heads}. Change one of them{'' if encodings is None else ', or name other encodings'}."
        )
    if "t5_buckets" in settings and settings["t5_max_distance"] <= settings["t5_buckets"] // 2:
        raise SettingError(
            "t5_max_distance must be above t5_buckets / 2; "
            f"got t5_max_distance {settings['t5_max_distance']}, t5_buckets {settings['t5_buckets']}."
        )


def _check_positions_of_time_bias(settings: Mapping[str, Any], encodings: list[str] | None) -> None:
    if encodings is None or not settings.get("time_bias_positions"):
        return
    if "time_bias" not in encodings:
        raise SettingError(f"time_bias_positions True is for position_encoding time_bias; got {encodings}.")
    others = [name for name in ("alibi", "t5_bias") if name in encodings]
    if others:
        raise SettingError(
            f"time_bias_positions True and position_encoding {others[0]} both add a bias per distance to the logits, "
            "of which only the sum matters; leave one of them out."
        )
