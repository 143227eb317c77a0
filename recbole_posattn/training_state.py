"""Everything beside the weights that decides how a training goes on: random states, optimizers, counters.

All of it as tensors and plain data, which a checkpoint can hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import recbole_posattn.before_recbole  # noqa: F401

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader, KnowledgeBasedDataLoader
from recbole.trainer import Trainer
from torch import nn


def random_state(train_data: AbstractDataLoader) -> dict[str, Any]:
    """The states of all random numbers that this process draws: Python's, NumPy's, PyTorch's and the loaders' order."""
    version, numbers, gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [algorithm, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "loaders": loader_states(train_data),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Go on with the random numbers where :func:`random_state` found them, but for those of the loaders."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([kept.cpu() for kept in state["cuda"]])


def loader_states(train_data: AbstractDataLoader) -> list[torch.Tensor]:
    """The states of what a loader draws the order of its rows from."""
    return [generator.get_state() for generator in _generators(train_data)]


def restore_loader_states(states: Sequence[torch.Tensor], train_data: AbstractDataLoader) -> None:
    """The inverse of :func:`loader_states`."""
    for generator, kept in zip(_generators(train_data), states):
        generator.set_state(kept.cpu())


def _generators(train_data: AbstractDataLoader) -> Iterator[torch.Generator]:
    if isinstance(train_data, KnowledgeBasedDataLoader):  # two loaders
        yield from (train_data.general_dataloader.generator, train_data.kg_dataloader.generator)
    else:
        yield train_data.generator


def optimizers(trainer: Trainer) -> dict[str, torch.optim.Optimizer]:
    """A trainer's optimizers by the names of its attributes; RecVAE's has several, one of them under two names."""
    found: dict[str, torch.optim.Optimizer] = {}
    for name, value in sorted(vars(trainer).items(), key=lambda item: item[0] == "optimizer"):
        if isinstance(value, torch.optim.Optimizer) and all(value is not other for other in found.values()):
            found[name] = value
    return found


def counters(model: nn.Module) -> dict[str, dict[str, bool | int | float]]:
    """The plain numbers among the attributes of a model's modules, by module and name.

    Some of RecBole's models count steps there (the annealing of MultiVAE), in no state that PyTorch knows of.
    """
    found = {}
    for name, module in model.named_modules():
        numbers = {key: value for key, value in vars(module).items() if _is_number(value)}
        numbers.pop("training", None)
        if numbers:
            found[name] = numbers
    return found


def _is_number(value: object) -> bool:
    return type(value) in (bool, int, float)


def restore_counters(model: nn.Module, kept: Mapping[str, Mapping[str, bool | int | float]]) -> None:
    """The inverse of :func:`counters`."""
    modules = dict(model.named_modules())
    for name, numbers in kept.items():
        for key, value in numbers.items():
            if not (_is_number(value) and _is_number(getattr(modules[name], key))):
                raise ValueError(f"{key} of {name or 'the model'} is none of its numbers: {value!r}")
            setattr(modules[name], key, value)
