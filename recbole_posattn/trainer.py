"""RecBole's trainers with safe checkpoints, exact evaluation and training in many processes, and mixed precision."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import recbole.trainer
import torch
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_local_time, get_trainer, set_color

from recbole_posattn import distributed
from recbole_posattn.compat import (
    autocast_dtype,
    distribute_model,
    plain_other_parameter,
    restore_other_parameter,
    trainer_of_one_process,
)
from recbole_posattn.config import Config
from recbole_posattn.errors import CheckpointError, SettingError
from recbole_posattn.evaluation.collector import BlockwiseCollector
from recbole_posattn.evaluation.users import user_results
from recbole_posattn.fields import TARGET_LIST_FIELD

CHECKPOINT_NAME, KERNELS_NAME = "best.pth", "kernels"


class EngineMixin:
    """Mixed precision, compilation, many processes and blockwise evaluation for any of RecBole's trainers.

    In many processes the gradient of a step is that of the whole batch in one process: each process's loss counts by
    its share of the targets, and evaluation sees each user once.

    Attributes:
        curve: What each epoch told, in order: ``epoch`` (from 0), ``seconds`` (of training), ``loss``, and ``valid``
            (metrics by name) where it was validated.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        with trainer_of_one_process(config):
            super().__init__(config, model)
        if distributed.world_size() > 1:
            self.distributed_model = distribute_model(self.model, self.device)
        self.eval_collector = BlockwiseCollector(config)
        self.curve: list[dict[str, Any]] = []
        self._autocast_dtype = torch.bfloat16
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            self._autocast_dtype = torch.float16
            self.enable_scaler = self.enable_amp  # gradients in half precision vanish unless they are scaled
        if config["torch_compile"]:
            _compile(self.model, self.device)

    def _train_epoch(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: Callable[[Interaction], Any] | None = None,
        show_progress: bool = False,
    ) -> Any:
        started = time.perf_counter()
        losses = self._train_epoch_in_precision(train_data, epoch_idx, loss_func, show_progress)
        seconds = round(time.perf_counter() - started, 3)
        total = sum(losses) if isinstance(losses, tuple) else losses
        self.curve.append({"epoch": epoch_idx, "seconds": seconds, "loss": float(total)})
        return losses

    def _valid_epoch(self, valid_data: AbstractDataLoader, show_progress: bool = False) -> tuple[float, dict]:
        score, result = super()._valid_epoch(valid_data, show_progress)
        if self.curve:
            self.curve[-1]["valid"] = dict(result)
        return score, result

    def _train_epoch_in_precision(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: Callable[[Interaction], Any] | None,
        show_progress: bool,
    ) -> Any:
        with autocast_dtype(self.device, self._autocast_dtype):
            if distributed.world_size() == 1:
                return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
            weighted = _by_share_of_targets(loss_func or self.model.calculate_loss, self.device)
            losses = super()._train_epoch(train_data, epoch_idx, weighted, show_progress)
        parts = torch.tensor(losses if isinstance(losses, tuple) else [losses], device=self.device)
        means = (distributed.total(parts) / distributed.world_size()).tolist()
        return tuple(means) if isinstance(losses, tuple) else means[0]

    def evaluate_users(
        self, eval_data: AbstractDataLoader, load_best_model: bool = True, show_progress: bool = False
    ) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
        """RecBole's evaluation, and what it found user by user.

        Returns:
            The metrics, ``None`` for a split without rows; and the table of
            :func:`recbole_posattn.evaluation.users.user_results`, ``None`` unless all items are ranked.
        """
        collector = self.eval_collector
        collector.keeps_ranks, collector.ranks = isinstance(eval_data, FullSortEvalDataLoader), None
        try:
            result = self.evaluate(eval_data, load_best_model=load_best_model, show_progress=show_progress)
        finally:
            collector.keeps_ranks = False
        return result, None if collector.ranks is None else user_results(eval_data._dataset, collector.ranks)

    def _map_reduce(self, result: dict[str, float], num_sample: int) -> dict[str, float]:
        return result  # of all processes already: the collector has gathered their rows


def _by_share_of_targets(loss_func: Callable[[Interaction], Any], device: torch.device) -> Callable[[Interaction], Any]:
    """The loss of this process's part of a batch, so that the mean over the processes is the loss of the batch."""

    def weighted_loss(interaction: Interaction) -> Any:
        labelled = interaction[TARGET_LIST_FIELD] > 0 if TARGET_LIST_FIELD in interaction else None
        own = len(interaction) if labelled is None else int(labelled.sum())
        everywhere = distributed.total(torch.tensor(own, dtype=torch.float64, device=device)).item()
        weight = own * distributed.world_size() / everywhere
        losses = loss_func(interaction)
        return tuple(loss * weight for loss in losses) if isinstance(losses, tuple) else losses * weight

    return weighted_loss


