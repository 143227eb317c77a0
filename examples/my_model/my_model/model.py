"""A model: PosKernelSASRec with a change of its own, and a key of its own."""

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from torch import Tensor, nn

from recbole_posattn.models.poskernelsasrec import PosKernelSASRec


class ShortcutSASRec(PosKernelSASRec):
    """PosKernelSASRec whose output at a position keeps a share of the item there: h_t + g ⊙ e(x_t), with g learned.

    A model that derives from one of recbole-posattn has that model's keys and defaults, data set and trainer; its YAML
    file needs only what differs. Any other model is a class of RecBole's ``SequentialRecommender`` (or
    ``GeneralRecommender``, …), with ``calculate_loss``, ``predict`` and ``full_sort_predict``.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        super().__init__(config, dataset)
        self.shortcut = nn.Parameter(torch.full((config["hidden_size"],), config["shortcut_start"]))

    def hidden_states(
        self, item_seq: Tensor, valid: Tensor | None, last_only: bool = False, times: Tensor | None = None
    ) -> Tensor:
        """Outputs at every position, shape (batch, positions, channels), or at the last one."""
        hidden = super().hidden_states(item_seq, valid, last_only, times)
        return hidden + self.shortcut * self.item_embedding(item_seq[:, -1:] if last_only else item_seq)
