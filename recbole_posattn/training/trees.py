"""RecBole's trainers of boosted trees (LightGBM, XGBoost), with checkpoints of plain data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import xgboost_by_keyword

import recbole.trainer
from recbole.data.dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_local_time

from recbole_posattn import distributed
from recbole_posattn.errors import CheckpointError, SettingError, one_line
from recbole_posattn.files import make_new_folder
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training import interrupts
from recbole_posattn.training.checkpoint import read_checkpoint, vocabulary, write_checkpoint
from recbole_posattn.training.run_folder import BEST_NAME
from recbole_posattn.training.time_limit import OutOfTime, log_end
from recbole_posattn.training.tracking import Trackers

TREES = "trees"  # key of a checkpoint: the model in the text format of its library


class TreeMixin(recbole.trainer.DecisionTreeTrainer):
    """Trains one round of boosting per epoch, and keeps the best epoch.

    RecBole's trainer pickles its ``Config`` into the checkpoint, leaves intermediate files in ``checkpoint_dir``, and
    fails without validation.

    Attributes:
        run_dir: Folder of this run below ``checkpoint_dir``, made with the first checkpoint.
        best_epoch: Epoch of the checkpoint that is kept, counted from 0; −1 before there is one.
        train_loss_dict: The trained epochs as keys; trees report no loss.
        curve: Per-epoch log, in order: ``epoch`` (from 0), ``seconds``, and ``valid`` where it was validated.
        stopped_by: ``max_minutes`` if this setting ended the training after a round, else ``None``.
    """

    model: Any  # RecBole's model, then whatever the library returns
    eval_step: int
    xgb: Any
    _started: float  # of the training

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        if distributed.world_size() > 1:
            raise SettingError(f"{config['model']} is trained in one process; leave nproc and world_size out.")
        super().__init__(config, model)
        if self.epochs < 1:
            raise SettingError(f"epochs must be at least 1 with {config['model']}; got {self.epochs}.")
        self.run_dir = Path(self.checkpoint_dir) / f"{config['model']}-{config['dataset']}-{get_local_time()}"
        self.saved_model_file = str(self.run_dir / BEST_NAME)
        if hasattr(self, "xgb"):
            self.xgb = xgboost_by_keyword(self.xgb)
        self._recommender = model
        self.best_epoch = -1
        self.train_loss_dict: dict[int, None] = {}
        self.curve: list[dict[str, Any]] = []
        self.stopped_by: str | None = None
        self.wandblogger = Trackers()  # as our other trainers call it, which have it from RecBole
        self._vocabulary: dict[str, Any] | None = None
        self._validates = self.eval_step > 0
        if not self._validates:
            self.eval_step = self.epochs + 1  # RecBole divides by it

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader,
        *arguments: Any,
        saved: bool = True,
        **options: Any,
    ) -> tuple[float, dict[str, float] | None]:
        """See ``DecisionTreeTrainer.fit``.

        Raises:
            SettingError: If there are no rows to validate on, which the libraries need.
            Interrupted: By a signal, after the epoch.
        """
        if not len(valid_data):
            raise SettingError(
                f"{self.config['model']} needs a validation split, and eval_args leaves none; got "
                f"{self.config['eval_args']['split']!r}."
            )
        self._vocabulary = vocabulary(train_data._dataset)
        self.wandblogger.start(self.config, self.run_dir.name, {})
        try:
            with tempfile.TemporaryDirectory() as scratch, interrupts.deferred():
                self.temp_file, self.temp_best_file = (f"{scratch}/{name}.json" for name in ("last", "best"))
                self._started = time.perf_counter()
                try:
                    super().fit(train_data, valid_data, *arguments, saved=saved, **options)
                except OutOfTime:
                    self.stopped_by = "max_minutes"
                    log_end(self.config, len(self.train_loss_dict), self.best_valid_result is not None)
                if saved and self.best_epoch < 0:  # never validated, or every score is NaN
                    self.model.save_model(self.temp_best_file)
                    self._save_checkpoint(max(self.train_loss_dict))
        finally:
            self.tensorboard.close()
        return self.best_valid_score, self.best_valid_result

    def kept(self) -> str:
        """What this run has saved so far, for the user."""
        best = self.run_dir / BEST_NAME
        return f"the best epoch so far is kept in {best}" if best.is_file() else "nothing was saved"

    def _train_at_once(self, train_data: AbstractDataLoader, valid_data: AbstractDataLoader) -> None:
        interrupts.check()
        minutes = self.config["max_minutes"]
        if minutes is not None and self.curve and time.perf_counter() - self._started >= 60 * minutes:
            raise OutOfTime
        epoch, started = len(self.train_loss_dict), time.perf_counter()
        try:
            super()._train_at_once(train_data, valid_data)
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("lightgbm", "xgboost"):
                raise
            raise SettingError(
                f"{self.config['model']} cannot be trained with these settings: {str(error).splitlines()[0]}"
            ) from error
        self.train_loss_dict[epoch] = None
        self.curve.append({"epoch": epoch, "seconds": round(time.perf_counter() - started, 3)})

    def _valid_epoch(self, valid_data: AbstractDataLoader) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data)
        self.curve[-1]["valid"] = dict(result)
        self.wandblogger.epoch = self.curve[-1]["epoch"]
        self.wandblogger.log_metrics(result, head="valid")
        for metric, value in result.items():
            self.tensorboard.add_scalar(f"Valid/{metric}", value, self.curve[-1]["epoch"])
        return score, result

    def evaluate(
        self, eval_data: AbstractDataLoader, load_best_model: bool = True, model_file: str | None = None, **options: Any
    ) -> dict[str, float] | None:
        """See ``DecisionTreeTrainer.evaluate``; ``None`` for a split without rows."""
        if not len(eval_data):
            return None
        if load_best_model:
            self.model = self._recommender
            load_trees(self.model, read_checkpoint(model_file or self.saved_model_file))
        return super().evaluate(eval_data, load_best_model=False, **options)

    def _save_checkpoint(self, epoch: int) -> None:
        if self.best_epoch < 0:
            self.run_dir = make_new_folder(self.run_dir)
            self.saved_model_file = str(self.run_dir / BEST_NAME)
        self.best_epoch = epoch
        content = {
            "config": self.config.plain(),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": plain_data(self.best_valid_score),
            TREES: Path(self.temp_best_file).read_text(encoding="utf-8"),
            "vocabulary": self._vocabulary,
        }
        write_checkpoint(content, self.saved_model_file)


def load_trees(model: Any, content: Mapping[str, Any]) -> None:
    """Put a checkpoint's trees into a model.

    Args:
        model: A model of RecBole's ``exlib_recommender``.
        content: Content of the checkpoint.

    Raises:
        CheckpointError: If it holds no trees of this model.
    """
    try:
        if hasattr(model, "load_model"):  # XGBoost
            model.load_model(bytearray(content[TREES], "utf-8"))
        else:
            super(type(model), model).__init__(model_str=content[TREES])  # RecBole's constructor does not call it
    except Exception as error:  # the libraries have their own error classes
        raise CheckpointError(f"the checkpoint holds no trees of {type(model).__name__}: {one_line(error)}") from error
