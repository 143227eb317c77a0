"""What the project requires, by its own metadata and those of what is installed here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def pins() -> dict[str, list[Requirement]]:
    """The lines of ``constraints.txt`` by name; several where Pythons differ."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def needed(
    requirements: Iterable[str], extras: frozenset[str] = frozenset({""}), seen: set[tuple] | None = None
) -> Iterator[str]:
    """Names of all that some requirements bring here, as far as it is installed."""
    seen = set() if seen is None else seen
    for requirement in map(Requirement, requirements):
        wanted = any(requirement.marker.evaluate({"extra": extra}) for extra in extras) if requirement.marker else True
        name = canonicalize_name(requirement.name)
        if not wanted or (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        yield name
        try:
            below = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of the group audit, which a test run can do without
            continue
        yield from needed(below, frozenset({"", *requirement.extras}), seen)
