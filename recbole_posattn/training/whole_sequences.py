"""``train_objective: sequence`` for RecBole's causal models: a loss at every position of a sequence.

Some of RecBole's models compute an output at every position, each from the items up to there, and then pick the one at
the newest item by ``gather_indexes``. Here that method returns the outputs at all positions with a target instead, so
that the model's own ``calculate_loss`` is the mean loss of all these targets.

Shape keys: b windows, s sequence length, d channels of an output, n targets.
"""

from __future__ import annotations

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_posattn.data.fields import TARGET_LIST_FIELD
from recbole_posattn.data.shorter import spread_over_lengths
from recbole_posattn.errors import SettingError
from recbole_posattn.training.trim_check import difference, result_of, undisturbed
from recbole_posattn.training.trimming import replaced

_WINDOWS_COMPARED = 4


def whole_sequence_loss(model: SequentialRecommender, batch: Interaction) -> Tensor:
    """The mean loss of all targets of a batch of windows.

    Args:
        model: One of :data:`recbole_posattn.settings.combinations.WHOLE_SEQUENCE_MODELS`.
        batch: Items and targets, shape (b, s), and lengths, shape (b,).
    """
    targets = batch[TARGET_LIST_FIELD]
    labelled = targets > 0

    def outputs_with_a_target(output: Tensor, gather_index: Tensor) -> Tensor:
        return output[labelled]  # (b, s, d) → (n, d)

    fields = {name: column for name, column in batch.interaction.items() if name != TARGET_LIST_FIELD}
    with replaced(model, {"gather_indexes": outputs_with_a_target}):
        return model.calculate_loss(Interaction({**fields, model.POS_ITEM_ID: targets[labelled]}))


def prefixes_of(model: SequentialRecommender, batch: Interaction) -> Interaction:
    """The rows (history → target) of RecBole's objective that a batch of windows stands for.

    Args:
        model: Names the fields.
        batch: Items and targets, shape (b, s).

    Returns:
        Histories, shape (n, s), their lengths and targets, shape (n,), and the other columns of their windows.
    """
    targets = batch[TARGET_LIST_FIELD]
    window, position = torch.nonzero(targets > 0, as_tuple=True)
    later = torch.arange(targets.shape[1], device=targets.device) > position[:, None]
    return Interaction(
        {
            **{name: column[window] for name, column in batch.interaction.items() if name != TARGET_LIST_FIELD},
            model.ITEM_SEQ: batch[model.ITEM_SEQ][window].masked_fill(later, 0),
            model.ITEM_SEQ_LEN: position + 1,
            model.POS_ITEM_ID: targets[window, position],
        }
    )


def require_whole_sequences(model: SequentialRecommender, train_data: AbstractDataLoader) -> None:
    """Check that a model's loss of whole sequences is the loss of all their prefixes.

    A model derived from one of RecBole's may compute its outputs in another way.

    Args:
        model: The model.
        train_data: A loader of windows.

    Raises:
        SettingError: If the losses or their gradients differ.
    """
    with undisturbed(model, train_data):
        rows = spread_over_lengths(train_data._dataset.windows.length, _WINDOWS_COMPARED)  # one item tells nothing
        batch = train_data.collate_fn(rows.tolist()).to(model.device)
        model.eval()
        prefixes = result_of(model, model.calculate_loss, prefixes_of(model, batch))
        try:
            reason = difference(prefixes, result_of(model, lambda rows: whole_sequence_loss(model, rows), batch))
        except Exception as error:  # it needs another shape than one row a target
            reason = type(error).__name__
    if reason:
        raise SettingError(
            f"train_objective 'sequence' is not possible with {type(model).__name__}, whose outputs depend on more "
            f"than the items up to their position ({reason}); leave the key out."
        )
