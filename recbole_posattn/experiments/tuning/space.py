"""Search spaces: the values or the range of each key, which may depend on the values of other keys."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from recbole_posattn.errors import SettingError, did_you_mean, typed
from recbole_posattn.settings.config import Config
from recbole_posattn.settings.encodings import resolve_encodings
from recbole_posattn.settings.keys import KEYS, TUNABLE

if TYPE_CHECKING:
    import optuna

# Kinds of ranges, named as in RecBole's .hyper files, with the number of values that each takes.
RANGES = {"uniform": 2, "quniform": 3, "loguniform": 2}
KINDS = ("choice", *RANGES, "like")

_DIGITS = 12  # rounding, so that 0.1 + 2 · 0.1 is 0.3


class Dimension(NamedTuple):
    """A searched key.

    Attributes:
        key: Its name.
        kind: ``choice`` among values, ``uniform`` or ``loguniform`` between two bounds, ``quniform`` for the lower
            bound plus multiples of a step, or ``like`` another key, whose value it copies.
        values: The choices; the bounds, then the step; or the name of the other key.
        condition: Allowed values of other keys, without which this key is not searched. A string may be a pattern
            such as ``*banded*``.
    """

    key: str
    kind: str
    values: tuple[Any, ...]
    condition: Mapping[str, Sequence[Any]]

    def is_active(self, settings: Mapping[str, Any]) -> bool:
        """Whether other settings meet the condition."""
        return all(
            any(_matches(settings.get(key), allowed) for allowed in values) for key, values in self.condition.items()
        )

    def suggest(self, trial: optuna.Trial, settings: Mapping[str, Any]) -> Any:
        """Draw a value for an Optuna trial that already has some settings."""
        if self.kind == "like":
            return settings[self.values[0]]
        if self.kind == "choice":  # by index, as Optuna takes no lists and mappings
            return self.values[trial.suggest_categorical(self.key, range(len(self.values)))]
        low, high, *step = self.values
        if self.kind == "quniform" and all(isinstance(value, int) for value in self.values):
            return trial.suggest_int(self.key, low, high, step=step[0])
        if self.kind == "quniform":
            return round(trial.suggest_float(self.key, low, high, step=step[0]), _DIGITS)
        return trial.suggest_float(self.key, low, high, log=self.kind == "loguniform")

    def parameter(self, value: Any) -> Any:
        """Optuna's representation of a value, the inverse of :meth:`suggest`."""
        return self.values.index(value) if self.kind == "choice" else value

    def holds(self, value: Any, settings: Mapping[str, Any]) -> bool:
        """Whether a value is in the dimension, given other settings."""
        if self.kind == "like":
            return value == settings[self.values[0]]
        if self.kind == "choice":
            return value in self.values
        low, high, *step = self.values
        if type(value) not in (int, float) or not low <= value <= high:
            return False
        steps = (value - low) / step[0] if step else 0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def grid(self, settings: Mapping[str, Any]) -> list[Any]:
        """All values, given other settings.

        Raises:
            SettingError: If there are infinitely many.
        """
        if self.kind == "like":
            return [settings[self.values[0]]]
        if self.kind == "choice":
            return [value for nth, value in enumerate(self.values) if typed(value) not in map(typed, self.values[:nth])]
        if self.kind == "quniform":
            low, high, step = self.values
            return [round(low + step * nth, _DIGITS) for nth in range(math.floor((high - low) / step + 1e-9) + 1)]
        raise SettingError(f"{self.key} is {self.kind}, which has no grid; use choice or quniform, or --search=tpe.")


