"""Metrics that RecBole does not have, under its own registration: a name in the key ``metrics``."""

from __future__ import annotations

from typing import ClassVar

from recbole_posattn.compat.lookups import add_metric

import numpy as np
from recbole.evaluator.collector import DataStruct
from recbole.evaluator.metrics import ItemCoverage


class COV(ItemCoverage):
    """COV@K: distinct items among all lists of the K best, over the items of the catalogue (arXiv 2602.21052).

    RecBole's ``ItemCoverage`` counts its padding item as a part of the catalogue, which makes it smaller by the factor
    n / (n + 1), and the items that fill up the list of a user to whom fewer than K are left.
    """

    metric_need: ClassVar[list[str]] = ["rec.recommended", "data.num_items"]

    def calculate_metric(self, dataobject: DataStruct) -> dict[str, float]:
        """The coverage at each K."""
        items, n_items = dataobject.get("rec.recommended").numpy(), dataobject.get("data.num_items")
        covered = {k: np.count_nonzero(np.unique(items[:, :k])) / (n_items - 1) for k in self.topk}
        return {f"cov@{k}": round(share, self.decimal_place) for k, share in covered.items()}


def register_metrics() -> None:
    """Let RecBole find the metrics of this module."""
    add_metric(COV)
