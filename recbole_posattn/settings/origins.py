"""Who registered a name: a plugin, or the program itself.

Names are those of models, kernel structures, encodings and losses, which are the values of a key each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where a registered class comes from.

    Attributes:
        part: The class.
        plugin: The plugin that registered it; ``None`` for the program itself.
    """

    part: type
    plugin: str | None

    def is_from(self, plugins: Collection[str]) -> bool:
        """Whether importing one of some plugins registers it.

        A program that imported a plugin's module by itself has registered its names before the plugin was named.
        """
        within = self.part.__module__
        return self.plugin in plugins or any(f"{within}.".startswith(f"{plugin}.") for plugin in plugins)


_origins: dict[str, dict[str, Origin]] = {
    key: {} for key in ("model", "kernel_structure", "position_encoding", "loss_type")
}
# The plugins that are being imported, the innermost last, and what an earlier attempt to import them registered.
_importing: list[str] = []
_left_behind: set[tuple[str, str]] = set()


@contextmanager
def registered_by(plugin: str) -> Iterator[None]:
    """What is registered within belongs to a plugin; it may register again what it registered before an error."""
    _left_behind.update(
        (key, name) for key, named in _origins.items() for name in named if named[name].plugin == plugin
    )
    _importing.append(plugin)
    try:
        yield
    finally:
        _importing.pop()


def record(key: str, name: str, part: type) -> None:
    """Remember who registers a class now."""
    _left_behind.discard((key, name))
    _origins[key][name] = Origin(part, _importing[-1] if _importing else None)


def origin(key: str, name: str) -> Origin | None:
    """Where a registered name comes from; ``None`` if it belongs to this package or is unknown."""
    return _origins[key].get(name)


def may_replace(key: str, name: str, part: type, redefinable: bool = False) -> bool:
    """Whether a class may take a name that is registered already.

    Args:
        key: Of the name.
        name: The name.
        part: The class.
        redefinable: Whether the program may register another class of its own, as in a notebook.
    """
    before = origin(key, name)
    if before is None:
        return False
    if before.plugin is None and not _importing and redefinable:
        return True
    # a script that is its own plugin is imported a second time, under its own name
    is_script = before.part.__module__ == "__main__" and before.part.__qualname__ == part.__qualname__
    return before.part is part or (key, name) in _left_behind or (is_script and bool(_importing))


def holder(key: str, name: str) -> str:
    """Who has a name, for a message."""
    before = origin(key, name)
    if before is None:
        return "of this package"
    return "registered by this program" if before.plugin is None else f"registered by plugin {before.plugin!r}"


def used_names(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names in settings, each with its key; lists of values, as in a search space, are searched as well."""
    for key in _origins:
        values = settings.get(key, ())
        for value in values if isinstance(values, (list, tuple)) else [values]:
            parts = value if isinstance(value, (list, tuple)) else str(value).split("-")
            yield from ((key, str(part)) for part in parts)
