"""Presets: settings of PosKernelSASRec and the models on its backbone that belong together, in a file with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.keys import DERIVED_KEYS, KEYS, LAUNCHER_ARGUMENTS, PATH_KEYS, RUN_NAMES
from recbole_posattn.settings.properties import PROPERTIES, named_file
from recbole_posattn.settings.yaml import read_yaml

PRESETS = PROPERTIES / "preset"

# What depends on the data set in any preset, so that a search may draw it.
SIZES = {
    *("MAX_ITEM_LIST_LENGTH", "n_layers", "hidden_size", "hidden_dropout_prob", "attn_dropout_prob"),
    *("learning_rate", "train_batch_size"),
}


def fixed_keys(preset: Any) -> list[str]:
    """The keys that a preset sets for any data set, all but :data:`SIZES`.

    Raises:
        SettingError: If there is no such preset.
    """
    return [key for key in read_yaml(named_file("preset", str(preset))) if key not in SIZES]


def preset_settings(preset: Any, model: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset.

    A preset of this package leaves out the keys that a model does not have, such as those of the kernels with another
    encoding.

    Args:
        preset: A name in ``properties/preset/`` or a path to a YAML file.
        model: Name of the model.
        defaults: The model's settings without the preset.

    Raises:
        SettingError: If there is no such preset, it is for another backbone, or the model does not have a key.
    """
    file = named_file("preset", str(preset))
    settings = read_yaml(file)
    is_ours = file.parent == PRESETS
    if is_ours and defaults.get("backbone") not in (settings["backbone"], KEYS["backbone"].default):
        raise SettingError(
            f"preset {shown(preset)} is for PosKernelSASRec and the models on its backbone; got {model}: leave it out."
        )
    for key in settings:
        if key in {"preset"} | LAUNCHER_ARGUMENTS | RUN_NAMES | DERIVED_KEYS | PATH_KEYS:
            raise SettingError(
                f"preset {file}: key {key!r} cannot be set by a preset; give it in addition to the preset."
            )
        if key not in KEYS and key not in defaults:
            raise SettingError(f"preset {file}: key {shown(key)} is unknown.{did_you_mean(key, {*KEYS, *defaults})}")
        if key not in defaults and not is_ours:
            raise SettingError(f"preset {file}: {model} has no key {key!r}; leave it out.")
    return {key: value for key, value in settings.items() if key in defaults}
