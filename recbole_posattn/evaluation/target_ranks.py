"""Results by user: the rank of every held-out target, from which metrics and paired tests are computed.

Shape keys: n held-out targets.
"""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from torch import Tensor

from recbole_posattn.data.tokens import as_tokens

# What a target contributes to each metric, given its rank from 1; with one target per list, Recall equals Hit.
RANK_METRICS = {
    "hit": lambda rank: np.ones_like(rank),
    "recall": lambda rank: np.ones_like(rank),
    "mrr": lambda rank: 1 / rank,
    "ndcg": lambda rank: 1 / np.log2(rank + 1),
}


def user_results(dataset: Dataset, ranks: Tensor) -> pd.DataFrame:
    """The results of a full ranking, with one row per target.

    Args:
        dataset: The part of the data that was evaluated; our data sets may know the histories of the targets.
        ranks: A row (user, item, rank) for each target, see ``BlockwiseCollector.ranks``; int64, shape (n, 3).

    Returns:
        A table of n rows with the columns ``user`` and ``item`` (tokens of the data set) and ``rank`` (1 for the best;
        missing if the item was not ranked because the masked history contains it). If histories are known, also
        ``history_length`` (number of interactions before the target), ``seen`` (whether the target's item is among
        them) and ``item_count`` (how often it occurs in training).
    """
    user, item, rank = ranks.numpy().T
    table = pd.DataFrame(
        {
            "user": as_tokens(dataset.id2token(dataset.uid_field, user)),
            "item": as_tokens(dataset.id2token(dataset.iid_field, item)),
            "rank": pd.array(rank, dtype="Int64"),
        }
    )
    table.loc[rank == 0, "rank"] = pd.NA
    if getattr(dataset, "histories", None) is not None:
        table["history_length"] = dataset.histories.length.numpy()
        table["seen"] = dataset.histories.contain_target().numpy()
        table["item_count"] = dataset.training_counts[item].numpy()
    return table


def is_rank_metric(metric: str) -> bool:
    """Whether a metric, such as ``ndcg@10``, is a mean over targets of one of :data:`RANK_METRICS`."""
    return metric.partition("@")[0] in RANK_METRICS


def metric_by_target(results: pd.DataFrame, metric: str) -> np.ndarray:
    """What each target contributes to a metric such as ``NDCG@10``; the metric is the mean over all targets.

    Args:
        results: See :func:`user_results`.
        metric: A name of :data:`RANK_METRICS`, in upper or lower case, with a cut-off.

    Returns:
        The contributions; float64, shape (n,).

    Raises:
        ValueError: If the metric is not of this form.
    """
    name, at, k = metric.lower().partition("@")
    if name not in RANK_METRICS or not at or not k.isdecimal():
        raise ValueError(
            f"metric must be one of {', '.join(RANK_METRICS)} with a cut-off, like ndcg@10; got {metric!r}"
        )
    rank = results["rank"].to_numpy(dtype=np.float64, na_value=np.inf)
    return np.where(rank <= int(k), RANK_METRICS[name](rank), 0.0)