class Space:
    """A search space.

    Args:
        dimensions: In the order in which they are drawn: conditions and ``like`` may name earlier keys, or keys that
            are not searched.

    Raises:
        SettingError: If a dimension names a later key.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = list(dimensions)
        later = {dimension.key for dimension in dimensions}
        for dimension in dimensions:
            named = [*dimension.condition, *(dimension.values if dimension.kind == "like" else ())]
            for key in named:
                if key in later:
                    raise SettingError(f"{dimension.key} depends on {key}, which must come before it in the space.")
            later.remove(dimension.key)

    @property
    def keys(self) -> list[str]:
        """The searched keys."""
        return [dimension.key for dimension in self.dimensions]

    def without(self, keys: Mapping[str, Any] | Sequence[str]) -> Space:
        """The space without some keys."""
        return Space([dimension for dimension in self.dimensions if dimension.key not in keys])

    def suggest(self, trial: optuna.Trial, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Draw settings for an Optuna trial.

        Args:
            trial: Draws the values.
            fixed: All other settings, on which conditions may depend.
        """
        drawn: dict[str, Any] = {}
        for dimension in self.dimensions:
            known = _known(fixed, drawn)
            if dimension.is_active(known):
                drawn[dimension.key] = dimension.suggest(trial, known)
        return drawn

    def drawn(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a run that belong to this space."""
        return {
            dimension.key: settings[dimension.key] for dimension in self.dimensions if dimension.is_active(settings)
        }

    def defaults(self, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """The default values of the searched keys; ``None`` if they are not in the space.

        Args:
            fixed: All settings, without a search.
        """
        known = _known(fixed, {})
        active = [dimension for dimension in self.dimensions if dimension.is_active(known)]
        held = {each.key: [v for v in (fixed[each.key], known[each.key]) if each.holds(v, known)] for each in active}
        return {key: values[0] for key, values in held.items()} if all(held.values()) else None

    def parameters(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's representation of drawn settings, the inverse of :meth:`suggest`."""
        return {
            dimension.key: dimension.parameter(settings[dimension.key])
            for dimension in self.dimensions
            if dimension.key in settings and dimension.kind != "like"
        }

    def grid(self, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All settings in the space, each once.

        Raises:
            SettingError: If a key has infinitely many values.
        """
        return list(self._grid(self.dimensions, fixed, {}))

    def _grid(
        self, dimensions: Sequence[Dimension], fixed: Mapping[str, Any], drawn: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if not dimensions:
            yield drawn
            return
        dimension, *others = dimensions
        known = _known(fixed, drawn)
        if not dimension.is_active(known):
            yield from self._grid(others, fixed, drawn)
            return
        for value in dimension.grid(known):
            yield from self._grid(others, fixed, {**drawn, dimension.key: value})

    def check(self, config: Config, where: str) -> None:
        """Check that all keys are keys of the model, and that those that are drawn may be drawn.

        Args:
            config: The settings of all keys without a search.
            where: How messages name the space.

        Raises:
            SettingError: If a key is unknown, or may not be drawn.
        """
        known = config.final_config_dict
        of_model = known.keys() - KEYS.keys()
        drawable = sorted(map(str, of_model | (TUNABLE & known.keys())))
        for dimension in self.dimensions:
            named = [dimension.key, *dimension.condition, *(dimension.values if dimension.kind == "like" else ())]
            for key in named:
                if key not in known:
                    raise SettingError(f"{where}: {config['model']} has no key {key!r}.{did_you_mean(key, drawable)}")
            if dimension.key not in drawable:
                raise SettingError(
                    f"{where}: {dimension.key} cannot be searched: it determines {KEYS[dimension.key].scope.value}, "
                    f"which must be the same in all trials; set it with --{dimension.key}=VALUE."
                )

    def plain(self) -> list[list[Any]]:
        """The space as lists and mappings, to be written as JSON and compared."""
        return [[key, kind, list(values), dict(condition)] for key, kind, values, condition in self.dimensions]


def _known(fixed: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """All known settings, with ``position_encoding: auto`` resolved by them."""
    known = {**fixed, **drawn}
    resolve_encodings(known)
    return known


def _matches(value: Any, allowed: Any) -> bool:
    if isinstance(value, str) and isinstance(allowed, str):
        return fnmatch.fnmatchcase(value, allowed)
    return value == allowed