def _compile(model: AbstractRecommender, device: torch.device) -> None:
    """Compile what the model spends its time in: the backbone of ours, ``forward`` of RecBole's.

    Raises:
        SettingError: If there is no C++ compiler, which code for CPUs needs.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise SettingError(
            f"torch_compile needs a C++ compiler, and there is no {compiler!r}; install one, name it in the "
            "environment variable CXX, or leave torch_compile out."
        )
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, torch.nn.Module):
        backbone.compile(dynamic=True)
    else:
        model.forward = torch.compile(model.forward, dynamic=True)


class CheckpointMixin:
    """Checkpoints for any of RecBole's trainers: tensors and plain data only, complete or not there at all.

    RecBole pickles the whole ``Config`` into a checkpoint, which torch ≥ 2.6 refuses to load, rightly: loading it runs
    whatever it contains. Here the settings are plain data, and ``torch.load(weights_only=True)`` reads the file. Of
    many processes, rank 0 writes and reads.

    Attributes:
        run_dir: Folder of this run below ``checkpoint_dir``, made with the first checkpoint.
        best_epoch: Epoch of the checkpoint that is kept, counted from 0; −1 before there is one.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        super().__init__(config, model)
        self.run_dir = Path(self.checkpoint_dir) / f"{config['model']}-{config['dataset']}-{get_local_time()}"
        self.saved_model_file = str(self.run_dir / CHECKPOINT_NAME)
        self.best_epoch = -1
        self._has_run_dir = False

    def _claim_run_dir(self) -> None:
        """Make the folder of this run, once, and tell the other processes its name."""
        if self._has_run_dir:
            return
        if distributed.is_main():
            self.run_dir = _make_new_dir(self.run_dir)
        self.run_dir = Path(distributed.share_from_main(str(self.run_dir)))
        self._has_run_dir = True

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        file = kwargs.pop("saved_model_file", None)
        if file is None:
            self._claim_run_dir()
            file = self.saved_model_file = str(self.run_dir / CHECKPOINT_NAME)
        self.best_epoch = max(epoch, 0)
        self._write_checkpoint(epoch, file)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {file}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """The checkpoint between two training stages, of the models that have such (S3Rec)."""
        self._write_checkpoint(epoch, saved_model_file)
        self.saved_model_file = saved_model_file

    def _write_checkpoint(self, epoch: int, file: str) -> None:
        if not distributed.is_main():
            return
        state = {
            "config": self.config.plain(),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            "state_dict": self.model.state_dict(),
            "other_parameter": plain_other_parameter(self.model.other_parameter()),
            "optimizer": self.optimizer.state_dict(),
        }
        _save_whole(state, file)

    @torch.no_grad()
    def evaluate(self, eval_data, load_best_model=True, model_file=None, show_progress=False):
        """RecBole's evaluation, with the best checkpoint read as plain data."""
        if load_best_model and eval_data:
            file = model_file or self.saved_model_file
            best = read_checkpoint(file, self.device) if distributed.is_main() else None
            load_state(self.model, distributed.share_from_main(best))
            self.logger.info(f"Loading model structure and parameters from {file}")
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)


class SequenceTrainer(CheckpointMixin, EngineMixin, recbole.trainer.Trainer):
    """The trainer of the models registered here.

    With ``save_kernel_every``, the kernels as they are before training and after every so many epochs are kept in
    the folder :data:`KERNELS_NAME` of the run: a file ``epoch-<number>.pth`` each, of tensors and plain data.
    """

    _kernels_kept_every: int | None = None

    def fit(self, *data: AbstractDataLoader, saved: bool = True, **options: Any) -> tuple[float, dict | None]:
        """See ``Trainer.fit``."""
        self._kernels_kept_every = self.config["save_kernel_every"] if saved else None
        self._keep_kernels(self.start_epoch)
        return super().fit(*data, saved=saved, **options)

    def _train_epoch(self, train_data: AbstractDataLoader, epoch_idx: int, *arguments: Any, **options: Any) -> Any:
        losses = super()._train_epoch(train_data, epoch_idx, *arguments, **options)
        self._keep_kernels(epoch_idx + 1)
        return losses

    def _keep_kernels(self, n_epochs: int) -> None:
        if not self._kernels_kept_every or n_epochs % self._kernels_kept_every:
            return
        self._claim_run_dir()
        if distributed.is_main():
            folder = self.run_dir / KERNELS_NAME
            folder.mkdir(exist_ok=True)
            state = {"epochs": n_epochs, "state_dict": self.model.kernel_state()}
            _save_whole(state, folder / f"epoch-{n_epochs:05}.pth")


def trainer_class(config: Config) -> type[recbole.trainer.Trainer]:
    """RecBole's trainer for the configured model, with our checkpoints and engine.

    The tree models of ``recbole.model.exlib_recommender`` are no PyTorch modules and keep RecBole's own.
    """
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    if issubclass(base, CheckpointMixin) or config["MODEL_TYPE"] == ModelType.DECISIONTREE:
        return base
    return type(base.__name__, (CheckpointMixin, EngineMixin, base), {})


def _save_whole(state: dict[str, Any], file: str | Path) -> None:
    """Write a file that is whole or not there at all."""
    incomplete = f"{file}.incomplete"
    torch.save(state, incomplete)
    os.replace(incomplete, file)


def read_checkpoint(file: str | Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint's content; nothing in the file is executed.

    Raises:
        CheckpointError: If there is no such file or it is not a checkpoint written by this package.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on foreign pickles; they are refused below
            checkpoint = torch.load(file, map_location=device, weights_only=True)
    except OSError as error:
        raise CheckpointError(f"checkpoint {file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what is not a checkpoint can fail anywhere in the reader, with any error
        raise CheckpointError(
            f"checkpoint {file} is not a checkpoint of recbole-posattn; RecBole's own, which can run code when they "
            "are loaded, are not read: train the model again with this package"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("config"), dict):
        raise CheckpointError(f"checkpoint {file} holds no settings: it was not written by recbole-posattn")
    return checkpoint


def load_state(model: AbstractRecommender, checkpoint: dict[str, Any]) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        CheckpointError: If the weights do not fit the model, for instance because the data set has changed.
    """
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint does not fit the model: {reason}") from error
    model.load_other_parameter(restore_other_parameter(checkpoint.get("other_parameter")))


def _make_new_dir(path: Path) -> Path:
    """Make a folder of this name, with a number behind it if another run started in the same second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise FileExistsError(f"no free name for {path}")
