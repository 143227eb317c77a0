"""The training step and the evaluation that all our trainers share."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import without_wandb

import pandas as pd
import recbole.trainer
import torch
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_posattn import distributed
from recbole_posattn.data.shorter import targets_per_row
from recbole_posattn.errors import SettingError
from recbole_posattn.evaluation.collector import BlockwiseCollector
from recbole_posattn.evaluation.target_ranks import user_results
from recbole_posattn.settings.combinations import trains_on_whole_sequences
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.learner import check_sparse_gradients, with_arguments
from recbole_posattn.training import interrupts
from recbole_posattn.training.environment import cpu_watch, warn_of_busy_machine
from recbole_posattn.training.explained_errors import explain_out_of_memory, precision_explained, require_finite
from recbole_posattn.training.memory import keep_freed_memory
from recbole_posattn.training.parallel import (
    autocast_dtype,
    distribute_model,
    reaching_all_parameters,
    trainer_of_one_process,
)
from recbole_posattn.training.tensorboard import SafeWriter
from recbole_posattn.training.tracking import Trackers
from recbole_posattn.training.trimmer import Trimmer
from recbole_posattn.training.trimming import LossFunction
from recbole_posattn.training.whole_sequences import require_whole_sequences, whole_sequence_loss


class EngineMixin(recbole.trainer.Trainer):
    """Mixed precision, compilation, many processes and blockwise evaluation for any of RecBole's trainers.

    With several processes, the gradient of a step equals that of the whole batch in one process: each process's loss
    is weighted by its share of the targets. Evaluation sees each user once.

    Attributes:
        curve: Per-epoch log, in order: ``epoch`` (from 0), ``seconds`` (of training), ``loss``, ``learning_rate`` (of
            the last step, only with ``lr_scheduler``), and ``valid`` (metrics by name) if it was validated.
    """

    def __init__(self, config: Config, model: AbstractRecommender) -> None:
        with trainer_of_one_process(config), without_wandb(config):
            super().__init__(config, model)
        self.clip_grad_norm = None  # see _clip_gradients
        self.wandblogger = Trackers()  # RecBole's trainers call it so
        self.tensorboard: Any = SafeWriter(vars(self)["tensorboard"])
        if distributed.world_size() > 1:
            self.distributed_model = distribute_model(self.model, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.eval_collector = BlockwiseCollector(config)
        self.curve: list[dict[str, Any]] = []
        self._epoch = self._batch = 0  # of the current step
        self._autocast_dtype = torch.bfloat16
        if self.device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            self._autocast_dtype = torch.float16
            self.enable_scaler = self.enable_amp  # gradients in half precision vanish unless they are scaled
        if config["torch_compile"]:
            _compile(self.model, self.device)
        self._trimmer = Trimmer(config, self.model)

    def _prepare_losses(self, train_data: AbstractDataLoader) -> None:
        """Find out how the losses and scores of this model can be computed, before it is trained.

        Raises:
            SettingError: If ``train_objective`` or ``trim_padding`` is not possible with the model.
        """
        if self.config["train_neg_sample_args"].get("dynamic"):
            train_data.get_model(self.model)  # which scores the candidates
        if self._on_whole_sequences:
            require_whole_sequences(self.model, train_data)
        self._trimmer.prepare(train_data, self._own_loss())

    @property
    def _on_whole_sequences(self) -> bool:
        return isinstance(self.config, Config) and trains_on_whole_sequences(self.config)

    def _own_loss(self) -> LossFunction:
        """The model's loss of a batch."""
        return (
            functools.partial(whole_sequence_loss, self.model)
            if self._on_whole_sequences
            else self.model.calculate_loss
        )

    def _trimmed_loss(self, loss_func: LossFunction | None) -> LossFunction:
        """The loss of a batch, by default the model's, computed on shorter histories where that is possible."""
        return self._trimmer.loss(loss_func or self._own_loss())

    @property
    def _n_epochs(self) -> int:
        """The number of epochs to train, or to pretrain."""
        return self.pretrain_epochs if self._is_pretraining else self.epochs

    @property
    def _is_pretraining(self) -> bool:
        is_staged = isinstance(self, recbole.trainer.trainer.PretrainTrainer)
        return is_staged and self.model.train_stage != "finetune"

    def _build_optimizer(self, **options: Any) -> torch.optim.Optimizer:
        check_sparse_gradients(self.config["learner"], self.config["model"], self.model)
        optimizer = super()._build_optimizer(**options)
        optimizer = with_arguments(optimizer, self._learner_arguments(optimizer))
        if self.config["clip_grad_norm"]:
            optimizer.register_step_pre_hook(self._clip_gradients)
        return optimizer

    def _learner_arguments(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Arguments of the optimizer beyond RecBole's own."""
        return dict(self.config["learner_args"] or {})

    def _clip_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Clip the gradients before a step of the optimizer.

        RecBole clips after the backward pass, while gradients in float16 are still scaled by 65,536 or so, and would
        clip every one. Before the step, the scaler has divided those of this optimizer, one of two in RecVAE.
        """
        own = (weight for group in optimizer.param_groups for weight in group["params"])
        clipped = own if self.enable_scaler else self.model.parameters()
        torch.nn.utils.clip_grad_norm_(clipped, **self.config["clip_grad_norm"])

    def _train_epoch(
        self,
        train_data: AbstractDataLoader,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Any:
        started = time.perf_counter()
        cpu_watch.start_period()
        self._epoch, self._batch = epoch_idx, 0
        self.wandblogger.epoch = epoch_idx
        memory = explain_out_of_memory(self.config, True, train_data._dataset.item_num, self.kept)
        with memory, precision_explained(self.config):
            losses = self._train_epoch_in_precision(train_data, epoch_idx, loss_func, show_progress)
        seconds = round(time.perf_counter() - started, 3)
        total = sum(losses) if isinstance(losses, tuple) else losses
        total = 0.0 if total is None else float(total)  # none if the epoch was paused after its last step
        self.curve.append({"epoch": epoch_idx, "seconds": seconds, "loss": total})
        warn_of_busy_machine(self.device)
        if self.config["lr_scheduler"] is None:  # a schedule logs its own
            self.tensorboard.add_scalar("Learning_rate", self.optimizer.param_groups[0]["lr"], epoch_idx)
        return losses

    @property
    def _has_plain_epochs(self) -> bool:
        """Whether an epoch is RecBole's plain loop over batches."""
        return super()._train_epoch.__func__ is recbole.trainer.Trainer._train_epoch

    @property
    def _pausable(self) -> bool:
        """Whether an epoch is a plain loop in one process, and so can be paused and resumed."""
        return self._has_plain_epochs and distributed.world_size() == 1

    def sync_grad_loss(self) -> float:
        """Nothing: the weighted loss reaches all parameters by itself."""
        return 0.0

    def _check_nan(self, loss: Tensor) -> None:
        """RecBole calls this before the backward pass of each step."""
        if not self._pausable:
            self._check_between_steps()
        require_finite(loss, self.model, self._epoch, self._batch, self.config, self.kept)
        self._batch += 1

    def _check_between_steps(self) -> None:
        """A point at which training may end.

        Raises:
            Interrupted: If a signal has arrived.
        """
        interrupts.check()

    def kept(self) -> str:
        """What this run has saved so far, for the user."""
        return ""

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        interrupts.check()
        return super()._full_sort_batch_eval(batched_data)

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        interrupts.check()
        return super()._neg_sample_batch_eval(batched_data)

    def evaluate(self, eval_data: AbstractDataLoader, *arguments: Any, **options: Any) -> dict[str, float] | None:
        """See ``Trainer.evaluate``.

        Raises:
            TrainingError: If memory runs out.
        """
        n_items = eval_data._dataset.item_num if eval_data else 0
        with explain_out_of_memory(self.config, False, n_items, self.kept), self._trimmer.scores(eval_data):
            return super().evaluate(eval_data, *arguments, **options)

    def _valid_epoch(self, valid_data: AbstractDataLoader, show_progress: bool = False) -> tuple[float, dict]:
        # It seeds the loader's workers, and so the negatives, which must be the same in a resumed run.
        valid_data.generator.manual_seed(self.config["seed"] + self._epoch)
        score, result = super()._valid_epoch(valid_data, show_progress)
        if self.curve:
            self.curve[-1]["valid"] = dict(result)
        for metric, value in result.items():
            self.tensorboard.add_scalar(f"Valid/{metric}", value, self._epoch)
        self._log_kernels()
        return score, result

    def _log_kernels(self) -> None:
        """Log what the kernels of the model have learned so far, if it has some."""

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
            weighted = _by_share_of_targets(loss_func or self.model.calculate_loss, self.model, self.device)
            losses = super()._train_epoch(train_data, epoch_idx, weighted, show_progress)
        parts = torch.tensor(losses if isinstance(losses, tuple) else [losses], device=self.device)
        means = (distributed.total(parts) / distributed.world_size()).tolist()
        return tuple(means) if isinstance(losses, tuple) else means[0]

    def evaluate_users(
        self, eval_data: AbstractDataLoader, load_best_model: bool = True, show_progress: bool = False
    ) -> tuple[dict[str, float] | None, pd.DataFrame | None]:
        """RecBole's evaluation, and its results by user.

        Returns:
            The metrics, ``None`` for a split without rows; and the table of
            :func:`recbole_posattn.evaluation.target_ranks.user_results`, ``None`` unless all items are ranked.
        """
        collector = self.eval_collector
        collector.keeps_ranks, collector.ranks = isinstance(eval_data, FullSortEvalDataLoader), None
        try:
            result = self.evaluate(eval_data, load_best_model=load_best_model, show_progress=show_progress)
        finally:
            collector.keeps_ranks = False
        return result, None if collector.ranks is None else user_results(eval_data._dataset, collector.ranks)

    def _map_reduce(self, result: dict[str, float], num_sample: int) -> dict[str, float]:
        """RecBole averages over the processes; here the collector has gathered their rows already.

        All processes use the result of rank 0, so that they also stop in the same epoch.
        """
        return distributed.broadcast_from_main(result)


def _by_share_of_targets(
    loss_func: Callable[[Interaction], Any], model: AbstractRecommender, device: torch.device
) -> Callable[[Interaction], Any]:
    """The loss of this process's part of a batch, weighted so that the mean over the processes is the batch's loss."""

    def weighted_loss(interaction: Interaction) -> Any:
        own = int(targets_per_row(interaction).sum())
        everywhere = distributed.all_reduce_sum_async(torch.tensor(own, dtype=torch.float64, device=device))
        losses = loss_func(interaction)
        weight = own * distributed.world_size() / everywhere().item()
        # The backward pass begins with what comes last: parameters are then ready as soon as their gradients are.
        first, *others = losses if isinstance(losses, tuple) else (losses,)
        first = first * weight + reaching_all_parameters(model)
        return (first, *(loss * weight for loss in others)) if isinstance(losses, tuple) else first

    return weighted_loss


def _compile(model: AbstractRecommender, device: torch.device) -> None:
    """Compile the expensive part of a model: the backbone of ours, ``forward`` of RecBole's.

    Raises:
        SettingError: If the device is a CPU and there is no C++ compiler.
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
