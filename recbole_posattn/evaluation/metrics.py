"""Metrics that RecBole does not have; the key ``metrics`` names them like RecBole's."""

from __future__ import annotations

from typing import ClassVar

from recbole_posattn.compat.lookups import add_metric

import numpy as np
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import ItemCoverage


class COV(ItemCoverage):
    """COV@K: share of the catalogue's items that occur in at least one user's K best items (arXiv 2602.21052).

    RecBole's ``ItemCoverage`` differs in two ways. It counts the padding item as part of the catalogue of n items,
    which makes the result smaller by the factor n / (n + 1). And if fewer than K items are left to rank for a user, it
    counts the masked items that fill up the list.
    """

    metric_need: ClassVar[list[str]] = ["rec.recommended", "data.num_items"]

    def calculate_metric(self, dataobject: DataStruct) -> dict[str, float]:
        """The coverage at each K of the key ``topk``."""
        items, n_items = dataobject.get("rec.recommended").numpy(), dataobject.get("data.num_items")
        covered = {k: np.count_nonzero(np.unique(items[:, :k])) / (n_items - 1) for k in self.topk}
        return {f"cov@{k}": round(share, self.decimal_place) for k, share in covered.items()}


def register_metrics() -> None:
    """Let RecBole find the metrics of this module."""
    add_metric(COV)
