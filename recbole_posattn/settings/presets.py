"""Presets: settings of PosKernelSASRec and the models on its backbone that belong together, in a file with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.keys import DERIVED_KEYS, KEYS, LAUNCHER_ARGUMENTS, RUN_NAMES
from recbole_posattn.settings.properties import named_file
from recbole_posattn.settings.yaml import read_yaml


def preset_settings(preset: Any, model: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset, without the keys that a model does not have.

    Args:
        preset: A name in ``properties/preset/`` or a path to a YAML file.
        model: Name of the model.
        defaults: The model's settings without the preset.

    Raises:
        SettingError: If there is no such preset, the model has another backbone, or a key is unknown.
    """
    file = named_file("preset", str(preset))
    if "backbone" not in defaults:
        raise SettingError(
            f"preset {shown(preset)} is for PosKernelSASRec and the models on its backbone; got {model}: leave it out."
        )
    settings = read_yaml(file)
    for key in settings:
        if key in {"preset"} | LAUNCHER_ARGUMENTS | RUN_NAMES | DERIVED_KEYS:
            raise SettingError(
                f"preset {file}: key {key!r} cannot be set by a preset; give it in addition to the preset."
            )
        if key not in KEYS and key not in defaults:
            raise SettingError(f"preset {file}: key {shown(key)} is unknown.{did_you_mean(key, {*KEYS, *defaults})}")
    return {key: value for key, value in settings.items() if key in defaults}
