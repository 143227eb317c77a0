"""Plugins: modules that register models, kernels, encodings and losses when they are imported.

A plugin is imported because the user names it (``--plugin``, the key ``plugins``) or has installed it (the entry-point
group :data:`GROUP`), in every process. A checkpoint holds the names of the plugins of its run to show them; nothing is
imported because a checkpoint names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401

from recbole_posattn.errors import SettingError, UserError, one_line, shown
from recbole_posattn.nn.encodings.build import ENCODINGS
from recbole_posattn.nn.kernels.structures import STRUCTURES
from recbole_posattn.nn.losses.build import LOSSES
from recbole_posattn.settings.origins import origin, registered_by, used_names
from recbole_posattn.settings.properties import model_properties, recbole_model_names
from recbole_posattn.settings.rules import MODULE, MODULES

KEY = "plugins"
GROUP = "recbole_posattn.plugins"

# Plugins that have been imported, and those of them that are installed, which every process imports.
_imported: set[str] = set()
_installed: set[str] = set()
_installed_are_imported = False

# How many names of a checkpoint's plugins a message shows.
_MOST_SHOWN = 5


def listed_plugins(value: Any) -> list[str]:
    """The value of the key ``plugins`` as a list: a single name counts as a list of one.

    Raises:
        SettingError: If it is not a list of names of modules.
    """
    names = [value] if isinstance(value, str) else [] if value is None else value
    if isinstance(names, (list, tuple)):
        for name in names:
            if not MODULE.holds(name):
                raise SettingError(f"plugins: each must be {MODULE.allowed}; got {shown(name)}.{_as_module(name)}")
    if not MODULES.holds(names):
        raise SettingError(f"{KEY} must be {MODULES.allowed}; got {shown(value)}.")
    return list(names)


def _as_module(name: Any) -> str:
    """A hint for a path to a Python file."""
    dotted = str(name).strip("./\\").removesuffix(".py").replace("/", ".").replace("\\", ".")
    return f" Did you mean {dotted!r}?" if dotted != name and MODULE.holds(dotted) else ""


def with_plugins(*settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of several sources, the later ones overriding the earlier, with the plugins of all of them.

    Raises:
        SettingError: If a value of ``plugins`` is not a list of names of modules.
    """
    merged = {key: value for each in settings for key, value in each.items()}
    if KEY in merged:
        named = [name for each in settings if KEY in each for name in listed_plugins(each[KEY])]
        merged[KEY] = list(dict.fromkeys(named))
    return merged


def import_plugins(names: Iterable[str], folder: Path | None = None) -> None:
    """Import plugins that the user has named, each once in a process.

    Args:
        names: Dotted names of modules.
        folder: Where modules that are not installed are found; the current folder by default, as with ``python -m``.

    Raises:
        SettingError: If one cannot be imported, or registers a name that is taken.
    """
    for name in listed_plugins(list(names)):
        if name not in _imported:
            path = str(Path.cwd() if folder is None else folder)
            if path not in sys.path:
                sys.path.insert(0, path)
            _import(name, f"plugin {shown(name)}", f"installed here or below the folder {path}")


def import_installed_plugins() -> None:
    """Import the plugins that installed packages declare as entry points, once in a process.

    Raises:
        SettingError: If one cannot be imported, or registers a name that is taken.
    """
    global _installed_are_imported
    if _installed_are_imported:
        return
    _installed_are_imported = True  # before the imports, which lead here again
    try:
        for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.module):
            package = entry.dist.name if entry.dist is not None else "unknown"
            _installed.add(entry.module)
            _import(entry.module, f"plugin {shown(entry.module)} of the installed package {package!r}", "in it")
    except BaseException:
        _installed_are_imported = False
        raise


def has_installed_plugins() -> bool:
    """Whether an installed package has plugins."""
    return bool(_installed)


def _import(name: str, what: str, where: str) -> None:
    """Import a module as a plugin, and explain failures."""
    importlib.invalidate_caches()
    try:
        with registered_by(name):
            importlib.import_module(name)
    except UserError as error:
        raise SettingError(f"{what} cannot be used: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # code of other people can fail in any way
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        reason = f"there is no module of that name {where}" if missing else f"{type(error).__name__}: {one_line(error)}"
        raise SettingError(f"{what} cannot be imported: {reason}.") from error
    _imported.add(name)


def plugins_of_run(settings: Mapping[str, Any]) -> list[str]:
    """The plugins that a run names, and those that have registered a name in its settings."""
    plugins = listed_plugins(settings.get(KEY))
    for key, name in used_names(settings):
        found = origin(key, name)
        if found is not None and found.plugin is not None:
            plugins.append(found.plugin)
    return list(dict.fromkeys(plugins))


def check_plugins_of_checkpoint(settings: Mapping[str, Any]) -> None:
    """Refuse the settings in a checkpoint that need a plugin which has not been imported. Nothing is imported here.

    Args:
        settings: From a checkpoint that anybody may have written.

    Raises:
        SettingError: Naming the flags to add.
    """
    recorded = settings.get(KEY)
    names = [name for name in recorded if MODULE.holds(name)] if isinstance(recorded, list) else []
    missing = [name for name in dict.fromkeys(names) if name not in _imported][:_MOST_SHOWN]
    has_parts = "train_objective" in settings  # a model of ours, or one derived from it
    used = [(key, name) for key, name in used_names(settings) if has_parts or key == "model"]
    unknown = next((each for each in used if not _is_known(*each)), None)
    if not missing or unknown is None:
        return
    flags = " ".join(f"--plugin={name}" for name in missing)
    raise SettingError(
        f"{unknown[0]} {shown(unknown[1])} is unknown here: the run used the plugins {', '.join(missing)}. Plugins are "
        f"never imported just because a checkpoint names them: if you trust them, add {flags}, or import them first in "
        "Python."
    )


def _is_known(key: str, name: str) -> bool:
    if key == "model":
        return name in model_properties or name in recbole_model_names()
    tables: dict[str, Mapping[str, Any]] = {
        "kernel_structure": STRUCTURES,
        "kernel_branch": STRUCTURES,
        "position_encoding": ENCODINGS,
        "loss_type": LOSSES,
    }
    return name in tables[key]


def check_known_in_workers(settings: Mapping[str, Any]) -> None:
    """Refuse names that processes of their own would not know: those that no plugin of the settings registers.

    Args:
        settings: Values by key; lists are searched for names. ``plugins`` are the plugins that the processes import.

    Raises:
        SettingError: Naming the key, the name and what to do.
    """
    plugins = {*listed_plugins(settings.get(KEY)), *_installed}
    for key, name in used_names(settings):
        found = origin(key, name)
        if found is None or found.is_from(plugins):
            continue
        if found.plugin is not None:
            raise SettingError(
                f"{key} {name!r} belongs to plugin {found.plugin!r}, which the settings do not list: add "
                f"{found.plugin} to {KEY}, for the processes of the runs."
            )
        raise SettingError(
            f"{key} {name!r} was registered by this program, so the processes of a leaderboard or a search do not "
            "know it: register it in its own module, and name that module with --plugin or in "
            f"{KEY}, see docs/extend.md."
        )
