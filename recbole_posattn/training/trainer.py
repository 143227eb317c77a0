"""RecBole's trainers with safe checkpoints, exact evaluation and training in many processes, and mixed precision."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import recbole_posattn.compat  # noqa: F401

import recbole.trainer
import torch
from recbole.data.dataloader import AbstractDataLoader
from recbole.utils import ModelType, get_trainer
from torch.optim import Adam

from recbole_posattn import distributed
from recbole_posattn.models.kernel_summaries import kernel_summaries
from recbole_posattn.models.sasrec import SASRecBase
from recbole_posattn.settings.config import Config
from recbole_posattn.training.checkpoint import write_checkpoint
from recbole_posattn.training.checkpointing import CheckpointMixin
from recbole_posattn.training.trees import TreeMixin

KERNELS_NAME = "kernels"


class SequenceTrainer(CheckpointMixin):
    """The trainer of the models registered here.

    With ``save_kernel_every``, the kernels before training and after every so many epochs are saved in the folder
    :data:`KERNELS_NAME` of the run, in files ``epoch-<number>.pth`` of tensors and plain data.
    """

    _kernels_kept_every: int | None = None

    def _learner_arguments(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        arguments = super()._learner_arguments(optimizer)
        if isinstance(optimizer, Adam) and self.device.type == "cpu":
            arguments["fused"] = True  # one pass over the weights instead of eight
        return arguments

    def _build_optimizer(self, **options: Any) -> torch.optim.Optimizer:
        optimizer = super()._build_optimizer(**options)
        if self.config["weight_decay_on"] == "matrices":
            decay_only(optimizer, self.model.matrices())
        return optimizer

    def fit(self, *data: AbstractDataLoader, saved: bool = True, **options: Any) -> tuple[float, dict | None]:
        """See ``Trainer.fit``."""
        self._kernels_kept_every = self.config["save_kernel_every"] if saved else None
        if self._left is None:  # otherwise the weights are those within an epoch
            self._keep_kernels(self.start_epoch, again=False)
        return super().fit(*data, saved=saved, **options)

    def _train_epoch(self, train_data: AbstractDataLoader, epoch_idx: int, *arguments: Any, **options: Any) -> Any:
        losses = super()._train_epoch(train_data, epoch_idx, *arguments, **options)
        self._keep_kernels(epoch_idx + 1)
        return losses

    def _log_kernels(self) -> None:
        for kernel in kernel_summaries(self.model) if isinstance(self.model, SASRecBase) else ():
            for name in ("mean_lag", "lag_0_share"):
                self.tensorboard.add_scalar(f"Kernels/{kernel.name}/{name}", getattr(kernel, name), self._epoch)
            if kernel.last_row.isfinite().all():  # a histogram refuses others
                self.tensorboard.add_histogram(f"Kernels/{kernel.name}/weights", kernel.last_row, self._epoch)

    def _keep_kernels(self, n_epochs: int, again: bool = True) -> None:
        if not self._kernels_kept_every or n_epochs % self._kernels_kept_every:
            return
        self._claim_run_dir()
        if distributed.is_main():
            file = self.run_dir / KERNELS_NAME / f"epoch-{n_epochs:05}.pth"
            if file.exists() and not again:
                return
            file.parent.mkdir(exist_ok=True)
            with self.averaged_weights():
                write_checkpoint({"epochs": n_epochs, "state_dict": self.model.kernel_state()}, file)


def decay_only(optimizer: torch.optim.Optimizer, weights: Iterable[torch.nn.Parameter]) -> None:
    """Restrict the weight decay of a new optimizer to some of its weights; the others get a group of their own."""
    decayed = {id(weight) for weight in weights}
    for group in list(optimizer.param_groups):
        others = [weight for weight in group["params"] if id(weight) not in decayed]
        group["params"] = [weight for weight in group["params"] if id(weight) in decayed]
        if others:
            optimizer.add_param_group({**group, "params": others, "weight_decay": 0.0})


def trainer_class(config: Config) -> type[recbole.trainer.Trainer]:
    """RecBole's trainer for the configured model, with our checkpoints and engine.

    The tree models of ``recbole.model.exlib_recommender`` are not PyTorch modules and do not use the engine.
    """
    base = get_trainer(config["MODEL_TYPE"], config["model"])
    if issubclass(base, CheckpointMixin):
        return base
    return _derived_trainer(TreeMixin if config["MODEL_TYPE"] == ModelType.DECISIONTREE else CheckpointMixin, base)


@functools.cache
def _derived_trainer(mixin: Any, base: Any) -> type[recbole.trainer.Trainer]:
    """A subclass of ``base`` with the methods of ``mixin``, under the name of ``base``; the same one at each call."""

    class Trainer(mixin, base):
        __doc__ = base.__doc__

    Trainer.__name__ = Trainer.__qualname__ = base.__name__
    return Trainer
