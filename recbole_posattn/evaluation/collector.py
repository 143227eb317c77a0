"""Collects what RecBole's metrics need from each batch's scores, from all processes, without further matrices.

Shape keys: b users (or sequences) of a batch, n items, k the longest list (``topk``), p pairs (user, positive item).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_posattn.distributed import gather_rows

# Comparisons of a positive item's score with all others that are held at a time, pairs times items.
_COMPARISONS = 2**24


class BlockwiseCollector(Collector):
    """RecBole's ``Collector`` with equal results.

    RecBole marks the positive items in a second matrix of users times items, looks for the best items twice, and sorts
    all scores where a metric needs ranks. Here the best items are compared with the positive ones, and ranks are
    counted. With many processes each collects its own users, and all get the results of all.

    Attributes:
        keeps_ranks: Whether to collect, in a full ranking, the rank of each positive item as well.
        ranks: Of the last evaluation for which they were kept, a row (user, item, rank) for each positive item in the
            order of the data, see :func:`list_rank`; int64, shape (all pairs, 3).
    """

    def __init__(self, config) -> None:
        super().__init__(config)
        self._batches: dict[str, list[Tensor]] = defaultdict(list)
        self.keeps_ranks = False
        self.ranks: Tensor | None = None

    def data_collect(self, train_data: AbstractDataLoader) -> None:
        """What metrics need of the training data; RecBole's loader of knowledge-aware models has no ``dataset``."""
        super().data_collect(SimpleNamespace(dataset=train_data._dataset))

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect from a batch.

        Args:
            scores_tensor: Scores, −∞ where an item does not take part; shape (b, n), or (b,) for value metrics.
            interaction: The batch.
            positive_u: Row of each positive item; shape (p,).
            positive_i: The positive items; shape (p,).
        """
        need = self.register.need
        if need("rec.items") or need("rec.recommended") or need("rec.topk") or self.keeps_ranks:
            best_scores, best = torch.topk(scores_tensor, max(self.topk), dim=-1)
        if need("rec.items"):
            self._batches["rec.items"].append(best)
        if need("rec.recommended"):  # of COV: lists that end where no item is left, padded with the padding item
            self._batches["rec.recommended"].append(best.masked_fill(best_scores == -torch.inf, 0))
        if need("rec.topk") or need("rec.meanrank"):
            user, item = torch.unique(torch.stack([positive_u, positive_i]).to(scores_tensor.device), dim=1)
            n_positive = torch.bincount(user, minlength=len(scores_tensor))[:, None]
        if need("rec.topk"):
            takes_part = scores_tensor[user, item] > -torch.inf  # else no hit, though a short ranking may list it
            hit = (best[user] == item[:, None]) & takes_part[:, None]
            hits = torch.zeros_like(best).index_add_(0, user, hit.long())
            self._batches["rec.topk"].append(torch.cat([hits, n_positive], dim=1))
        if need("rec.meanrank"):
            rank_sum = torch.zeros_like(scores_tensor[:, 0]).index_add_(0, user, mean_rank(scores_tensor, user, item))
            n_ranked = (scores_tensor > scores_tensor.amin(dim=1, keepdim=True)).sum(dim=1)
            columns = (rank_sum, n_ranked, n_positive[:, 0])
            self._batches["rec.meanrank"].append(torch.stack([column.to(rank_sum) for column in columns], dim=1))
        if need("rec.score"):
            self._batches["rec.score"].append(scores_tensor)
        if need("data.label"):
            self._batches["data.label"].append(interaction[self.config["LABEL_FIELD"]].to(self.device))
        if self.keeps_ranks:
            row, item = positive_u.to(best.device), positive_i.to(best.device)
            user = interaction[self.config["USER_ID_FIELD"]].to(best.device)[row]
            rank = list_rank(scores_tensor, best, row, item)
            self._batches["ranks"].append(torch.stack([user, item, rank], dim=1))

    def get_data_struct(self) -> DataStruct:
        """All that was collected since the last call, from all processes, and the values from the training data."""
        struct = DataStruct()
        for name, value in self.data_struct._data_dict.items():
            struct.set(name, value)
        own = {name: torch.cat(batches) for name, batches in self._batches.items()}
        for name, rows in gather_rows(own).items():  # of many processes, some may have had no batch
            struct.set(name, rows)
        if self.keeps_ranks:
            self.ranks = struct["ranks"]
        self._batches.clear()
        return struct


def mean_rank(scores: Tensor, user: Tensor, item: Tensor) -> Tensor:
    """Rank of some items among all, 1 for the highest score; equal scores share the mean of their ranks.

    Args:
        scores: Shape (b, n).
        user: Row of each item asked for; shape (p,).
        item: The items; shape (p,).

    Returns:
        Ranks in the type of the scores, shape (p,).
    """
    ranks = []
    for rows, columns in _pairs_by_block(scores, user, item):
        own = scores[rows, columns][:, None]
        above, equal = (scores[rows] > own).sum(dim=1), (scores[rows] == own).sum(dim=1)
        ranks.append(above + (equal + 1) / 2)
    return torch.cat(ranks).to(scores) if ranks else scores.new_empty(0)


def _pairs_by_block(scores: Tensor, user: Tensor, item: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """As many pairs at a time as can be compared with all items in :data:`_COMPARISONS`."""
    size = max(1, _COMPARISONS // scores.shape[1])
    return zip(user.split(size), item.split(size))


def list_rank(scores: Tensor, best: Tensor, user: Tensor, item: Tensor) -> Tensor:
    """Ranks of items in the lists from which metrics are computed, and beyond the end of these lists.

    Args:
        scores: Shape (b, n).
        best: The k best items, in their order among equal scores; shape (b, k).
        user: Row of each item asked for; shape (p,).
        item: The items; shape (p,).

    Returns:
        int64, shape (p,): 1 to k in the list; beyond it, one more than the number of higher scores, and at least k + 1;
        0 for a masked item, whose score is −∞.
    """
    ranks = []
    for rows, columns in _pairs_by_block(scores, user, item):
        own = scores[rows, columns]
        listed = best[rows] == columns[:, None]
        beyond = (1 + (scores[rows] > own[:, None]).sum(dim=1)).clamp(min=best.shape[1] + 1)
        rank = torch.where(listed.any(dim=1), 1 + listed.long().argmax(dim=1), beyond)
        ranks.append(rank.masked_fill(own == -torch.inf, 0))
    return torch.cat(ranks) if ranks else user.new_empty(0)
