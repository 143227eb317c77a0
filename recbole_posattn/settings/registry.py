"""The models this package adds to RecBole, and where their properties live.

RecBole finds a model, its trainer and its data set by name inside its own package. :func:`register` puts ours there, so
that RecBole's ``get_model``, ``get_trainer`` and ``create_dataset`` find them. RecBole's own models get our data sets
and loaders in the same way (:func:`serve`, :func:`hook_loaders`), but only with our ``Config``: with RecBole's they get
RecBole's. The head of ``compat.py`` lists all that is changed in RecBole.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import recbole_posattn.before_recbole  # noqa: F401

import recbole
import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.trainer
import yaml
from recbole.data.dataset import Dataset, KnowledgeBasedDataset, SequentialDataset
from recbole.data.dataset.customized_dataset import DIENDataset, GRU4RecKGDataset, KSRDataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType, get_model

from recbole_posattn.compat import (
    anomaly_detection_unchanged,
    build_sparse_tensors_as_today,
    let_loaders_have_workers,
    let_tokens_be_long,
)
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
from recbole_posattn.data.sampling import let_sampling_end, let_sampling_of_model_end
from recbole_posattn.errors import SettingError, did_you_mean, shown

RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"
ML_100K = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"  # comes with RecBole

_PACKAGE = Path(__file__).parent
# Inside the package in an installed wheel, beside it in a checkout.
PROPERTIES = next(path for path in (_PACKAGE / "properties", _PACKAGE.parent / "properties") if path.is_dir())

_SUBPACKAGES = {
    ModelType.GENERAL: "general_recommender",
    ModelType.TRADITIONAL: "general_recommender",
    ModelType.CONTEXT: "context_aware_recommender",
    ModelType.SEQUENTIAL: "sequential_recommender",
    ModelType.KNOWLEDGE: "knowledge_aware_recommender",
    ModelType.DECISIONTREE: "exlib_recommender",
}

# Property files of RecBole's that are not spelt as the class, so that its Config finds them nowhere but on macOS and
# Windows: without them its tree models fail.
_OTHERWISE_SPELT = {"lightgbm": "LightGBM", "xgboost": "XGBoost"}

_model_properties: dict[str, Path | None] = {}


_lock = threading.RLock()
_hooked = False


def hook_recbole() -> None:
    """Let RecBole find our models, loaders and metrics, once, when a public name of the package is first used."""
    global _hooked
    with _lock:
        if _hooked:
            return
        # these modules import this one
        from recbole_posattn.data.dataset import SequenceDataset
        from recbole_posattn.evaluation.metrics import register_metrics
        from recbole_posattn.models.baselines import BASELINES
        from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
        from recbole_posattn.training.trainer import SequenceTrainer

        let_tokens_be_long()
        let_sampling_end()
        hook_loaders()
        register_metrics()
        for model in (PosKernelSASRec, *BASELINES):
            properties = PROPERTIES / "model" / f"{model.__name__}.yaml"
            _add_model(model, properties, SequenceDataset, SequenceTrainer)
        _hooked = True


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
    _add_model(model_class, path, dataset_class, trainer_class)
    return model_class


def _add_model(
    model_class: type[AbstractRecommender],
    properties: Path | None,
    dataset_class: type | None,
    trainer_class: type | None,
) -> None:
    """Put a model where RecBole looks for it."""
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
    _model_properties[name] = properties


class ServedConfig:
    """Base class of the settings for which RecBole builds our data sets and loaders; for any others it builds its own.

    A model that :func:`register` has added gets ours with any settings.
    """


def _is_served(config: recbole.config.Config) -> bool:
    return isinstance(config, ServedConfig) or config["model"] in _model_properties


# Our data sets and RecBole's, by the type of a model.
_DATASETS = {
    ModelType.SEQUENTIAL: (LazySequentialDataset, SequentialDataset),
    ModelType.GENERAL: (HeldOutDataset, Dataset),
    ModelType.TRADITIONAL: (HeldOutDataset, Dataset),
    ModelType.KNOWLEDGE: (HeldOutKGDataset, KnowledgeBasedDataset),
    ModelType.CONTEXT: (ExactTimesDataset, Dataset),
    ModelType.DECISIONTREE: (ExactTimesDecisionTreeDataset, Dataset),
}

# Ours by the data set class that RecBole has for a single model.
_DATASETS_OF_MODELS = {
    DIENDataset: ExactTimesDIENDataset,
    GRU4RecKGDataset: LazyKGSeqDataset,
    KSRDataset: LazyKGSeqDataset,
}

_served: dict[str, type] = {}


def serve(model: str, model_type: ModelType) -> None:
    """Let RecBole's ``create_dataset`` give a RecBole model our data set, where the settings are served."""
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
    """What ``create_dataset`` calls as the data set class of a model that has none of its own."""

    def build(config: recbole.config.Config) -> Dataset:
        return (ours if _is_served(config) else recboles)(config)

    # create_dataset looks for a cache that has the name of the class
    return functools.update_wrapper(build, recboles, updated=())


