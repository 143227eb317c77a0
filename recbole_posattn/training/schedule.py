"""The learning rate of each step: a linear warm-up, then constant or falling."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.optim.lr_scheduler import LambdaLR


class Schedule(NamedTuple):
    """The learning rate of a step as a share of ``learning_rate``, a function of the number of steps before it.

    Warm-up and linear decay as in BERT (arXiv 1810.04805, §A.2), cosine decay as in SGDR without restarts
    (arXiv 1608.03983, eq. 5).

    Attributes:
        name: ``constant``, ``linear`` or ``cosine``.
        warmup_steps: Number of warm-up steps; the last one has the full learning rate.
        last_step: Step at which the decay ends, counted from the start of the warm-up.
        end_factor: Share of the learning rate after the decay.
    """

    name: str
    warmup_steps: int
    last_step: int
    end_factor: float

    def factor(self, step: int) -> float:
        """The share at a step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.name == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, self.last_step - self.warmup_steps))
        left = 1 - done if self.name == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.end_factor + (1 - self.end_factor) * left

    def start(self, optimizer: torch.optim.Optimizer, step: int) -> LambdaLR:
        """Build a PyTorch scheduler; call its ``step`` after each optimizer step.

        Args:
            optimizer: The optimizer; its learning rate is scaled by :meth:`factor`.
            step: Number of optimizer steps already taken.
        """
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return LambdaLR(optimizer, self.factor, last_epoch=step - 1)
