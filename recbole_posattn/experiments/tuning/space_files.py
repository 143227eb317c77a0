"""Search spaces in files: YAML, and the ``.hyper`` format of RecBole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_posattn.errors import SettingError
from recbole_posattn.experiments.tuning.space import KINDS, RANGES, Dimension, Space
from recbole_posattn.settings.plain import plain_data
from recbole_posattn.settings.presets import fixed_keys
from recbole_posattn.settings.properties import PROPERTIES, named_file
from recbole_posattn.settings.registry import find_model
from recbole_posattn.settings.yaml import parse_setting, parse_value, read_yaml


def space_of_model(model: str, preset: str | None = None) -> Space:
    """The search space of a model: the file of ``properties/tuning/`` with its name, or with that of a base class.

    Args:
        model: Its name.
        preset: The preset of its settings, whose keys are not searched except for the sizes: with others, the model
            would not be the preset's.

    Raises:
        SettingError: If the model or preset is unknown, or neither the model nor a base class has a search space.
    """
    names = [base.__name__ for base in find_model(model).__mro__]
    spaces = {file.stem for file in (PROPERTIES / "tuning").glob("*.yaml")}
    space = read_space(named_file("tuning", next((name for name in names if name in spaces), model)))
    return space if preset is None else space.without(fixed_keys(preset))


def read_space(file: str | Path) -> Space:
    """A search space in YAML: ``key: {kind: values}``, with an optional condition ``if: {key: values}``.

    .. code-block:: yaml

        learning_rate: {loguniform: [1e-4, 3e-3]}   # bounds of the value itself
        hidden_size: {choice: [64, 128]}
        hidden_dropout_prob: {quniform: [0.1, 0.5, 0.1]}
        attn_dropout_prob: {like: hidden_dropout_prob}
        kernel_bandwidth: {choice: [4, 16], if: {kernel_structure: "*banded*"}}

    Raises:
        SettingError: If the file is not a valid space.
    """
    dimensions = []
    for key, entry in read_yaml(file).items():
        where = f"search space {file}: {key}"
        kinds = [kind for kind in entry if kind != "if"] if isinstance(entry, Mapping) else []
        if len(kinds) != 1 or kinds[0] not in KINDS:
            raise SettingError(f"{where} must be a mapping of one of {', '.join(KINDS)} to its values; got {entry!r}.")
        condition = entry.get("if") or {}
        if not isinstance(condition, Mapping):
            raise SettingError(f"{where}: if must be a mapping of keys to values; got {condition!r}.")
        condition = {other: _listed(values) for other, values in condition.items()}
        dimensions.append(Dimension(key, kinds[0], _checked(key, kinds[0], entry[kinds[0]], where), condition))
    return Space(dimensions)


def read_hyper(file: str | Path) -> Space:
    """A search space in RecBole's ``.hyper`` format: a key, a kind and its values on each line.

    As in RecBole, the bounds of ``loguniform`` are natural logarithms. No line is evaluated as code.

    Raises:
        SettingError: If a line is invalid.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"params file {file} cannot be read: {getattr(error, 'strerror', error)}") from error
    dimensions: dict[str, Dimension] = {}
    for number, line in enumerate(lines, start=1):
        where = f"params file {file}, line {number}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, kind, text = [*line.split(None, 2), "", ""][:3]
        if kind not in ("choice", *RANGES) or not text:
            raise SettingError(
                f"{where} must be a key, one of {', '.join(('choice', *RANGES))}, and values; got {line.strip()!r}."
            )
        if key in dimensions:
            raise SettingError(f"{where}: {key} occurs more than once.")
        values = parse_value(text.strip() if kind == "choice" else f"[{text}]")
        values = _checked(key, "uniform" if kind == "loguniform" else kind, values, where)
        if kind == "loguniform":
            values = _exponentials(key, values, where)
        dimensions[key] = Dimension(key, kind, values, {})
    return Space(list(dimensions.values()))


def _exponentials(key: str, bounds: tuple[float, ...], where: str) -> tuple[float, ...]:
    try:
        return _checked(key, "loguniform", [math.exp(bound) for bound in bounds], where)
    except (OverflowError, SettingError):
        raise SettingError(
            f"{where}: loguniform must have the natural logarithms of two numbers, such as -9,-5 for 0.0001 to 0.007; "
            f"got {bounds!r}."
        ) from None


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _checked(key: str, kind: str, values: Any, where: str) -> tuple[Any, ...]:
    """The values of a dimension, as plain data; a choice given as text, such as ``'[64, 64]'``, has its value."""
    if kind == "like":
        if not isinstance(values, str):
            raise SettingError(f"{where}: like must name another key; got {values!r}.")
        return (values,)
    if kind == "choice":
        if not isinstance(values, (list, tuple)) or not values:
            raise SettingError(f"{where}: choice must be a list of values; got {values!r}.")
        return tuple(plain_data(parse_setting(key, each) if isinstance(each, str) else each) for each in values)
    numbers = values if isinstance(values, (list, tuple)) else ()
    if len(numbers) != RANGES[kind] or not all(type(number) in (int, float) for number in numbers):
        parts = "a lower bound, an upper bound and a step" if kind == "quniform" else "a lower and an upper bound"
        raise SettingError(f"{where}: {kind} must be {parts}; got {values!r}.")
    low, high, *step = numbers
    if not low < high or not all(map(_is_finite, numbers)) or (step and step[0] <= 0):
        raise SettingError(f"{where}: {kind} must rise from the lower to the upper bound; got {values!r}.")
    if kind == "loguniform" and low <= 0:
        raise SettingError(f"{where}: loguniform must have bounds above 0; got {values!r}.")
    return tuple(numbers)


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that no float can hold
        return False
