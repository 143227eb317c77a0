"""The models this package adds to RecBole.

RecBole looks up a model, its trainer and its data set by name inside its own package. :func:`register` adds ours
there, so that RecBole's ``get_model``, ``get_trainer`` and ``create_dataset`` find them. ``settings/datasets.py`` does
the same for the data sets and loaders of RecBole's own models. The head of ``compat.py`` lists all changes to RecBole.
"""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import (
    anomaly_detection_unchanged,
    build_sparse_tensors_as_today,
)

import recbole
import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.trainer
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_model

from recbole_posattn.data.sampling import let_sampling_of_model_end
from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.properties import model_properties, recbole_model_names

_SUBPACKAGES = {
    ModelType.GENERAL: "general_recommender",
    ModelType.TRADITIONAL: "general_recommender",
    ModelType.CONTEXT: "context_aware_recommender",
    ModelType.SEQUENTIAL: "sequential_recommender",
    ModelType.KNOWLEDGE: "knowledge_aware_recommender",
    ModelType.DECISIONTREE: "exlib_recommender",
}
# Registers this package's models, as a third-party plugin would; its room stands above this one.
_BUILT_IN = "recbole_posattn.training.built_in"

_lock = threading.RLock()
_hooked = False


def hook_recbole() -> None:
    """Let RecBole find our models, loaders and metrics, once, when a public name of the package is first used."""
    global _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            import_module(_BUILT_IN).register_all()


def register(
    model_class: type[AbstractRecommender],
    *,
    properties: str | Path | None = None,
    dataset_class: type | None = None,
    trainer_class: type | None = None,
) -> type[AbstractRecommender]:
    """Make a model known to RecBole under its class name.

    Args:
        model_class: A RecBole model.
        properties: YAML file with the model's defaults, which :class:`recbole_posattn.Config` reads.
        dataset_class: What RecBole's ``create_dataset`` uses for it; RecBole's choice by default.
        trainer_class: What RecBole's ``get_trainer`` uses for it; RecBole's choice by default.

    Returns:
        The model class, so that this also serves as a decorator.

    Raises:
        SettingError: If RecBole has a model of that name, or the properties file is missing.
    """
    hook_recbole()
    name = model_class.__name__
    if name in recbole_model_names():
        raise SettingError(f"model {name!r} cannot be registered: RecBole has one of that name; rename the class")
    path = Path(properties).resolve() if properties is not None else None
    if path is not None and not path.is_file():
        raise SettingError(f"properties of model {name!r} not found: {path}")
    add_model(model_class, path, dataset_class, trainer_class)
    return model_class


def add_model(
    model_class: type[AbstractRecommender],
    properties: Path | None,
    dataset_class: type | None,
    trainer_class: type | None,
) -> None:
    """Add a model where RecBole looks for it."""
    name = model_class.__name__
    module_name = f"recbole.model.{_SUBPACKAGES[model_class.type]}.{name.lower()}"
    module = ModuleType(module_name)
    module.__spec__ = importlib.machinery.ModuleSpec(module_name, loader=None)
    setattr(module, name, model_class)
    sys.modules[module_name] = module  # where get_model looks
    if dataset_class is not None:
        setattr(recbole.data.dataset, f"{name}Dataset", dataset_class)  # where create_dataset looks
    if trainer_class is not None:
        setattr(recbole.trainer, f"{name}Trainer", trainer_class)  # where get_trainer looks
    model_properties[name] = properties


def registered_model_names() -> list[str]:
    """Names of the models registered here, sorted."""
    hook_recbole()
    return sorted(model_properties)


def mended(model_class: type[AbstractRecommender]) -> type[AbstractRecommender]:
    """Our version of a RecBole model whose results are wrong, or that takes long for no reason.

    See :mod:`recbole_posattn.models.corrected` and :mod:`recbole_posattn.models.faster`.
    """
    # each of these imports all of RecBole's models of a type, as get_model does
    if model_class.type == ModelType.SEQUENTIAL:
        with anomaly_detection_unchanged():
            from recbole_posattn.models.faster import FASTER

        return FASTER.get(model_class, model_class)
    from recbole_posattn.models.corrected import CORRECTED

    return CORRECTED.get(model_class, model_class)


def find_model(name: str) -> type[AbstractRecommender]:
    """The class of a RecBole model, corrected if necessary, or of a model registered here.

    Raises:
        SettingError: If there is no such model, with the nearest name, or if it needs a package that is missing.
    """
    hook_recbole()
    try:
        with anomaly_detection_unchanged():
            model = mended(get_model(name))
        build_sparse_tensors_as_today(model)
    except (AttributeError, ImportError, ValueError) as error:
        known = registered_model_names() + recbole_model_names()
        if name in known:  # the tree models, which need lightgbm or xgboost
            raise SettingError(f"model {name!r} cannot be used: {error}") from error
        raise SettingError(
            f"model {shown(name)} is unknown.{did_you_mean(name, known)} "
            f"There are {', '.join(registered_model_names())} and RecBole's own models."
        ) from None
    let_sampling_of_model_end(model)
    return model
