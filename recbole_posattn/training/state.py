"""The training state besides the weights: random states, optimizers, counters and arrays.

All of it is converted to tensors and plain data, which a checkpoint can hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import TRAINED_ARRAYS

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader, KnowledgeBasedDataLoader
from recbole.trainer import Trainer
from torch import nn

from recbole_posattn.errors import shown
from recbole_posattn.training.plain import plain_other_parameter, restore_other_parameter

# Numbers by module name, then by attribute name.
Counters = Mapping[str, Mapping[str, bool | int | float]]

# The state that PyTorch's optimizers keep for each element of a weight.
_OF_EACH_ELEMENT = {
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    *("momentum_buffer", "sum", "square_avg", "grad_avg", "acc_delta"),
}


def random_state(train_data: AbstractDataLoader) -> dict[str, Any]:
    """The states of all random generators of this process: Python's, NumPy's, PyTorch's and those of the loaders."""
    version, numbers, gauss = random.getstate()
    legacy_state: Any = np.random.get_state()  # NumPy's types leave open that it is a tuple
    algorithm, keys, position, has_gauss, cached = legacy_state
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
    """Restore the state returned by :func:`random_state`, except for the loaders."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([kept.cpu() for kept in state["cuda"]])


def loader_states(train_data: AbstractDataLoader) -> list[torch.Tensor]:
    """The states of the generators from which a loader draws the order of its rows."""
    return [generator.get_state() for generator in _generators(train_data)]


def restore_loader_states(states: Sequence[torch.Tensor], train_data: AbstractDataLoader) -> None:
    """Restore the states returned by :func:`loader_states`."""
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


def restore_optimizer(optimizer: torch.optim.Optimizer, kept: Mapping[str, Any]) -> None:
    """Restore an optimizer's state of each weight; its learning rate and other options stay those of the settings.

    Args:
        optimizer: An optimizer of the same weights.
        kept: The saved result of ``state_dict()``.

    Raises:
        ValueError: If the state does not fit the weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    names = {name for values in kept["state"].values() for name in values}
    for number, values in kept["state"].items():
        for name in names:
            if not _fits(name, values[name], weights[number]):
                raise ValueError(f"{name} of weight {number} in the optimizer is {shown(values[name])}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept["state"], "param_groups": groups})


def _fits(name: str, value: Any, weight: torch.Tensor) -> bool:
    """Whether a value can be part of an optimizer's state for a weight."""
    is_tensor = isinstance(value, torch.Tensor)
    if name in _OF_EACH_ELEMENT:
        return (value is None and name == "momentum_buffer") or (is_tensor and value.shape == weight.shape)
    if name == "step":
        return (_is_number(value) or (is_tensor and value.dim() == 0)) and 0 <= float(value) < math.inf
    return _is_number(value) or is_tensor


def counters(model: nn.Module) -> Counters:
    """The plain numbers among the attributes of a model's modules, by module and name."""
    found = {}
    for name, module in model.named_modules():
        numbers = {key: value for key, value in vars(module).items() if _is_number(value) and key != "training"}
        if numbers:
            found[name] = numbers
    return found


def changed_counters(model: nn.Module, untrained: Counters) -> Counters:
    """The numbers that training has changed, such as the steps that MultiVAE counts for its annealing.

    They are not part of PyTorch's state. Numbers that training does not change come from the settings, which may be
    changed on resume.

    Args:
        model: The model.
        untrained: The result of :func:`counters` before training.
    """
    found = {}
    for name, numbers in counters(model).items():
        before = untrained.get(name, {})
        changed = {key: value for key, value in numbers.items() if key not in before or before[key] != value}
        if changed:
            found[name] = changed
    return found


def restore_counters(model: nn.Module, kept: Counters, names: Collection[str] | None = None) -> None:
    """Restore the numbers returned by :func:`changed_counters`.

    Args:
        model: The model, untrained.
        kept: The numbers.
        names: The attributes to set; all if ``None``.

    Raises:
        ValueError: If one of them is not a number here.
    """
    modules = dict(model.named_modules())
    for name, numbers in kept.items():
        for key, value in numbers.items():
            if names is not None and key not in names:
                continue
            if not (_is_number(value) and _is_number(getattr(modules[name], key, 0))):
                raise ValueError(f"{key} of {name or 'the model'} is not one of its numbers: {shown(value)}")
            setattr(modules[name], key, value)


def trained_arrays(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The tensors and arrays of :data:`recbole_posattn.compat.TRAINED_ARRAYS` by module and name, as plain data."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        for key in _names_of_arrays(module):
            if getattr(module, key) is not None:
                found.setdefault(name, {})[key] = plain_other_parameter(getattr(module, key))
    return found


def restore_arrays(model: nn.Module, kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore the arrays returned by :func:`trained_arrays`.

    Raises:
        ValueError: If one of them does not fit the model.
    """
    modules = dict(model.named_modules())
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    for name, arrays in kept.items():
        for key, plain in arrays.items():
            value, now = restore_other_parameter(plain), getattr(modules[name], key, None)
            is_known = key in _names_of_arrays(modules[name]) and isinstance(value, (torch.Tensor, np.ndarray))
            if not is_known or (now is not None and (type(value), value.shape) != (type(now), now.shape)):
                raise ValueError(f"{key} of {name or 'the model'} does not fit: {shown(value)}")
            setattr(modules[name], key, value.to(device) if isinstance(value, torch.Tensor) else value)


def _names_of_arrays(module: nn.Module) -> list[str]:
    return [
        key for kind in type(module).__mro__ for key in TRAINED_ARRAYS.get(kind.__name__, ()) if hasattr(module, key)
    ]


def _is_number(value: object) -> bool:
    return type(value) in (bool, int, float)
