"""Averages of the weights over the steps or epochs of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from recbole_posattn.errors import SettingError, shown


class WeightAverage:
    """A running average of a model's weights that can be swapped in for the weights.

    ``ema``: an exponential moving average, θ̄ ← λ θ̄ + (1 − λ) θ after each step, which begins with the weights after its
    first step. ``swa``: the mean of the weights after each epoch (stochastic weight averaging, arXiv 1803.05407).

    Besides the weights it holds one more copy of them, in memory and in the last checkpoint.

    Args:
        model: The model.
        method: ``ema`` or ``swa``.
        decay: λ.
        start_epoch: The first epoch, counted from 0, whose weights are averaged.

    Raises:
        SettingError: If the model normalizes by statistics of the batches, which would not be those of the average.
    """

    def __init__(self, model: nn.Module, method: str, decay: float, start_epoch: int) -> None:
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            raise SettingError(
                f"weight_averaging must be ~ with {type(model).__name__}, which has batch normalization: its "
                f"statistics are not those of averaged weights; got {method!r}."
            )
        self._names = [name for name, _ in model.named_parameters()]
        self._weights = nn.ParameterList(model.parameters())  # the weights themselves: nothing else is copied
        self._average = AveragedModel(
            self._weights, multi_avg_fn=get_ema_multi_avg_fn(decay) if method == "ema" else None
        )
        self._by_step, self._start_epoch = method == "ema", start_epoch
        self._last_epoch = -1  # in the mean of swa
        self._is_in_model = False

    def after_step(self, epoch: int) -> None:
        """Take in the weights after a step of an epoch."""
        if self._by_step and epoch >= self._start_epoch:
            self._average.update_parameters(self._weights)

    def after_epoch(self, epoch: int) -> None:
        """Add the weights after an epoch to the mean, once: a run resumed in the validation calls this again."""
        if not self._by_step and epoch >= self._start_epoch and epoch > self._last_epoch:
            self._average.update_parameters(self._weights)
            self._last_epoch = epoch

    @property
    def _is_empty(self) -> bool:
        return int(self._average.n_averaged) == 0

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Swap the average, if there is one yet, into the model while the block runs."""
        if self._is_empty or self._is_in_model:
            yield
            return
        self._swap()
        self._is_in_model = True
        try:
            yield
        finally:
            self._swap()
            self._is_in_model = False

    def move_into_model(self) -> None:
        """Make the average the weights of the model, and reset the average."""
        if not self._is_empty:
            self._swap()
            self._average.n_averaged.zero_()
            self._last_epoch = -1

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange values, not tensors, to which the optimizer and other modules refer."""
        for weight, average in zip(self._weights, self._average.module.parameters(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def state(self) -> dict[str, Any]:
        """Tensors and plain data, to be restored by :meth:`restore`."""
        weights = dict(zip(self._names, (weight.detach() for weight in self._average.module.parameters()), strict=True))
        return {"n_averaged": int(self._average.n_averaged), "last_epoch": self._last_epoch, "weights": weights}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            ValueError: If it does not fit the model.
        """
        kept, n_averaged = state["weights"], state["n_averaged"]
        if list(kept) != self._names or not isinstance(n_averaged, int) or n_averaged < 0:
            raise ValueError(
                "averaged weights must have the names of the model's weights and a count of at least 0; got "
                f"{shown(', '.join(map(str, kept)))}, count {shown(n_averaged)}"
            )
        for name, average in zip(self._names, self._average.module.parameters(), strict=True):
            if not isinstance(kept[name], torch.Tensor) or kept[name].shape != average.shape:
                raise ValueError(
                    f"the average of {name} must be a tensor of shape {tuple(average.shape)}; got {shown(kept[name])}"
                )
            average.copy_(kept[name])
        self._average.n_averaged.fill_(n_averaged)
        self._last_epoch = int(state["last_epoch"])
