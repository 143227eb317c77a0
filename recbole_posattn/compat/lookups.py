"""The places where RecBole looks up models, data sets, trainers, loaders and metrics by name, and what is put there."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import recbole_posattn.compat  # noqa: F401

import recbole.data.dataset
import recbole.data.utils
import recbole.model
import recbole.trainer
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.evaluator import register
from recbole.evaluator.base_metric import AbstractMetric
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_model

_SUBPACKAGES = {
    ModelType.GENERAL: "general_recommender",
    ModelType.TRADITIONAL: "general_recommender",
    ModelType.CONTEXT: "context_aware_recommender",
    ModelType.SEQUENTIAL: "sequential_recommender",
    ModelType.KNOWLEDGE: "knowledge_aware_recommender",
    ModelType.DECISIONTREE: "exlib_recommender",
}

_MODELS = Path(recbole.model.__file__).parent


def add_model(
    model_class: type[AbstractRecommender], dataset_class: type | None = None, trainer_class: type | None = None
) -> None:
    """Let RecBole's ``get_model``, ``create_dataset`` and ``get_trainer`` find a model by the name of its class.

    Args:
        model_class: The model.
        dataset_class: Its data set; RecBole's choice by default.
        trainer_class: Its trainer; RecBole's choice by default.
    """
    name = model_class.__name__
    module_name = f"recbole.model.{_SUBPACKAGES[model_class.type]}.{name.lower()}"
    module = ModuleType(module_name)
    module.__spec__ = importlib.machinery.ModuleSpec(module_name, loader=None)
    setattr(module, name, model_class)
    sys.modules[module_name] = module
    if dataset_class is not None:
        set_dataset_class(name, dataset_class)
    if trainer_class is not None:
        setattr(recbole.trainer, f"{name}Trainer", trainer_class)


def model_class(name: str) -> type[AbstractRecommender]:
    """The model that RecBole's ``get_model`` finds by the name of its class.

    ``get_model`` imports all general models on its way to a sequential one, which takes a second. Here only the
    models of the type with a module of that name are imported.

    Args:
        name: The name, of a RecBole model or of one that :func:`add_model` added.

    Raises:
        AttributeError, ImportError, ValueError: As ``get_model`` does, if there is no such model.
    """
    file = name.lower()
    for subpackage in dict.fromkeys(_SUBPACKAGES.values()):
        module = f"recbole.model.{subpackage}.{file}"
        if module in sys.modules or (name.isidentifier() and (_MODELS / subpackage / f"{file}.py").is_file()):
            found: type[AbstractRecommender] = getattr(importlib.import_module(module), name)
            return found
    unknown: type[AbstractRecommender] = get_model(name)
    return unknown


def dataset_class_of(model: str) -> Any:
    """The data set class that ``create_dataset`` finds for a model alone; ``None`` if its type decides."""
    return getattr(recbole.data.dataset, f"{model}Dataset", None)


def trainer_class_of(model: str) -> Any:
    """The trainer class that ``get_trainer`` finds for a model alone; ``None`` if its type decides."""
    return getattr(recbole.trainer, f"{model}Trainer", None)


def set_dataset_class(model: str, dataset_class: Callable[[Config], Dataset]) -> None:
    """Let ``create_dataset`` build the data set of a model with a class, or with a function of the settings."""
    setattr(recbole.data.dataset, f"{model}Dataset", dataset_class)


def dataset_class_by_settings(ours: type, recboles: type, is_served: Callable[[Any], bool]) -> Callable[..., Dataset]:
    """A function that builds one data set class if the settings are served, and another one if they are not."""

    def build(config: Config) -> Dataset:
        return (ours if is_served(config) else recboles)(config)

    # create_dataset looks for a cache with the name of the class
    return functools.update_wrapper(build, recboles, updated=())


def replace_dataset_class(recboles: type, ours: type, is_served: Callable[[Any], bool]) -> None:
    """Let a RecBole data set class build ours if the settings are served; the class itself stays."""

    def new(cls: type, *arguments: Any) -> Any:
        if cls is not recboles or not arguments or not is_served(arguments[0]):  # no arguments: it is unpickled
            return object.__new__(cls)
        # Python calls __init__ if the returned object is an instance of the called class
        return object.__new__(ours) if issubclass(ours, cls) else ours(*arguments)

    setattr(recboles, "__new__", new)  # noqa: B010  # mypy allows no assignment to a method


def replace_loaders(replacement: Callable[[type, Any], type]) -> None:
    """Let ``data_preparation`` build other loaders.

    Args:
        replacement: The loader class to use, from RecBole's choice and the settings.
    """
    recboles = recbole.data.utils.get_dataloader

    @functools.wraps(recboles)
    def get_dataloader(config: Config, phase: str) -> type:
        return replacement(recboles(config, phase), config)

    recbole.data.utils.get_dataloader = get_dataloader


def is_better_if_smaller(metric: str) -> bool:
    """Whether RecBole marks a metric, such as ``giniindex@10``, as better if it is smaller."""
    return metric.lower().partition("@")[0] in register.smaller_metrics


def add_metric(metric: type[AbstractMetric]) -> None:
    """Let RecBole's ``Config``, ``Collector`` and ``Evaluator`` find a metric by the name of its class."""
    name = metric.__name__.lower()
    register.metrics_dict[name] = metric
    register.metric_information[name] = metric.metric_need
    register.metric_types[name] = metric.metric_type
