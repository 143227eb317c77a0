"""The files of default settings, RecBole's and ours."""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import recbole_posattn.compat  # noqa: F401

import recbole
import recbole.config
import recbole.data.dataset
import recbole.data.utils
import recbole.trainer
import yaml

from recbole_posattn.errors import SettingError, did_you_mean, shown

RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"
ML_100K = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"  # comes with RecBole
_PACKAGE = Path(__file__).parent.parent

# Inside the package in an installed wheel, beside it in a checkout.
PROPERTIES = next(path for path in (_PACKAGE / "properties", _PACKAGE.parent / "properties") if path.is_dir())

# RecBole's property files that are not spelt as the class. Its Config finds them on macOS and Windows only, and its
# tree models fail without them.
_OTHERWISE_SPELT = {"lightgbm": "LightGBM", "xgboost": "XGBoost"}

# The property files of each model registered here, the strongest last: inherited ones and its own.
model_properties: dict[str, tuple[Path, ...]] = {}


def data_folder(dataset: str, data_path: str | Path | None) -> str | None:
    """The folder of a data set. That of ml-100k is always RecBole's own, as in RecBole; a warning names any other one.

    Args:
        dataset: The name of the data set.
        data_path: The folder of all data sets; without it, the result is ``None`` for any other data set.
    """
    if dataset != ML_100K.name:
        return None if data_path is None else os.path.join(data_path, dataset)
    other = Path(data_path or "dataset") / dataset
    if any(other.glob(f"{dataset}.inter*")) and not (ML_100K.is_dir() and other.samefile(ML_100K)):
        logging.getLogger().warning(
            f"{other} is not read: like RecBole, this package reads {dataset} from RecBole's own folder, {ML_100K}. "
            "To use your files, give the data set another name."
        )
    return str(ML_100K)


def recbole_model_names() -> list[str]:
    """Names of RecBole's own models, sorted, from its property files, which are named after the classes."""
    stems = (path.stem for path in (RECBOLE_PROPERTIES / "model").glob("*.yaml"))
    return sorted(_OTHERWISE_SPELT.get(stem, stem) for stem in stems)


def recbole_model_file(model: str) -> Path:
    """The property file of a model of RecBole, which need not exist."""
    spelt = {name: stem for stem, name in _OTHERWISE_SPELT.items()}
    return RECBOLE_PROPERTIES / "model" / f"{spelt.get(model, model)}.yaml"


def recbole_model_keys(model: str) -> set[str]:
    """The keys in RecBole's property file of a model; none for a model without one."""
    file = recbole_model_file(model)
    return set(_keys_of(file)) if file.is_file() else set()


def inherited_files(model_class: type) -> tuple[Path, ...]:
    """The property files of the nearest base class that is registered here or a model of RecBole; empty without one."""
    for base in model_class.__mro__[1:]:
        if base.__name__ in model_properties:
            return model_properties[base.__name__]
        if base.__module__.startswith("recbole.model.") and recbole_model_file(base.__name__).is_file():
            return (recbole_model_file(base.__name__),)
    return ()


def properties_files(model: str, dataset: str, model_class: type) -> list[Path]:
    """Our default files for a model and a data set, in the order in which they are read.

    Args:
        model: Name of the model.
        dataset: Name of the data set.
        model_class: Its class; one that is not registered has the files of the model of RecBole that it derives from.
    """
    of_model = model_properties.get(model)
    if of_model is None:
        of_model = () if recbole_model_file(model).is_file() else inherited_files(model_class)
    otherwise_spelt = [recbole_model_file(model)] if model in _OTHERWISE_SPELT.values() else []
    files = [PROPERTIES / "overall.yaml", *otherwise_spelt, *of_model, PROPERTIES / "dataset" / f"{dataset}.yaml"]
    return [path for path in (*files, PROPERTIES / "tuned" / dataset / f"{model}.yaml") if path.is_file()]


def named_file(kind: str, name: str) -> Path:
    """A settings file named by the user: a name in ``properties/<kind>/``, or a path.

    Args:
        kind: ``protocol``, ``preset``, ``leaderboard`` or ``tuning``.
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


def is_shipped(kind: str, name: str) -> bool:
    """Whether a name that :func:`named_file` takes is one of ``properties/<kind>/``, and no file of the user."""
    return (PROPERTIES / kind / f"{name}.yaml").is_file()


def property_keys(*patterns: str) -> set[str]:
    """The keys of registered models and of all property files that match a glob pattern, such as ``model/*.yaml``."""
    files = [path for of_model in model_properties.values() for path in of_model]
    return {key for path in files for key in _keys_of(path)} | shipped_keys(*patterns)


def shipped_keys(*patterns: str) -> set[str]:
    """The keys of all property files, RecBole's and ours, that match one of the glob patterns."""
    files = (path for root in (RECBOLE_PROPERTIES, PROPERTIES) for pattern in patterns for path in root.glob(pattern))
    return {key for path in files for key in _keys_of(path)}


@functools.cache
def _keys_of(path: Path) -> list[str]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
