"""Our data sets and loaders, which RecBole's look-ups find for our ``Config``."""

from __future__ import annotations

from typing import Any

from recbole_posattn.compat import lookups
from recbole_posattn.compat.data import patch_loader_workers

from recbole.config import Config
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.dataset.customized_dataset import DIENDataset, GRU4RecKGDataset, KSRDataset
from recbole.utils import ModelType

from recbole_posattn.data.dataset import (
    ExactTimesDataset,
    ExactTimesDecisionTreeDataset,
    ExactTimesDIENDataset,
    HeldOutDataset,
    HeldOutKGDataset,
    LazyKGSeqDataset,
    LazyPrefixesMixin,
    LazySequentialDataset,
)
from recbole_posattn.data.loaders import loader_instead_of
from recbole_posattn.settings.properties import PROPERTIES, model_properties


class ServedConfig:
    """Base class of settings for which RecBole builds our data sets and loaders; for all others it builds its own.

    A model added by :func:`register` gets ours with any settings.
    """


def needs_our_settings(config: Config, model: str) -> bool:
    """Whether a model of this package has been given RecBole's own ``Config``.

    That neither reads the model's defaults nor derives settings from the given ones, such as whether the model reads
    times or which histories a batch needs.

    Args:
        config: Any settings.
        model: Name of a model.
    """
    is_ours = any(file.parent == PROPERTIES / "model" for file in model_properties.get(model, ()))
    return is_ours and not isinstance(config, ServedConfig)


def _is_served(config: Config) -> bool:
    return isinstance(config, ServedConfig) or config["model"] in model_properties


# Our data sets and RecBole's, by the type of a model.
_DATASETS = {
    ModelType.SEQUENTIAL: (LazySequentialDataset, SequentialDataset),
    ModelType.GENERAL: (HeldOutDataset, Dataset),
    ModelType.TRADITIONAL: (HeldOutDataset, Dataset),
    ModelType.KNOWLEDGE: (HeldOutKGDataset, KnowledgeBasedDataset),
    ModelType.CONTEXT: (ExactTimesDataset, Dataset),
    ModelType.DECISIONTREE: (ExactTimesDecisionTreeDataset, Dataset),
}

# Ours, by RecBole's data set class for a single model.
_DATASETS_OF_MODELS = {
    DIENDataset: ExactTimesDIENDataset,
    GRU4RecKGDataset: LazyKGSeqDataset,
    KSRDataset: LazyKGSeqDataset,
}
_served: dict[str, type] = {}


def install_dataset_class(model: str, model_type: ModelType) -> None:
    """Let RecBole's ``create_dataset`` build our data set for a RecBole model if the settings are served."""
    if model in _served:
        return
    own = lookups.dataset_class_of(model)
    if own is None and model_type in _DATASETS:
        _served[model], recboles = _DATASETS[model_type]
        by_settings = lookups.dataset_class_by_settings(_served[model], recboles, _is_served)
        lookups.set_dataset_class(model, by_settings)
    elif own in _DATASETS_OF_MODELS:
        _served[model] = _DATASETS_OF_MODELS[own]
        lookups.replace_dataset_class(own, _served[model], _is_served)


def knows_histories(model: str) -> bool:
    """Whether a model's data set (see :func:`install_dataset_class`) provides the history of a held-out target."""
    dataset_class = _served.get(model) or lookups.dataset_class_of(model) or object
    return issubclass(dataset_class, LazyPrefixesMixin)


def hook_loaders() -> None:
    """Let RecBole's ``data_preparation`` build our loaders for settings that are served."""
    patch_loader_workers()
    lookups.replace_loaders(_loader_by_settings)


def _loader_by_settings(loader_class: type, config: Any) -> type:
    return loader_instead_of(loader_class, config) if _is_served(config) else loader_class
