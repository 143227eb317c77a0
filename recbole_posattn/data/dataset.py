"""The data set of our sequential models: RecBole's rows for evaluation, whole sequences for training."""

from __future__ import annotations

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction

from recbole_posattn.data.windows import Windows, cut_windows
from recbole_posattn.fields import TARGET_LIST_FIELD


class SequenceDataset(SequentialDataset):
    """RecBole's ``SequentialDataset`` whose training split is served as windows with a label at every position.

    Loading, filtering, ordering and splitting are RecBole's, and so are the rows of the validation and test splits.
    With ``train_objective: augmented`` the training split is RecBole's, too.
    """

    windows: Windows | None = None

    def build(self) -> list[SequenceDataset]:
        """Split as RecBole does, then join the training rows into windows if the objective asks for them."""
        train, valid, test = super().build()
        if self.config["train_objective"] == "sequence":
            rows = train.inter_feat
            train.windows = cut_windows(
                user=rows[self.uid_field],
                history=rows[self.iid_field + self.config["LIST_SUFFIX"]],
                history_length=rows[self.item_list_length_field],
                target=rows[self.iid_field],
            )
        return [train, valid, test]

    def __len__(self) -> int:
        return super().__len__() if self.windows is None else len(self.windows)

    def __getitem__(self, index, join: bool = True) -> Interaction:
        if self.windows is None:
            return super().__getitem__(index, join)
        target_row = self.windows.target_row[index]
        target = self.inter_feat[self.iid_field][target_row.clamp(min=0)]
        return Interaction(
            {
                self.uid_field: self.inter_feat[self.uid_field][target_row.max(dim=-1).values],
                self.iid_field + self.config["LIST_SUFFIX"]: self.windows.item_list[index],
                self.item_list_length_field: self.windows.item_length[index],
                TARGET_LIST_FIELD: torch.where(target_row < 0, 0, target),
            }
        )
