"""The kernels, attention and positional bias of a trained model, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from recbole_posattn.analysis.attended import require_positions, times_of
from recbole_posattn.analysis.attention_maps import attention_maps, positional_bias
from recbole_posattn.analysis.kernel_history import kernel_evolution
from recbole_posattn.analysis.kernel_tables import kernel_reach, kernel_table, lag_profiles
from recbole_posattn.analysis.switches import attentions_of, positional_parts
from recbole_posattn.analysis.time_gaps import attention_by_gap, weights_by_gap
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.reporting.names import MAIN_METRICS, metric_title, setting_text, without_duplicate_metrics
from recbole_posattn.training.checkpoint import read_checkpoint
from recbole_posattn.training.load import Loaded, load
from recbole_posattn.training.result import RESULT_NAME, tested_epoch
from recbole_posattn.training.run_folder import checkpoint_file

# Settings that describe the positional parts of a model.
_POSITIONAL_KEYS = (
    *("attention", "kernel_structure", "kernel_bandwidth", "kernel_sharing", "kernel_groups", "kernel_normalization"),
    *("kernel_branch", "kernel_branch_groups", "position_encoding", "position_alignment", "attend_padding"),
    *("bsarec_alpha", "bsarec_cutoff", "filter_padding"),
)
_SIZES = {"n_layers": "layers", "n_heads": "heads", "hidden_size": "channels"}


class Inspection(NamedTuple):
    """The result of :func:`inspect_checkpoint`; every table is tidy, one row per value.

    Attributes:
        checkpoint: The checkpoint file.
        label: Name in figures.
        model: Name of the model.
        parts: Its positional parts, see :func:`recbole_posattn.analysis.switches.positional_parts`.
        facts: Names and values that describe the model.
        kernels: See :func:`recbole_posattn.analysis.kernel_tables.kernel_table`.
        lags: See :func:`recbole_posattn.analysis.kernel_tables.lag_profiles`.
        reach: See :func:`recbole_posattn.analysis.kernel_tables.kernel_reach`.
        attention: See :func:`recbole_posattn.analysis.attention_maps.attention_maps`.
        positions: See :func:`recbole_posattn.analysis.attention_maps.positional_bias`.
        gap_weights: See :func:`recbole_posattn.analysis.time_gaps.weights_by_gap`.
        gaps: See :func:`recbole_posattn.analysis.time_gaps.attention_by_gap`.
        evolution: See :func:`recbole_posattn.analysis.kernel_history.kernel_evolution`.
        partition: See :func:`partition_table`.
    """

    checkpoint: Path
    label: str
    model: str
    parts: list[str]
    facts: list[tuple[str, str]]
    kernels: pd.DataFrame
    lags: pd.DataFrame
    reach: pd.DataFrame
    attention: pd.DataFrame
    positions: pd.DataFrame
    gap_weights: pd.DataFrame
    gaps: pd.DataFrame
    evolution: pd.DataFrame
    partition: pd.DataFrame

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        names = ("kernels", "lags", "reach", "attention", "positions", "gap_weights", "gaps", "evolution", "partition")
        return {name: getattr(self, name) for name in names}


def inspect_checkpoint(checkpoint: str | Path, max_users: int = 2000, **options: Any) -> Inspection:
    """Inspect the positional parts of a trained model.

    Attention and positional bias are measured on the histories of validation targets.

    Args:
        checkpoint: A file written by :func:`recbole_posattn.run`, or the folder of a run, of one of our models.
        max_users: Maximum number of histories to measure on; of more, evenly spaced ones are taken.
        options: Keyword arguments of :func:`recbole_posattn.load`.

    Raises:
        SettingError: If ``max_users`` is below 1.
        CheckpointError: If the checkpoint cannot be read, or its model is not one of this package's.
        DataError: If the data set cannot be read, or no validation target has a history of two items.
    """
    if max_users < 1:
        raise SettingError(f"max_users must be a positive integer; got {max_users}.")
    checkpoint = checkpoint_file(checkpoint)
    loaded = load(checkpoint, **options)
    config, model = loaded.config, loaded.model
    if not isinstance(model, SASRecBase):
        raise CheckpointError(
            f"checkpoint {checkpoint}: {config['model']} is not a model of this package; only these can be inspected"
        )
    require_positions(loaded.config, checkpoint)
    rows = loaded.valid_data._dataset.inter_feat
    lengths = rows[model.ITEM_SEQ_LEN]
    read = torch.nonzero(lengths > 1).flatten()
    if not len(read):
        raise DataError(f"data set {config['dataset']!r}: no validation target has a history of two items")
    read = read[:: -(-len(read) // max_users)]
    items, lengths, times = rows[model.ITEM_SEQ][read], lengths[read], times_of(model, rows)
    times = None if times is None else times[read]

    parts = positional_parts(model)
    lags = lag_profiles(model)
    kept = kernel_evolution(model, Path(checkpoint).parent) if isinstance(model, PosKernelSASRec) else lags.head(0)
    given = [(key, config[key]) for key in _POSITIONAL_KEYS if key in config and config[key] is not None]
    return Inspection(
        checkpoint=Path(checkpoint),
        label=config["model"],
        model=config["model"],
        parts=parts,
        facts=[
            ("checkpoint", str(checkpoint)),
            *_run_facts(Path(checkpoint), loaded, options.get("allow_unsafe_checkpoint", False)),
            ("parts that can be switched off", ", ".join(parts) or "none"),
            ("size", _sizes(config)),
            *((key, setting_text(value)) for key, value in given),
            _measured(model, config["model"], len(read)),
        ],
        kernels=kernel_table(model),
        lags=lags,
        reach=kernel_reach(lags),
        attention=attention_maps(model, items, lengths, parts, times),
        positions=positional_bias(model, items, lengths, parts, times),
        gap_weights=weights_by_gap(model),
        gaps=attention_by_gap(model, items, lengths, parts, times),
        evolution=kept,
        partition=partition_table(model),
    )


def partition_table(model: SASRecBase) -> pd.DataFrame:
    """What ``history_partition`` has learned; empty for a model without.

    Returns:
        Columns ``first_lag`` and ``last_lag`` (items of the history by how many others are newer, 0 for the newest one)
        and ``bias``: what is added to the scores of these items, less what is added to those not in the history.
    """
    buckets = [] if model.history_partition is None else model.history_partition.by_bucket()
    return pd.DataFrame(buckets, columns=["first_lag", "last_lag", "bias"])


def _measured(model: SASRecBase, name: str, n_histories: int) -> tuple[str, str]:
    if attentions_of(model):
        return "histories measured on", f"{n_histories:,} of validation targets"
    return "attention maps", f"none: {name} has no softmax attention that can be taken apart"


def _sizes(config: Any) -> str:
    named = [
        f"{config[key]} {name.removesuffix('s') if config[key] == 1 else name}"
        for key, name in _SIZES.items()
        if key in config
    ]
    return ", ".join(named)


def _run_facts(checkpoint: Path, loaded: Loaded, allow_unsafe_checkpoint: bool) -> list[tuple[str, str]]:
    """The data, the seed and the epoch of a checkpoint, and its metrics if the run's result is beside it."""
    config, dataset = loaded.config, loaded.dataset
    epoch = int(read_checkpoint(checkpoint, allow_unsafe_checkpoint=allow_unsafe_checkpoint)["epoch"]) + 1
    sizes = f"{dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items, {dataset.inter_num:,} interactions"
    result = _result(checkpoint.parent / RESULT_NAME)
    of_epoch = {"best_epoch", "epochs"} <= result.keys() and epoch == tested_epoch(result)
    metrics = [
        (name, _metrics(result[key], config["valid_metric"]))
        for name, key in (("validation", "best_valid_result"), ("test", "test_result"))
        if of_epoch and result.get(key)
    ]
    kind = "last" if result.get("best_epoch") == -1 else "best"
    return [
        ("data set", config["dataset"]),
        ("data", sizes),
        ("seed", str(config["seed"])),
        ("epoch", f"{epoch}, the {kind} of {result['epochs']}" if of_epoch else str(epoch)),
        *metrics,
    ]


def _result(file: Path) -> dict[str, Any]:
    """The result of the run that wrote a checkpoint; empty if it is elsewhere or damaged."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}


def _metrics(scores: Mapping[str, float | None], watched: str) -> str:
    """The watched metric and the main ones at its cut-off, in one line."""
    cutoff = watched.partition("@")[2]
    main = [f"{name}@{cutoff}" for name in MAIN_METRICS]
    chosen = list(dict.fromkeys(name for name in (watched.lower(), *main) if name in scores))
    chosen = without_duplicate_metrics(chosen, lambda one, other: scores[one] == scores[other])
    return ", ".join(f"{metric_title(name)} {score:.4f}" for name in chosen if (score := scores[name]) is not None)
