"""Collects what RecBole's metrics need from the scores of each batch, in all processes.

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

# How many scores are compared at a time to find ranks: pairs times items.
_COMPARISONS = 2**24


class BlockwiseCollector(Collector):
    """RecBole's ``Collector`` with the same results, in less time and memory.

    RecBole marks the positive items in a second matrix of users times items, finds the best items twice, and sorts all
    scores if a metric needs ranks. Here the best items are compared with the positive ones, and ranks are counted. With
    several processes, each collects the results of its own users, and all get the results of all users.

    Attributes:
        keeps_ranks: Whether to collect the rank of each positive item as well; only for full rankings.
        ranks: From the last evaluation with ``keeps_ranks``: a row (user, item, rank) for each positive item, in the
            order of the data, see :func:`list_rank`; int64, shape (all pairs, 3).
    """

    def __init__(self, config) -> None:
        super().__init__(config)
        self._batches: dict[str, list[Tensor]] = defaultdict(list)
        self.keeps_ranks = False
        self.ranks: Tensor | None = None

    def data_collect(self, train_data: AbstractDataLoader) -> None:
        """Collect what metrics need from the training data.

        RecBole reads ``train_data.dataset``, which its loader for knowledge-aware models does not have.
        """
        super().data_collect(SimpleNamespace(dataset=train_data._dataset))

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect from a batch.

        Args:
            scores_tensor: Scores, −∞ for items that are not ranked; shape (b, n), or (b,) for value metrics.
            interaction: The batch.
            positive_u: Row of each positive item in the batch; int64, shape (p,).
            positive_i: The positive items; int64, shape (p,).
        """
        need = self.register.need
        if need("rec.items") or need("rec.recommended") or need("rec.topk") or self.keeps_ranks:
            best_scores, best = torch.topk(scores_tensor, max(self.topk), dim=-1)
        if need("rec.items"):
            self._batches["rec.items"].append(best)
        if need("rec.recommended"):  # for COV: where fewer than k items are ranked, padding items fill up the list
            self._batches["rec.recommended"].append(best.masked_fill(best_scores == -torch.inf, 0))
        if need("rec.topk") or need("rec.meanrank"):
            user, item = torch.unique(torch.stack([positive_u, positive_i]).to(scores_tensor.device), dim=1)
            n_positive = torch.bincount(user, minlength=len(scores_tensor))[:, None]
        if need("rec.topk"):
            is_ranked = scores_tensor[user, item] > -torch.inf  # topk also lists items with −∞ if there are too few
            hit = (best[user] == item[:, None]) & is_ranked[:, None]
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
        """What all processes have collected since the last call, and the values from the training data."""
        struct = DataStruct()
        for name, value in self.data_struct._data_dict.items():
            struct.set(name, value)
        own = {name: torch.cat(batches) for name, batches in self._batches.items()}
        for name, rows in gather_rows(own).items():  # some processes may have had no batch
            struct.set(name, rows)
        if self.keeps_ranks:
            self.ranks = struct["ranks"]
        self._batches.clear()
        return struct


def mean_rank(scores: Tensor, user: Tensor, item: Tensor) -> Tensor:
    """Ranks of items among all items, 1 for the highest score; equal scores share the mean of their ranks.

    Args:
        scores: Scores of all items; shape (b, n).
        user: Row of each item; int64, shape (p,).
        item: The items; int64, shape (p,).

    Returns:
        Ranks, of the type of the scores; shape (p,).
    """
    ranks = []
    for rows, columns in _pairs_by_block(scores, user, item):
        own = scores[rows, columns][:, None]
        above, equal = (scores[rows] > own).sum(dim=1), (scores[rows] == own).sum(dim=1)
        ranks.append(above + (equal + 1) / 2)
    return torch.cat(ranks).to(scores) if ranks else scores.new_empty(0)


def _pairs_by_block(scores: Tensor, user: Tensor, item: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs in blocks that need at most :data:`_COMPARISONS` comparisons with all items."""
    size = max(1, _COMPARISONS // scores.shape[1])
    return zip(user.split(size), item.split(size))


def list_rank(scores: Tensor, best: Tensor, user: Tensor, item: Tensor) -> Tensor:
    """Positions of items in the lists that metrics are computed from, continued beyond the end of the lists.

    Args:
        scores: Scores of all items; shape (b, n).
        best: The k best items, as the metrics get them, which decides the order of equal scores; int64, shape (b, k).
        user: Row of each item; int64, shape (p,).
        item: The items; int64, shape (p,).

    Returns:
        1 to k for items in the list; for others, 1 + the number of higher scores, but at least k + 1; 0 for items that
        are not ranked, whose score is −∞ or NaN; int64, shape (p,).
    """
    ranks = []
    for rows, columns in _pairs_by_block(scores, user, item):
        own = scores[rows, columns]
        listed = best[rows] == columns[:, None]
        not_listed = (1 + (scores[rows] > own[:, None]).sum(dim=1)).clamp(min=best.shape[1] + 1)
        rank = torch.where(listed.any(dim=1), 1 + listed.long().argmax(dim=1), not_listed)
        ranks.append(rank.masked_fill(~(own > -torch.inf), 0))
    return torch.cat(ranks) if ranks else user.new_empty(0)
