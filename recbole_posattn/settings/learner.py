"""The optimizers, RecBole's ``learner``, and their further arguments, ``learner_args``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

import torch
from recbole.utils import ModelType
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, SparseAdam

from recbole_posattn.errors import SettingError, did_you_mean, one_line, shown
from recbole_posattn.settings.rules import is_number

# By RecBole's names.
LEARNERS: dict[str, Callable[..., Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "sparse_adam": SparseAdam,
}

# Arguments that have keys of their own, and all arguments that learner_args does not accept.
_OWN_KEYS = {"lr": "learning_rate", "weight_decay": "weight_decay"}
_NOT_OFFERED = {"params", *_OWN_KEYS, "foreach", "maximize", "capturable", "differentiable", "fused"}


def with_arguments(optimizer: Optimizer, arguments: Mapping[str, Any]) -> Optimizer:
    """An optimizer of the same parameters with further arguments."""
    if not arguments:
        return optimizer
    given = {key: optimizer.defaults[key] for key in _OWN_KEYS if key in optimizer.defaults}
    groups: Any = [{"params": group["params"]} for group in optimizer.param_groups]
    build: Any = type(optimizer)  # each takes other arguments
    changed: Optimizer = build(groups, **given, **arguments)
    return changed


def check_sparse_gradients(learner: str, name: str, model: nn.Module) -> None:
    """Refuse ``sparse_adam`` for a model with dense gradients alone, which it does not take.

    Args:
        learner: RecBole's name of the optimizer.
        name: Of the model.
        model: The model.

    Raises:
        SettingError: If no module of the model has sparse gradients.
    """
    if learner.lower() == "sparse_adam" and not any(getattr(module, "sparse", False) for module in model.modules()):
        raise SettingError(
            f"learner sparse_adam is for models with sparse gradients (nn.Embedding(…, sparse=True)); {name} has none: "
            "use adam."
        )


def check_learner_args(settings: Mapping[str, Any], new: bool = False) -> None:
    """Refuse arguments that the optimizer does not take.

    Args:
        settings: Of the run.
        new: Whether no run had them yet; those of a checkpoint have worked, whatever the kinds of their values.

    Raises:
        SettingError: Naming the argument.
    """
    arguments = settings["learner_args"]
    if not arguments:
        return
    learner = settings["learner"].lower()
    if settings["MODEL_TYPE"] == ModelType.DECISIONTREE:
        raise SettingError(
            f"learner_args {shown(arguments)} is for models with an optimizer; leave it out for tree models."
        )
    parameters = inspect.signature(LEARNERS[learner]).parameters
    allowed = [name for name in parameters if name not in _NOT_OFFERED]
    for name, value in arguments.items():
        if name in _OWN_KEYS:
            raise SettingError(f"learner_args: {name} is the key {_OWN_KEYS[name]}; give that one.")
        if name not in allowed:
            raise SettingError(
                f"learner_args must hold arguments of {learner}: {', '.join(allowed)}; got {shown(name)}."
                f"{did_you_mean(name, allowed)}"
            )
        if new:
            _check_kind(name, value, parameters[name].default)
    try:
        with_arguments(LEARNERS[learner]([torch.zeros(1, requires_grad=True)], lr=1e-3), arguments)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        what = f"learner_args {shown(arguments)} does not work with {learner}"
        raise SettingError(f"{what}: {one_line(error)}.") from error


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default, which an optimizer may notice at its first step or never."""
    if isinstance(default, bool):
        holds, kind = isinstance(value, bool), "True or False"
    elif isinstance(default, tuple):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(default)
        holds, kind = is_list and all(map(is_number, value)), f"a list of {len(default)} numbers"
    else:
        holds, kind = is_number(value), "a number"
    if not holds:
        raise SettingError(f"learner_args: {name} must be {kind}; got {shown(value)}.")
