"""Our data sets and loaders, which RecBole's look-ups find for our ``Config``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import recbole_posattn.compat  # noqa: F401
from recbole_posattn.compat import (
    let_loaders_have_workers,
)

import recbole
import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.trainer
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
from recbole_posattn.data.loaders import loader_in_place_of
from recbole_posattn.settings.properties import model_properties


class ServedConfig:
    """Base class of settings for which RecBole builds our data sets and loaders; for others it builds its own.

    A model added by :func:`register` gets ours with any settings.
    """


def _is_served(config: recbole.config.Config) -> bool:
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
    own = getattr(recbole.data.dataset, f"{model}Dataset", None)
    if own is None and model_type in _DATASETS:
        _served[model], recboles = _DATASETS[model_type]
        setattr(recbole.data.dataset, f"{model}Dataset", _dataset_by_settings(_served[model], recboles))
    elif own in _DATASETS_OF_MODELS:
        _served[model] = _DATASETS_OF_MODELS[own]
        _replace_when_served(own, _served[model])


def _dataset_by_settings(ours: type, recboles: type) -> Callable[[recbole.config.Config], Dataset]:
    """A stand-in for the data set class of a model, which ``create_dataset`` calls."""

    def build(config: recbole.config.Config) -> Dataset:
        return (ours if _is_served(config) else recboles)(config)

    # create_dataset looks for a cache with the name of the class
    return functools.update_wrapper(build, recboles, updated=())


def _replace_when_served(recboles: type, ours: type) -> None:
    """Let a RecBole data set class build ours for settings that are served; the class itself stays."""

    def new(cls: type, *arguments: Any) -> Any:
        if cls is not recboles or not arguments or not _is_served(arguments[0]):  # no arguments: it is unpickled
            return object.__new__(cls)
        # Python calls __init__ if the returned object is an instance of the called class
        return object.__new__(ours) if issubclass(ours, cls) else ours(*arguments)

    recboles.__new__ = new


def knows_histories(model: str) -> bool:
    """Whether a model's data set (see :func:`install_dataset_class`) provides the history of a held-out target."""
    dataset_class = _served.get(model) or getattr(recbole.data.dataset, f"{model}Dataset", object)
    return issubclass(dataset_class, LazyPrefixesMixin)


def hook_loaders() -> None:
    """Let RecBole's ``data_preparation`` build our loaders for settings that are served."""
    let_loaders_have_workers()
    recboles = recbole.data.utils.get_dataloader

    @functools.wraps(recboles)
    def get_dataloader(config: recbole.config.Config, phase: str) -> type:
        loader_class = recboles(config, phase)
        return loader_in_place_of(loader_class, config) if _is_served(config) else loader_class

    recbole.data.utils.get_dataloader = get_dataloader
