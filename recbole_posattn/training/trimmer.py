"""Trimming in training and evaluation, as the key ``trim_padding`` selects it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.data.dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_posattn import distributed
from recbole_posattn.data.shorter import GROUP_COST, HistoryCutter
from recbole_posattn.errors import SettingError
from recbole_posattn.models.lazy_scores import with_lazy_scores
from recbole_posattn.settings.combinations import reads_padded_histories
from recbole_posattn.settings.config import Config
from recbole_posattn.training.trim_check import Found, find_trimming
from recbole_posattn.training.trimming import LossFunction, Trimming, trimmed_loss, trimmed_predictions

_TRAINED = {
    "groups": "trained in groups of similar length",
    "batch": "trained on batches cut to their longest history",
    "no": "trained with all padding",
}


class Trimmer:
    """Trims the histories of a model whose losses and scores stay the same without padding.

    Args:
        config: The settings.
        model: The model.

    Attributes:
        trimming: What is trimmed; ``None`` before it is known.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        self.trimming: Trimming | None = None
        self._config, self._model = config, model
        self._cutter: HistoryCutter | None = None
        self._group_cost = GROUP_COST[config["device"].type]
        self._wanted = config["trim_padding"] in ("auto", True) and reads_padded_histories(config)

    def plain(self) -> dict[str, Any] | None:
        """What is trimmed, as plain data for a checkpoint; ``None`` if that has not been determined."""
        return None if self.trimming is None else self.trimming.plain()

    def restore(self, kept: Mapping[str, Any] | None) -> None:
        """Restore the trimming of the run that wrote a checkpoint.

        Args:
            kept: The result of :meth:`plain`; ``None`` in checkpoints of versions that did not trim.

        Raises:
            TypeError, ValueError: If it cannot be used.
        """
        self.trimming = Trimming.from_plain(kept)

    def prepare(self, train_data: AbstractDataLoader, loss_func: LossFunction) -> None:
        """Find out what can be trimmed in a training, and log it in one line.

        Args:
            train_data: The training rows.
            loss_func: Returns the loss of a batch, or a tuple of losses that are added.

        Raises:
            SettingError: If ``trim_padding`` is ``True`` and the training cannot be trimmed.
        """
        if not self._wanted:
            return
        self._cutter = HistoryCutter(self._config, train_data._dataset)
        if self.trimming is not None:
            return
        found = self._found(train_data, loss_func, self._faster(loss_func))
        self.trimming, name = found.trimming, self._config["model"]
        if self.trimming.training == "no" and self._config["trim_padding"] is True:
            raise SettingError(
                f"trim_padding True is not possible with {name}: {found.why_not_groups}; use auto or False"
            )
        training = _TRAINED[self.trimming.training] + (f" ({found.why_not_groups})" if found.why_not_groups else "")
        scores = "in such groups" if self.trimming.evaluation else f"with all padding ({found.why_not_scores})"
        logging.getLogger().info(f"trim_padding: {name} is {training} and evaluated {scores}")

    def _found(self, data: AbstractDataLoader, *loss_funcs: LossFunction) -> Found:
        """What can be trimmed; the same in all processes."""
        assert self._cutter is not None
        found = find_trimming(self._model, self._cutter, data, *loss_funcs) if distributed.is_main() else None
        return distributed.broadcast_from_main(found)

    def _faster(self, loss_func: LossFunction) -> LossFunction:
        return loss_func if self._config["torch_compile"] else with_lazy_scores(loss_func)

    def loss(self, loss_func: LossFunction) -> LossFunction:
        """A function with the same losses, computed on shorter histories where that is possible."""
        if self._cutter is None or self.trimming is None or self.trimming.training == "no":
            return loss_func
        return trimmed_loss(self._faster(loss_func), self.trimming, self._cutter, self._group_cost)

    @contextmanager
    def scores(self, eval_data: AbstractDataLoader) -> Iterator[None]:
        """While the block runs, the model computes scores on shorter histories where that is possible."""
        if not self._wanted or not eval_data:
            yield
            return
        if self._cutter is None:
            self._cutter = HistoryCutter(self._config, eval_data._dataset)
        if self.trimming is None:  # the model was not trained here
            self.trimming = self._found(eval_data).trimming
        with trimmed_predictions(self._model, self.trimming, self._cutter, self._group_cost):
            yield
