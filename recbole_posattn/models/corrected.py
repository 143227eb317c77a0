"""Corrected versions of RecBole models whose results wrongly depend on the batch size.

:func:`recbole_posattn.settings.registry.patched_model_class` uses these with our ``Config``; RecBole's own classes are
unchanged.

Shape keys: b rows of a batch, n items.
"""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.model.general_recommender import pop, random
from torch import Tensor


class Pop(pop.Pop):
    """The items with the most training interactions.

    RecBole's Pop counts an item once per batch, however often it occurs there, and sampled negatives like positives, so
    that its scores depend on the batch size and on the seed. With several processes, each counts only its own share.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        counts = torch.bincount(dataset.inter_feat[self.ITEM_ID], minlength=self.n_items)
        self.item_cnt = counts[:, None].to(self.device)
        self.max_cnt = self.item_cnt.max(dim=0)[0]

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Zero: the constructor has counted everything."""
        return torch.zeros(1, device=self.device, requires_grad=True)


class Random(random.Random):
    """Random scores, which are always the same for the same user.

    RecBole's Random draws one list for all users of a batch, so that coverage depends on ``eval_batch_size``.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.seed = config["seed"]

    def _scores(self, user: Tensor) -> Tensor:
        """Uniform in [0, 1); float64, shape (b, n)."""
        drawn = [np.random.default_rng([self.seed, each]).random(self.n_items) for each in user.tolist()]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def predict(self, interaction: Interaction) -> Tensor:
        """Scores of users and items, shape (b,)."""
        users, row = interaction[self.USER_ID].unique(return_inverse=True)
        return self._scores(users)[row, interaction[self.ITEM_ID]]

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of users for all items, shape (b·n,)."""
        return self._scores(interaction[self.USER_ID]).view(-1)


# The corrected class by RecBole's class.
CORRECTED: dict[type[AbstractRecommender], type[AbstractRecommender]] = {pop.Pop: Pop, random.Random: Random}
