"""Settings on the command line: ``--key=value``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from recbole_posattn.errors import SettingError, shown


def checked_settings(arguments: Sequence[str]) -> Sequence[str]:
    """Check arguments for settings, and return them.

    Raises:
        SettingError: If one of them is not of the form ``--key=value``, or a key has two values.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not (argument.startswith("--") and key and equals):
            form = f"{argument}=VALUE, with an equals sign" if argument.startswith("--") and key else "--key=value"
            raise SettingError(f"argument {shown(argument)} is not understood; give settings as {form}")
        if given.setdefault(key, value) != value:
            raise SettingError(f"{key} was given twice, as {shown(given[key])} and {shown(value)}; give it once")
    return arguments


def parsed_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings in arguments of the form ``--key=value``."""
    from recbole_posattn.settings.yaml import parse_setting

    given = dict(argument.removeprefix("--").split("=", 1) for argument in checked_settings(arguments))
    return {key: parse_setting(key, value) for key, value in given.items()}


def require_positive(options: argparse.Namespace, *names: str) -> None:
    """Refuse given options that are below 1.

    Raises:
        SettingError: Naming the first one that is.
    """
    for name in names:
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise SettingError(f"{name} must be a positive integer; got {getattr(options, name)}.")
