"""The kernels, attention and positional bias of a trained model, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from recbole_posattn.analysis.attended import times_of
from recbole_posattn.analysis.attention_maps import attention_maps, positional_bias
from recbole_posattn.analysis.kernel_history import kernel_evolution
from recbole_posattn.analysis.kernel_tables import kernel_reach, kernel_table, lag_profiles
from recbole_posattn.analysis.switches import positional_parts
from recbole_posattn.analysis.time_gaps import attention_by_gap, weights_by_gap
from recbole_posattn.errors import CheckpointError, DataError, SettingError
from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.training.load import load

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

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        names = ("kernels", "lags", "reach", "attention", "positions", "gap_weights", "gaps", "evolution")
        return {name: getattr(self, name) for name in names}


def inspect_checkpoint(checkpoint: str | Path, max_users: int = 2000, **options: Any) -> Inspection:
    """Inspect the positional parts of a trained model.

    Attention and positional bias are measured on the histories of validation targets.

    Args:
        checkpoint: A file written by :func:`recbole_posattn.run`, of one of our models.
        max_users: Maximum number of histories to measure on; of more, evenly spaced ones are taken.
        options: Of :func:`recbole_posattn.load`.

    Raises:
        SettingError: If ``max_users`` is below 1.
        CheckpointError: If the checkpoint cannot be read, or its model is not one of this package's.
        DataError: If the data set cannot be read, or no validation target has a history of two items.
    """
    if max_users < 1:
        raise SettingError(f"max_users must be a positive integer; got {max_users}.")
    loaded = load(checkpoint, **options)
    config, model = loaded.config, loaded.model
    if not isinstance(model, SASRecBase):
        raise CheckpointError(
            f"checkpoint {checkpoint}: {config['model']} is not one of this package's models, the "
            "only ones that can be inspected"
        )
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
    sizes = [f"{config[key]} {name}" for key, name in _SIZES.items() if key in config]
    return Inspection(
        checkpoint=Path(checkpoint),
        label=config["model"],
        model=config["model"],
        parts=parts,
        facts=[
            ("checkpoint", str(checkpoint)),
            ("data set", config["dataset"]),
            ("positional parts", ", ".join(parts) or "none"),
            ("size", ", ".join(sizes)),
            *((key, str(value)) for key, value in given),
            ("histories measured on", f"{len(read):,} of validation targets"),
        ],
        kernels=kernel_table(model),
        lags=lags,
        reach=kernel_reach(lags),
        attention=attention_maps(model, items, lengths, parts, times),
        positions=positional_bias(model, items, lengths, parts, times),
        gap_weights=weights_by_gap(model),
        gaps=attention_by_gap(model, items, lengths, parts, times),
        evolution=kept,
    )
