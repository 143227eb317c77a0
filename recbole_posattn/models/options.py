"""The options of our models' parts, from the settings of a run.

Shape keys: n items.
"""

from __future__ import annotations

import logging
from typing import Any

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from torch import Tensor

from recbole_posattn.data.earlier_items import LEAST_DENSITY, density, history_use, leaves_out_history
from recbole_posattn.nn.backbone import BlockOptions
from recbole_posattn.nn.encodings.base import EncodingOptions
from recbole_posattn.nn.kernels.base import Alignment
from recbole_posattn.nn.losses.base import LossOptions
from recbole_posattn.nn.losses.build import LOSSES_WITHOUT_HISTORIES


def encoding_options(config: Config) -> EncodingOptions:
    """The options of the encodings; keys that are not in the model's YAML file keep their defaults."""
    found = given(config, *(set(EncodingOptions._fields) - {"max_length", "alignment", "median_gap"}))
    return EncodingOptions(max_length=config["MAX_ITEM_LIST_LENGTH"], alignment=position_alignment(config), **found)


def block_options(config: Config) -> BlockOptions:
    """The sizes and options of a block."""
    return BlockOptions(
        config["hidden_size"],
        inner_size=inner_size(config),
        hidden_act=config["hidden_act"] or "relu",  # LiGR's block has its own, and no key for it
        dropout=config["hidden_dropout_prob"],
        layer_norm_eps=config["layer_norm_eps"],
        **given(config, "output_projection", "attend_padding"),
    )


def position_alignment(config: Config) -> Alignment:
    """Where short sequences stand; a model without the key has the newest item at the last position."""
    return config["position_alignment"] or "end"


def inner_size(config: Config) -> int | None:
    """The inner channels of the feed-forward networks; ``4x`` is four times ``hidden_size``."""
    return 4 * config["hidden_size"] if config["inner_size"] == "4x" else config["inner_size"]


def given(config: Config, *keys: str) -> dict[str, Any]:
    """The settings of those of some keys that the model's YAML file has."""
    return {key: config[key] for key in keys if key in config}


def loss_options(config: Config) -> LossOptions:
    """The options of the loss; ``loss_negatives`` holds the given ``train_neg_sample_args``."""
    negatives = config["loss_negatives"] or {}
    return LossOptions(
        loss_type=config["loss_type"],
        chunk_size=config["loss_chunk_size"],
        n_negatives=negatives.get("sample_num", 1),
        distribution=negatives.get("distribution", "uniform"),
        alpha=negatives.get("alpha", 1.0),
        calibration=config["gbce_calibration"],
        label_smoothing=config["label_smoothing"] or 0.0,
        precision=config["loss_precision"] or "float32",
    )


def item_counts(dataset: Dataset) -> Tensor:
    """How often each item is a target in a split; int64, shape (n,)."""
    return torch.bincount(dataset.inter_feat[dataset.iid_field], minlength=dataset.item_num)


def loss_history_use(config: Config, train: Dataset) -> tuple[bool, bool]:
    """Whether the scores of history items get a bias, and whether these items leave the loss; see ``HistoryUse``."""
    use = history_use(config, config["loss_type"] not in LOSSES_WITHOUT_HISTORIES)
    leaves_out = leaves_out_history(use.masks, train)
    if use.masks == "auto":
        logging.getLogger().info(
            f"train_mask_history auto: {'on' if leaves_out else 'off'}, since the training data have "
            f"{density(train):.2g} targets per user and item (on from {LEAST_DENSITY})"
        )
    return use.partitions, leaves_out
