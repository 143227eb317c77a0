"""Results by user: the rank of every held-out target, from which metrics and tests follow.

Shape keys: n held-out targets.
"""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from torch import Tensor

from recbole_posattn.data.tokens import as_tokens

# A target's contribution to each metric, by its rank; with one target, Recall is Hit.
RANK_METRICS = {
    "hit": lambda rank: np.ones_like(rank),
    "recall": lambda rank: np.ones_like(rank),
    "mrr": lambda rank: 1 / rank,
    "ndcg": lambda rank: 1 / np.log2(rank + 1),
}


def user_results(dataset: Dataset, ranks: Tensor) -> pd.DataFrame:
    """The results of a full ranking, target by target.

    Args:
        dataset: The part of the data that was evaluated; of ours, it may know the targets' histories.
        ranks: A row (user, item, rank) for each target, see ``BlockwiseCollector.ranks``; int64, shape (n, 3).

    Returns:
        Columns ``user`` and ``item`` (tokens of the data set) and ``rank`` (1 for the best; missing where the item took
        no part because it was in the masked history). Where histories are known also ``history_length`` (interactions
        before the target), ``seen`` (whether the target's item is among them) and ``item_count`` (how often it occurs
        in training).
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


def metric_by_target(results: pd.DataFrame, metric: str) -> np.ndarray:
    """What each target contributes to a metric of the form ``NDCG@10``, whose mean over the targets is the metric.

    Args:
        results: See :func:`user_results`.
        metric: A name of :data:`RANK_METRICS`, in any case, with a cut-off.

    Returns:
        float64, shape (n,).

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
