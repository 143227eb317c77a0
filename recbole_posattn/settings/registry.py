"""The models this package adds to RecBole.

RecBole looks up a model, its trainer and its data set by name inside its own package. :func:`register` adds ours
there, so that RecBole's ``get_model``, ``get_trainer`` and ``create_dataset`` find them. ``settings/datasets.py`` does
the same for the data sets and loaders of RecBole's own models. The head of ``compat/`` lists all changes to RecBole.
"""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path

from recbole_posattn.compat import anomaly_detection_unchanged, lookups, patch_sparse_tensor_constructor
from recbole_posattn.compat.samplers import refuse_endless_sampling_of

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.origins import holder, may_replace, record
from recbole_posattn.settings.plugins import import_installed_plugins
from recbole_posattn.settings.properties import inherited_files, model_properties, recbole_model_names

# Registers this package's models, as a plugin would. Imported by name, since settings/ must not import training/.
_BUILT_IN = "recbole_posattn.training.built_in"

_lock = threading.RLock()
_hooked = False


def hook_recbole() -> None:
    """Let RecBole find our models, loaders and metrics, once, when a public name of the package is first used.

    The plugins of installed packages are imported as well.

    Raises:
        SettingError: If one of these cannot be imported.
    """
    global _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            import_module(_BUILT_IN).register_all()
        import_installed_plugins()


def register(
    model_class: type[AbstractRecommender],
    *,
    properties: str | Path | None = None,
    dataset_class: type | None = None,
    trainer_class: type | None = None,
) -> type[AbstractRecommender]:
    """Make a model known to RecBole under its class name.

    A model that derives from a model of this package inherits its defaults, data set and trainer; a model that derives
    from one of RecBole inherits its defaults.

    Args:
        model_class: A RecBole model.
        properties: YAML file with the model's defaults, which :class:`recbole_posattn.Config` reads; they override
            inherited ones.
        dataset_class: Class for RecBole's ``create_dataset``; by default the inherited one or RecBole's choice.
        trainer_class: Class for RecBole's ``get_trainer``; by default the inherited one or RecBole's choice.

    Returns:
        The model class, so that this also serves as a decorator.

    Raises:
        SettingError: If there is a model of that name, or the properties file is missing.
    """
    hook_recbole()
    name = model_class.__name__
    if name in recbole_model_names():
        raise SettingError(f"model {name!r} cannot be registered: RecBole has one of that name; rename the class")
    if name in model_properties and not may_replace("model", name, model_class, redefinable=True):
        raise SettingError(
            f"model {name!r} cannot be registered: there is one of that name, {holder('model', name)}; rename the class"
        )
    path = Path(properties).resolve() if properties is not None else None
    if path is not None and not path.is_file():
        raise SettingError(f"properties of model {name!r} not found: {path}")
    files = (*inherited_files(model_class), *(() if path is None else (path,)))
    base = next((each.__name__ for each in model_class.__mro__[1:] if each.__name__ in model_properties), None)
    if base is not None:
        dataset_class = dataset_class or lookups.dataset_class_of(base)
        trainer_class = trainer_class or lookups.trainer_class_of(base)
    add_model(model_class, files, dataset_class, trainer_class)
    record("model", name, model_class)
    return model_class


def add_model(
    model_class: type[AbstractRecommender],
    properties: tuple[Path, ...],
    dataset_class: type | None,
    trainer_class: type | None,
) -> None:
    """Add a model where RecBole looks for it; ``properties`` are the files of its defaults, the strongest last."""
    lookups.add_model(model_class, dataset_class, trainer_class)
    model_properties[model_class.__name__] = properties


def registered_model_names() -> list[str]:
    """Names of the models registered here, sorted."""
    hook_recbole()
    return sorted(model_properties)


def patched_model_class(model_class: type[AbstractRecommender]) -> type[AbstractRecommender]:
    """Our corrected or faster version of a RecBole model; the model itself if there is none.

    See :mod:`recbole_posattn.models.corrected` and :mod:`recbole_posattn.models.faster`. The model and its base classes
    can build their sparse matrices afterwards.
    """
    patch_sparse_tensor_constructor(model_class)
    # Each import below loads every RecBole model of one type
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
            model = patched_model_class(lookups.model_class(name))
    except (AttributeError, ImportError, ValueError) as error:
        known = registered_model_names() + recbole_model_names()
        if name in known:  # the tree models, which need lightgbm or xgboost
            raise SettingError(f"model {name!r} cannot be used: {error}") from error
        raise SettingError(
            f"model {shown(name)} is unknown.{did_you_mean(name, known)} "
            f"There are {', '.join(registered_model_names())} and RecBole's own models; your own model needs "
            "--plugin=MODULE, the module that registers it."
        ) from None
    refuse_endless_sampling_of(model)
    return model
