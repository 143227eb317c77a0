"""When a trainer writes checkpoints, and how it resumes from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import TRAINED_NUMBERS
from recbole_posattn.compat.tensorboard import tensorboard_folder

import torch
from filelock import FileLock
from recbole.data.dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_local_time, set_color

from recbole_posattn import distributed
from recbole_posattn.data.digest import data_contents
from recbole_posattn.errors import counted
from recbole_posattn.files import link_or_copy, make_new_folder
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.training import interrupts
from recbole_posattn.training.best_file import forget_previous_best, keep_previous_best
from recbole_posattn.training.checkpoint import (
    explain_checkpoint_errors,
    load_state,
    read_checkpoint,
    vocabulary,
    write_checkpoint,
)
from recbole_posattn.training.explained_errors import explain_missing_requirements
from recbole_posattn.training.pausable_epoch import PausableEpoch
from recbole_posattn.training.plain import plain_other_parameter
from recbole_posattn.training.recipe import RecipeMixin
from recbole_posattn.training.resume import Resumed, lock_run
from recbole_posattn.training.run_folder import BEST_NAME, LAST_NAME
from recbole_posattn.training.state import (
    changed_counters,
    counters,
    optimizers,
    random_state,
    restore_arrays,
    restore_counters,
    restore_loader_states,
    restore_optimizer,
    restore_random_state,
    trained_arrays,
)
from recbole_posattn.training.time_limit import OutOfTime, TimeLimitMixin


class CheckpointMixin(TimeLimitMixin, RecipeMixin):
    """Checkpoints for any of RecBole's trainers, from which training continues exactly where it stopped.

    RecBole pickles the whole ``Config`` into a checkpoint. Loading a pickle can run any code, so torch ≥ 2.6 refuses
    to. Here everything is tensors and plain data (:mod:`recbole_posattn.training.checkpoint`). Two epochs are kept: the
    best one, and the last one with the whole training state (:mod:`recbole_posattn.training.state`). Only rank 0 writes
    and reads.

    Attributes:
        run_dir: Folder of this run below ``checkpoint_dir``, made with the first checkpoint.
        changes: Settings changed on resume, see :class:`recbole_posattn.training.resume.Resumed`.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        super().__init__(config, model)
        self.run_dir = Path(self.checkpoint_dir) / f"{config['model']}-{config['dataset']}-{get_local_time()}"
        self.saved_model_file = str(self.run_dir / BEST_NAME)
        self.changes: list[dict[str, Any]] = []
        self._untrained_counters = counters(self.model)
        self._has_run_dir = self._saved = False
        self._lock: FileLock | None = None
        self._tracked: dict[str, str] = {}  # the runs of the trackers to continue, by key
        self._train_data: AbstractDataLoader | None = None
        self._vocabulary: dict[str, Any] | None = None
        self._data: dict[str, Any] = {}
        self._random_states: list[dict[str, Any]] | None = None  # to restore, one per process
        self._left: dict[str, Any] | None = None  # the position in an epoch at which to resume
        self._epoch_now: PausableEpoch | None = None  # the epoch in training or validation

    def fit(
        self, train_data: AbstractDataLoader, *arguments: Any, saved: bool = True, **options: Any
    ) -> tuple[float, dict | None]:
        """See ``Trainer.fit``. A signal is deferred to the end of the step; all steps done by then are kept.

        Raises:
            Interrupted: By a signal.
        """
        self._train_data, self._vocabulary, self._saved = train_data, vocabulary(train_data._dataset), saved
        self._data = data_contents(self.config) if saved and distributed.is_main() else {}
        self.wandblogger.start(self.config, self.run_dir.name, self._tracked)
        first_epoch, self._started = self.start_epoch, time.perf_counter()
        try:
            with interrupts.deferred(), explain_missing_requirements(self.config):
                if first_epoch and self._has_ended():  # RecBole would fail on a run with no epochs to train
                    self.eval_collector.data_collect(train_data)  # some metrics count its items
                else:
                    self._prepare_losses(train_data)
                    super().fit(train_data, *arguments, saved=saved, **options)
                self._epoch_now = None
                self._keep_a_best()
                if self.train_loss_dict and self._random_states is None and self.stopped_by is None:
                    self._keep_epoch(max(self.train_loss_dict))
                self._use_averaged_weights()
                self._restore_random_state()
        except interrupts.Interrupted as interrupted:
            if interrupted.between_steps and self._keep_steps():
                interrupted.kept = f"all completed steps are kept: --resume={self.run_dir} continues after them"
            else:
                interrupted.kept = self.kept()
            raise
        finally:
            self.tensorboard.close()  # ends its thread
            if self._lock is not None:
                self._lock.release()
        return self.best_valid_score, self.best_valid_result

    def _keep_a_best(self) -> None:
        """Keep the last epoch if none was validated, or if every score is NaN."""
        has_no_best = self.best_epoch < 0 and self.train_loss_dict and Path(self.saved_model_file).name == BEST_NAME
        if self._saved and has_no_best:
            self.logger.warning("No epoch has a validation score: the last one is kept")
            self._save_checkpoint(max(self.train_loss_dict))

    def _has_ended(self) -> bool:
        return self.start_epoch >= self._n_epochs or self.cur_step > self.stopping_step

    def _train_epoch(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: Callable[[Interaction], Any] | None = None,
        show_progress: bool = False,
    ) -> Any:
        self._epoch_now, out_of_time = None, self._is_out_of_time()
        if epoch_idx - 1 in self.train_loss_dict and self._random_states is None:
            self._keep_epoch(epoch_idx - 1, is_last=out_of_time)  # including its validation
        self._restore_random_state()
        if out_of_time:
            raise OutOfTime
        loss_func = self._trimmed_loss(loss_func)
        if not self._pausable:
            return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        with nullcontext() if self._left is None else explain_checkpoint_errors(self.run_dir / LAST_NAME):
            epoch = PausableEpoch(train_data, loss_func, self._left, self._check_between_steps)
        self._epoch_now, self._left = epoch, None
        super()._train_epoch(epoch, epoch_idx, epoch.loss, show_progress)
        total = sum(epoch.losses) if isinstance(epoch.losses, tuple) else epoch.losses
        self.curve[-1].update(loss=total, seconds=round(self.curve[-1]["seconds"] + epoch.seconds_before, 3))
        return epoch.losses

    def _keep_epoch(self, epoch: int, is_last: bool = False) -> None:
        """Write the last checkpoint after an epoch, if it is due; it always is after the final epoch."""
        every = self.config["save_last_every"]
        is_last = is_last or epoch + 1 >= self._n_epochs or self.cur_step > self.stopping_step
        if not self._saved or every is None or not (is_last or (epoch + 1) % every == 0):
            return
        self._write_last(epoch)

    def _keep_steps(self) -> bool:
        """Write the last checkpoint during an epoch or its validation, and return whether that was possible."""
        if not self._saved or self.config["save_last_every"] is None or self._epoch_now is None:
            return False
        self._write_last(self._epoch - 1, self._epoch_now.position())
        return True

    def _write_last(self, epoch: int, left: dict[str, Any] | None = None) -> None:
        """Write the last checkpoint: the last complete epoch (−1 if none), and the position in the next one."""
        self._claim_run_dir()
        training = {
            "best_epoch": self.best_epoch,
            "best_valid_result": plain_data(self.best_valid_result),
            "train_loss_dict": {number: loss for number, loss in self.train_loss_dict.items() if number <= epoch},
            "left": left,
            "model_file": Path(self.saved_model_file).name,
            "curve": plain_data([point for point in self.curve if point["epoch"] <= epoch]),
            "seconds": self.seconds_before + time.perf_counter() - self._started,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers(self).items()},
            "counters": changed_counters(self.model, self._untrained_counters),
            "arrays": trained_arrays(self.model),
            "recipe": self._recipe_state(),
            "changes": self.changes,
            "trimming": self._trimmer.plain(),
            "given": sorted(self.config.given_keys()),
            "random": distributed.gather_on_main(random_state(self._train_data)),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "tensorboard": tensorboard_folder(self.tensorboard),
            "trackers": self.wandblogger.run_ids(),
        }
        self.tensorboard.flush()
        self._write_checkpoint(epoch, self.run_dir / LAST_NAME, training=training)
        if distributed.is_main():
            forget_previous_best(self.run_dir)

    def _restore_random_state(self) -> None:
        if self._random_states is not None:
            with explain_checkpoint_errors(self.run_dir / LAST_NAME):
                state = self._random_states[distributed.rank()]
                restore_random_state(state)
                restore_loader_states(state["loaders"], self._train_data)
            self._random_states = None

    def resume(self, resumed: Resumed) -> None:
        """Continue a run from its last checkpoint.

        Args:
            resumed: The run.

        Raises:
            CheckpointError: If the checkpoint does not fit the model or cannot be used.
        """
        self.run_dir, self._has_run_dir, self._lock = resumed.folder, True, resumed.lock
        with explain_checkpoint_errors(self.run_dir / LAST_NAME):
            self._restore(resumed.content, resumed.content["training"])
        n_before = len(resumed.content["training"]["changes"])
        self.changes = resumed.changes
        if any(change["key"] == "train_batch_size" for change in resumed.changes[n_before:]):
            is_done = self._left is not None and self._left["steps"] == self._left.get("of")
            self._left = self._left if is_done else None  # else the steps differ now, so the epoch starts again
            self._n_epochs_before = self.start_epoch + is_done
        steps = "" if self._left is None else f" and {counted(self._left['steps'], 'step')}"
        self.logger.info(f"The run in {self.run_dir} continues after {counted(self.start_epoch, 'epoch')}{steps}")
        for difference in resumed.differences():
            self.logger.warning(difference)

    def _restore(self, content: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        self.saved_model_file = str(self.run_dir / Path(training.get("model_file", BEST_NAME)).name)
        load_state(self.model, content)
        for name, optimizer in optimizers(self).items():
            if name in training["optimizers"]:
                restore_optimizer(optimizer, training["optimizers"][name])
        has_arrays = "arrays" in training  # older versions stored every number of the model
        restore_counters(self.model, training["counters"], None if has_arrays else TRAINED_NUMBERS)
        restore_arrays(self.model, training["arrays"] if has_arrays else {})
        self.start_epoch, self.cur_step = int(content["epoch"]) + 1, int(content["cur_step"])
        self.best_valid_score = float(content["best_valid_score"])
        self.best_valid_result = training["best_valid_result"]
        self.best_epoch = int(training["best_epoch"])
        self.train_loss_dict = {int(epoch): loss for epoch, loss in training["train_loss_dict"].items()}
        self.curve = [{**point, "epoch": int(point["epoch"])} for point in training["curve"]]
        self.seconds_before = float(training["seconds"])
        self._tracked = {str(key): str(run) for key, run in (training.get("trackers") or {}).items()}
        self._trimmer.restore(training.get("trimming"))  # older versions did not trim
        self._restore_recipe(training.get("recipe"))  # older versions had none
        self._random_states, left = list(training["random"]), training["left"]
        self._left = None if left is None else {**left, "steps": int(left["steps"])}

    def kept(self) -> str:
        """What this run has saved so far, for the user."""
        if self._train_data is None:
            return ""
        if not self._saved:
            return "nothing was saved"
        last, best = self.run_dir / LAST_NAME, self.run_dir / BEST_NAME
        if self._has_run_dir and last.is_file():
            return f"all completed epochs are kept: --resume={self.run_dir} continues after them"
        if self._has_run_dir and best.is_file():
            return f"the best epoch so far is kept in {best}"
        return "no epoch was completed, so nothing is kept"

    def _claim_run_dir(self) -> None:
        """Make the folder of this run, once, and share its name with the other processes."""
        if self._has_run_dir:
            return
        if distributed.is_main():
            self.run_dir = make_new_folder(self.run_dir)
            self._lock = lock_run(self.run_dir)
        self.run_dir = Path(distributed.broadcast_from_main(str(self.run_dir)))
        self._has_run_dir = True

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        file = kwargs.pop("saved_model_file", None)
        if file is None:
            self._claim_run_dir()
            file = self.saved_model_file = str(self.run_dir / BEST_NAME)
            if distributed.is_main():
                keep_previous_best(self.run_dir)
        self.best_epoch = max(epoch, 0)
        self._write_checkpoint(epoch, file)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {file}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Save the checkpoint between two training stages, for the models that have them (S3Rec, RaCT).

        It is kept in the folder of the run. RecBole's place for it, ``checkpoint_dir`` itself, holds that of the latest
        run; ``pre_model_path`` usually names that file. It is written there without ``saved`` as well, as by RecBole.
        """
        if not self._saved:
            self._write_checkpoint(epoch, saved_model_file)
            return
        self._claim_run_dir()
        self.saved_model_file = str(self.run_dir / Path(saved_model_file).name)
        self._write_checkpoint(epoch, self.saved_model_file)
        if distributed.is_main():
            link_or_copy(self.saved_model_file, saved_model_file)

    def _write_checkpoint(self, epoch: int, file: str | Path, **more: Any) -> None:
        if not distributed.is_main():
            return
        with nullcontext() if "training" in more else self.averaged_weights():
            state = {
                "config": self.config.plain(),
                "epoch": epoch,
                "cur_step": self.cur_step,
                "best_valid_score": float(self.best_valid_score),
                "state_dict": self.model.state_dict(),
                "other_parameter": plain_other_parameter(self.model.other_parameter()),
                "optimizer": self.optimizer.state_dict(),
                "vocabulary": self._vocabulary,
                "data": self._data,
            }
            write_checkpoint({**state, **more}, file)

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """RecBole's evaluation, with the best checkpoint read as plain data."""
        if load_best_model and eval_data:
            file = model_file or self.saved_model_file
            best = read_checkpoint(file, self.device) if distributed.is_main() else None
            load_state(self.model, distributed.broadcast_from_main(best))
            self.logger.info(f"Loading model structure and parameters from {file}")
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
