"""Protocols: files of keys that say how a run is evaluated."""

from __future__ import annotations

from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, did_you_mean, shown
from recbole_posattn.settings.keys import KEYS, PROTOCOL_KEYS
from recbole_posattn.settings.properties import named_file
from recbole_posattn.settings.yaml import read_yaml


def read_protocol(name: str) -> dict[str, Any]:
    """The keys of a protocol.

    Args:
        name: In ``properties/protocol/``, or a path to a YAML file.

    Raises:
        SettingError: If there is none, or it sets a key that does not belong to an evaluation.
    """
    file = named_file("protocol", name)
    settings = read_yaml(file)
    for key in settings:
        if key in KEYS and key not in PROTOCOL_KEYS:
            raise SettingError(
                f"protocol {file}: {key} does not belong to the evaluation or the data; give it as a setting in "
                "addition to the protocol."
            )
        if key not in KEYS:
            raise SettingError(f"protocol {file}: key {shown(key)} is unknown.{did_you_mean(key, PROTOCOL_KEYS)}")
    return settings