def _replace_when_served(recboles: type, ours: type) -> None:
    """Let a RecBole data set class build one of ours for settings that are served; it stays the class that it is."""

    def new(cls: type, *arguments: Any) -> Any:
        if cls is not recboles or not arguments or not _is_served(arguments[0]):  # no arguments: it is unpickled
            return object.__new__(cls)
        # Python calls __init__ of what it gets here if that is an instance of the class that was called
        return object.__new__(ours) if issubclass(ours, cls) else ours(*arguments)

    recboles.__new__ = new


def knows_histories(model: str) -> bool:
    """Whether a model's data set, once :func:`serve` has seen to it, can tell the history of a held-out target."""
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


def registered_model_names() -> list[str]:
    """Names of the models registered here, sorted."""
    hook_recbole()
    return sorted(_model_properties)


def recbole_model_names() -> list[str]:
    """Names of RecBole's own models, sorted; those of its properties, which name each model as its class does."""
    stems = (path.stem for path in (RECBOLE_PROPERTIES / "model").glob("*.yaml"))
    return sorted(_OTHERWISE_SPELT.get(stem, stem) for stem in stems)


def _recbole_model_file(model: str) -> Path:
    spelt = {name: stem for stem, name in _OTHERWISE_SPELT.items()}
    return RECBOLE_PROPERTIES / "model" / f"{spelt.get(model, model)}.yaml"


def recbole_model_keys(model: str) -> set[str]:
    """The keys in RecBole's property file of a model; none for a model without one."""
    file = _recbole_model_file(model)
    return set(yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.is_file() else set()


def mended(model_class: type[AbstractRecommender]) -> type[AbstractRecommender]:
    """What stands for a model of RecBole's whose results are wrong, see :mod:`recbole_posattn.models.corrected`."""
    from recbole_posattn.models.corrected import CORRECTED  # imports all of RecBole's general models, as get_model does

    return CORRECTED.get(model_class, model_class)


def find_model(name: str) -> type[AbstractRecommender]:
    """The class of a model of RecBole's, mended where it has to be, or one registered here.

    Raises:
        SettingError: If there is none of that name, with the nearest name, or it needs a package that is missing.
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


def properties_files(model: str, dataset: str) -> list[Path]:
    """Our default files for a model and a data set, in the order in which they are read.

    What was tuned on a data set is for all models that come along, whose encodings so have the same settings.
    """
    hook_recbole()
    of_model = _model_properties.get(model)
    otherwise_spelt = _recbole_model_file(model) if model in _OTHERWISE_SPELT.values() else None
    files = [PROPERTIES / "overall.yaml", otherwise_spelt, of_model, PROPERTIES / "dataset" / f"{dataset}.yaml"]
    if of_model is not None and of_model.parent == PROPERTIES / "model":
        files.append(PROPERTIES / "tuned" / f"{dataset}.yaml")
    return [path for path in files if path is not None and path.is_file()]


def named_file(kind: str, name: str) -> Path:
    """A file of settings that the user names: one of ``properties/<kind>/`` by its name, or any by its path.

    Args:
        kind: ``protocol``, ``leaderboard`` or ``tuning``.
        name: Without suffix, or a path to a YAML file.

    Raises:
        SettingError: If there is none.
    """
    by_name = {path.stem: path for path in (PROPERTIES / kind).glob("*.yaml")}
    if name in by_name:
        return by_name[name]
    try:
        if Path(name).suffix in (".yaml", ".yml") and Path(name).is_file():
            return Path(name)
    except OSError:  # too long for a name
        pass
    names = ", ".join(sorted(by_name))
    raise SettingError(
        f"{kind} must be one of {names}, or a YAML file; got {shown(name)}.{did_you_mean(name, by_name)}"
    )


def property_keys(*patterns: str) -> set[str]:
    """The keys of all property files, RecBole's and ours, that match one of the glob patterns, such as ``model/*``."""
    hook_recbole()
    files = [path for root in (RECBOLE_PROPERTIES, PROPERTIES) for pattern in patterns for path in root.glob(pattern)]
    files += [path for path in _model_properties.values() if path is not None]
    return {key for path in files for key in yaml.safe_load(path.read_text(encoding="utf-8")) or {}}
