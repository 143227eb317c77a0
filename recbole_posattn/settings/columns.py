"""The columns that are read if ``load_col`` is not given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole.utils import ModelType

# RecBole's sequential models with item features, and the key that names the features. The same holds for models derived
# from them.
FEATURE_KEYS = {
    "SASRecF": "selected_features",
    "GRU4RecF": "selected_features",
    "FDSA": "selected_features",
    "S3Rec": "item_attribute",
}


def columns_to_load(settings: Mapping[str, Any], model_class: type, with_times: bool = False) -> Any:
    """RecBole's default of ``load_col``, with the columns that the model and its evaluation read.

    RecBole's default loads neither times, which sequences need, nor the histories that split files may have, nor the
    features of items that some models read. Columns that a file lacks are ignored.

    Args:
        settings: Of the run, with all defaults.
        model_class: The model.
        with_times: Whether the model reads the times of histories.
    """
    given = settings.get("load_col") or {}
    columns = given.get("inter")
    if columns in (None, "*"):
        return settings.get("load_col")
    is_sequential = getattr(model_class, "type", None) == ModelType.SEQUENTIAL
    in_order = isinstance(settings["eval_args"], dict) and settings["eval_args"].get("order") == "TO"
    wanted = []
    if is_sequential or settings["mask_history"] is not None or in_order:
        wanted.append(settings["TIME_FIELD"])
    if is_sequential and settings["benchmark_filename"] is not None:
        wanted.append(f"{settings['ITEM_ID_FIELD']}{settings['LIST_SUFFIX']}")
        wanted += [f"{settings['TIME_FIELD']}{settings['LIST_SUFFIX']}"] if with_times else []
    loaded = {**given, "inter": [*columns, *(column for column in wanted if column not in columns)]}
    features = _features(settings, model_class)
    if features and "item" not in loaded:
        loaded["item"] = [settings["ITEM_ID_FIELD"], *features]
    return loaded


def _features(settings: Mapping[str, Any], model_class: type) -> list[str]:
    """The features of items that a model reads; none where the key has no names."""
    names = (FEATURE_KEYS[base.__name__] for base in model_class.__mro__ if base.__name__ in FEATURE_KEYS)
    value = settings.get(next(names, ""))
    values = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [name for name in values if isinstance(name, str)]
