"""What happens around the steps of any of RecBole's trainers: learning-rate schedules and averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.data.dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from torch.optim.lr_scheduler import LambdaLR

from recbole_posattn.errors import SettingError
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.recipe_keys import DECAYING_SCHEDULERS
from recbole_posattn.training.averaging import WeightAverage
from recbole_posattn.training.engine import EngineMixin
from recbole_posattn.training.schedule import Schedule
from recbole_posattn.training.state import optimizers


class RecipeMixin(EngineMixin):
    """Implements ``lr_scheduler`` and ``weight_averaging``; has no effect if neither is set.

    Both run in a hook that PyTorch calls after each optimizer step. With several processes, each makes the same updates
    to the same weights.
    """

    epochs: int
    eval_step: int

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        super().__init__(config, model)
        self._n_steps = 0  # of the optimizer, counted where there is a schedule
        self._n_epochs_before: int | None = None  # before a resume with another number of steps in an epoch
        self._schedule: Schedule | None = None
        self._average: WeightAverage | None = None
        last = last_epoch_with_a_rate(config)
        # Of a pretraining, RecBole keeps only the epochs that are multiples of save_step, so it goes on.
        if last is not None and last < self.epochs and not self._is_pretraining:
            self.epochs = last
            self.logger.info(f"training ends after {last} epochs: the learning rate is 0 then (lr_decay_epochs)")
        self.eval_step = min(self.eval_step, self.epochs)  # as RecBole, which does it before the epochs are known
        if config["weight_averaging"] is not None:
            self._average = WeightAverage(
                self.model, config["weight_averaging"], config["ema_decay"], config["averaging_start_epoch"]
            )

    def fit(self, train_data: AbstractDataLoader, *arguments: Any, **options: Any) -> tuple[float, dict | None]:
        """See ``Trainer.fit``.

        Raises:
            SettingError: If ``lr_scheduler`` or ``weight_averaging`` is not possible with this model.
        """
        with self._following_steps(train_data):
            return super().fit(train_data, *arguments, **options)

    @contextmanager
    def _following_steps(self, train_data: AbstractDataLoader) -> Iterator[None]:
        keys = [key for key in ("lr_scheduler", "weight_averaging") if self.config[key] is not None]
        if not keys:
            yield
            return
        if len(optimizers(self)) > 1 or not self._has_plain_epochs:
            raise SettingError(
                f"{keys[0]} must be ~ with {self.config['model']}, which has its own training loop; "
                f"got {self.config[keys[0]]!r}."
            )
        scheduler: LambdaLR | None = None
        if self.config["lr_scheduler"] is not None:
            self._schedule = schedule_of(self.config, len(train_data))
            if self._n_epochs_before is not None:
                self._n_steps = self._n_epochs_before * len(train_data)
            scheduler = self._schedule.start(self.optimizer, self._n_steps)

        def after_step(*_: Any) -> None:
            self._n_steps += 1
            if scheduler is not None:
                scheduler.step()
            if self._average is not None:
                self._average.after_step(self._epoch)

        hook = self.optimizer.register_step_post_hook(after_step)
        try:
            yield
        finally:
            hook.remove()

    def _train_epoch(self, train_data: AbstractDataLoader, epoch_idx: int, *arguments: Any, **options: Any) -> Any:
        losses = super()._train_epoch(train_data, epoch_idx, *arguments, **options)
        if self._average is not None:
            self._average.after_epoch(epoch_idx)
        if self._schedule is not None:
            rate = self.config["learning_rate"] * self._schedule.factor(max(0, self._n_steps - 1))
            self.curve[-1]["learning_rate"] = rate
            self.tensorboard.add_scalar("Learning_rate", rate, epoch_idx)
            self.logger.info(f"epoch {epoch_idx} learning rate of the last step: {rate:.6g}")
        return losses

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Swap the averaged weights, if any, into the model while the block runs, to validate or save them."""
        return nullcontext() if self._average is None else self._average.in_model()

    def _valid_epoch(self, *arguments: Any, **options: Any) -> tuple[float, dict]:
        with self.averaged_weights():
            return super()._valid_epoch(*arguments, **options)

    def _use_averaged_weights(self) -> None:
        """After training: the model is that of the averaged weights."""
        if self._average is not None:
            self._average.move_into_model()

    def _recipe_state(self) -> dict[str, Any] | None:
        """Plain data for the last checkpoint; ``None`` where neither key is used."""
        if self._schedule is None and self._average is None:
            return None
        return {"steps": self._n_steps, "average": None if self._average is None else self._average.state()}

    def _restore_recipe(self, state: Mapping[str, Any] | None) -> None:
        if state is not None:
            self._n_steps = int(state["steps"])
            if self._average is not None:
                self._average.restore(state["average"])


def last_epoch_with_a_rate(config: Config) -> int | None:
    """The last epoch, counted from 1, in which the learning rate is not 0; ``None`` if there is no such limit.

    Later epochs change no weights, and RecBole's early stopping never ends at equal scores. Averaged weights still
    change.
    """
    if config["lr_scheduler"] in DECAYING_SCHEDULERS and not config["lr_end_factor"] and not config["weight_averaging"]:
        last: int = config["lr_decay_epochs"]
        return last
    return None


def schedule_of(config: Config, n_batches: int) -> Schedule:
    """The schedule of the settings.

    Args:
        config: With ``lr_scheduler``.
        n_batches: Steps of an epoch.
    """
    warmup_steps, last_step = (round((config[key] or 0) * n_batches) for key in ("lr_warmup_epochs", "lr_decay_epochs"))
    return Schedule(config["lr_scheduler"], warmup_steps, last_step, config["lr_end_factor"])
