"""The key ``max_minutes``: a training that ends in time with the best epoch so far."""

from __future__ import annotations

import logging
import time
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_posattn import distributed
from recbole_posattn.errors import counted
from recbole_posattn.settings.config import Config
from recbole_posattn.training.engine import EngineMixin


class OutOfTime(Exception):
    """The minutes of ``max_minutes`` have passed."""


def log_end(config: Config, n_epochs: int, has_best: bool) -> None:
    """Say that ``max_minutes`` have ended the training after so many epochs, of which one may be the best."""
    logging.getLogger().info(
        f"max_minutes {config['max_minutes']:g} is reached after {counted(n_epochs, 'epoch')}: "
        f"training ends with the {'best one so far' if has_best else 'last one'}"
    )


class TimeLimitMixin(EngineMixin):
    """A training that ends after ``max_minutes``, as early stopping would end it.

    In one process it ends after a step, once a best epoch is kept; with several processes, after an epoch. The limit
    covers training and validation, including the time before a resume. Pretraining has no limit, since the next stage
    needs its final weights.

    Attributes:
        best_epoch: Epoch of the kept checkpoint, counted from 0; −1 before there is one.
        seconds_before: Seconds of training before the run was last resumed.
        stopped_by: ``max_minutes`` if this setting ended the training, else ``None``.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        super().__init__(config, model)
        self.best_epoch = -1
        self.seconds_before = 0.0
        self.stopped_by: str | None = None
        self._started = time.perf_counter()

    def fit(self, *arguments: Any, **options: Any) -> tuple[float, dict | None]:
        """See ``Trainer.fit``."""
        try:
            return super().fit(*arguments, **options)
        except OutOfTime:
            self.stopped_by = "max_minutes"
            self._keep_steps()
            log_end(self.config, len(self.train_loss_dict), self.best_valid_result is not None)
        return self.best_valid_score, self.best_valid_result

    def _keep_steps(self) -> bool:
        """Write a checkpoint during an epoch, and return whether that was possible."""
        return False

    def _is_out_of_time(self) -> bool:
        """Whether ``max_minutes`` have passed since the start and there is a complete epoch; by the clock of rank 0."""
        minutes = self.config["max_minutes"]
        if minutes is None or self._is_pretraining or not self.train_loss_dict:
            return False
        seconds = self.seconds_before + time.perf_counter() - self._started
        return distributed.broadcast_from_main(seconds >= 60 * minutes)

    def _check_between_steps(self) -> None:
        super()._check_between_steps()
        # Several processes would have to wait for each other here.
        if self.best_epoch >= 0 and distributed.world_size() == 1 and self._is_out_of_time():
            raise OutOfTime
