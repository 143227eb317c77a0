"""Checks of the keys of :mod:`recbole_posattn.settings.recipe_keys` that need more than one key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import ModelType

from recbole_posattn.data.earlier_items import history_use
from recbole_posattn.errors import SettingError, typed
from recbole_posattn.nn.losses.build import LOSSES_WITHOUT_HISTORIES, SAMPLED_LOSSES
from recbole_posattn.settings.recipe_keys import (
    DECAYING_SCHEDULERS,
    LR_SCHEDULERS,
    RECIPE_MODEL_KEYS,
    RECIPE_RUN_KEYS,
)

# Keys that have an effect with some values of another key only.
_ONLY_WITH = {
    "score_temperature": ("score", ("cosine",)),
    "lr_warmup_epochs": ("lr_scheduler", LR_SCHEDULERS),
    "lr_decay_epochs": ("lr_scheduler", DECAYING_SCHEDULERS),
    "lr_end_factor": ("lr_scheduler", DECAYING_SCHEDULERS),
    "ema_decay": ("weight_averaging", ("ema",)),
    "averaging_start_epoch": ("weight_averaging", ("ema", "swa")),
}
_DEFAULTS = {key.name: key.default for key in (*RECIPE_MODEL_KEYS, *RECIPE_RUN_KEYS)}


def check_recipe(model: str, settings: Mapping[str, Any], given: Container[str]) -> None:
    """Refuse values that would have no effect, or cannot have one with this model.

    Args:
        model: Its name.
        settings: With RecBole's defaults filled in.
        given: The keys of this model that were given: a default that has no effect is not refused.

    Raises:
        SettingError: Naming the key.
    """
    for key, (other, values) in _ONLY_WITH.items():
        value = settings.get(key, _DEFAULTS[key])
        if key in given and value != _DEFAULTS[key] and settings.get(other) not in values:
            raise SettingError(f"{key} {value} is for {other} {', '.join(values)}; got {typed(settings.get(other))}.")
    if "label_smoothing" in given and settings["label_smoothing"] and settings.get("loss_type") in SAMPLED_LOSSES:
        raise SettingError(
            f"label_smoothing {settings['label_smoothing']} is for loss_type CE, with probabilities of all items; "
            f"got {settings['loss_type']}."
        )
    if "loss_precision" in given and settings["loss_precision"] == "bfloat16":
        _check_bfloat16(settings)
    for key in ("lr_scheduler", "weight_averaging"):
        if settings[key] is not None and settings["MODEL_TYPE"] in (ModelType.TRADITIONAL, ModelType.DECISIONTREE):
            raise SettingError(f"{key} must be ~ with {model}, which is not trained by gradients.")
    warmup, decay = settings["lr_warmup_epochs"], resolved_decay_epochs(settings)
    if decay is not None and warmup >= decay:
        raise SettingError(
            f"lr_warmup_epochs must be below lr_decay_epochs (by default {epochs_key(settings)}), which is {decay}; "
            f"got {warmup}."
        )
    _check_histories(settings)
    key, start = epochs_key(settings), settings["averaging_start_epoch"]
    if settings["weight_averaging"] is not None and start >= settings[key] > 0:
        raise SettingError(f"averaging_start_epoch must be below {key}, which is {settings[key]}; got {start}.")


def resolved_histories(settings: Mapping[str, Any]) -> dict[str, bool | str]:
    """The resolved values of ``history_partition`` and ``train_mask_history``, if a model has these keys.

    ``auto`` stays where the data decide.
    """
    use = history_use(defaultdict(lambda: None, settings), settings.get("loss_type") not in LOSSES_WITHOUT_HISTORIES)
    resolved = {"history_partition": use.partitions, "train_mask_history": use.masks}
    return {key: value for key, value in resolved.items() if key in settings}


def _check_bfloat16(settings: Mapping[str, Any]) -> None:
    if settings.get("loss_type") in SAMPLED_LOSSES:
        raise SettingError(f"loss_precision bfloat16 is for loss_type CE; got {settings['loss_type']}.")
    if settings.get("loss_chunk_size", "auto") is None:
        raise SettingError("loss_precision bfloat16 needs chunks: leave loss_chunk_size ~ out.")


def _check_histories(settings: Mapping[str, Any]) -> None:
    """Refuse ``history_partition`` and ``train_mask_history`` where they make no sense."""
    resolved = resolved_histories(settings)
    both = " and ".join(f"{key} {settings.get(key)}" for key in ("history_partition", "train_mask_history"))
    if len(resolved) == 2 and all(resolved.values()):
        raise SettingError(
            f"{both}, with mask_history {typed(settings['mask_history'])}, make no sense together: with the history "
            "left out of the loss, the target is the only history item there, so the bias of history items grows "
            "without bound. Turn one of the two off."
        )
    if settings.get("train_mask_history") is True and not settings["lazy_prefixes"]:
        raise SettingError("train_mask_history True needs lazy_prefixes: True; without it no histories are kept.")
    if any(resolved.values()) and settings.get("loss_type") in LOSSES_WITHOUT_HISTORIES:
        raise SettingError(
            f"{both}: loss_type {settings['loss_type']} does not take histories, the fourth argument of its forward; "
            "turn both off, or see ItemLoss.forward."
        )


def resolved_decay_epochs(settings: Mapping[str, Any]) -> int | None:
    """The epochs in which the learning rate falls.

    By default those of the run, as given at its start: a resumed run with more ``epochs`` keeps its schedule.
    """
    given: int | None = settings["lr_decay_epochs"]
    if given is None and settings["lr_scheduler"] in DECAYING_SCHEDULERS:
        return max(1, settings[epochs_key(settings)])
    return given


def epochs_key(settings: Mapping[str, Any]) -> str:
    """The key that limits the epochs: ``pretrain_epochs`` if a model such as S3Rec is pretrained, else ``epochs``."""
    pretrains = settings.get("train_stage") not in (None, "finetune") and "pretrain_epochs" in settings
    return "pretrain_epochs" if pretrains else "epochs"
