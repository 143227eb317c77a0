"""The models and keys that there are, with a line on each."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import recbole_posattn.compat  # noqa: F401

import recbole.model
import yaml

from recbole_posattn.settings.key import Source
from recbole_posattn.settings.keys import DERIVED_KEYS, KEYS, LAUNCHER_ARGUMENTS
from recbole_posattn.settings.properties import (
    PROPERTIES,
    RECBOLE_PROPERTIES,
    model_properties,
    recbole_model_file,
    recbole_model_names,
)
from recbole_posattn.settings.registry import find_model, hook_recbole
from recbole_posattn.settings.yaml import read_yaml

# The property files that RecBole reads for every model.
_RECBOLE_FILES = (RECBOLE_PROPERTIES / "overall.yaml", RECBOLE_PROPERTIES / "dataset" / "sample.yaml")


class ModelEntry(NamedTuple):
    """A model.

    Attributes:
        name: Name of its class.
        kind: ``sequential``, ``general``, ``context aware``, ``knowledge aware`` or ``exlib`` (trees).
        about: A line about it; RecBole's models have their papers.
        is_recboles: Whether it comes with RecBole.
    """

    name: str
    kind: str
    about: str
    is_recboles: bool


class KeyEntry(NamedTuple):
    """A key of the settings.

    Attributes:
        name: As in a YAML file.
        default: Its default.
        about: Its type in parentheses, and a line about it.
        is_of_model: Whether it is a key of the model, not of every run.
    """

    name: str
    default: Any
    about: str
    is_of_model: bool


def model_entries() -> list[ModelEntry]:
    """All models: those registered here, in the order of their registration, then RecBole's by name."""
    hook_recbole()
    entries = []
    for name in model_properties:
        model = find_model(name)
        about = inspect.cleandoc(model.__doc__ or "").partition("\n")[0]
        entries.append(ModelEntry(name, model.type.name.lower(), about, is_recboles=False))
    sources = {file.stem: file for file in Path(recbole.model.__path__[0]).glob("*_recommender/*.py")}
    for name in recbole_model_names():
        file = sources[name.lower()]
        kind = file.parent.name.removesuffix("_recommender").replace("_", " ")
        entries.append(ModelEntry(name, kind, _paper(file), is_recboles=True))
    return entries


def _paper(file: Path) -> str:
    """The first paper that the head of a module of RecBole refers to; empty if it names none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in docstrings
        head = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    found = re.search(r"^Reference\w*:?\s*\n((?:[ \t]*\S.*\n?)+)", head, flags=re.MULTILINE)
    paper = " ".join(found[1].split()) if found else ""
    return "" if paper.startswith("http") else paper


def key_entries(model: str | None = None) -> list[KeyEntry]:
    """The keys of a model, then those of every run.

    Args:
        model: Name of the model; ``None`` for the keys of every run alone.

    Raises:
        SettingError: If there is no such model.
    """
    entries = [] if model is None else list(_of_model(model))
    names = {entry.name for entry in entries}
    return entries + [entry for entry in _of_every_run() if entry.name not in names]


def _of_model(model: str) -> Iterator[KeyEntry]:
    find_model(model)
    files = model_properties.get(model) or (recbole_model_file(model),)
    for name, default in {key: value for file in files for key, value in read_yaml(file).items()}.items():
        doc = KEYS[name].doc if name in KEYS else ""
        about = doc or next((comments[name] for file in files[::-1] if name in (comments := comments_of(file))), "")
        yield KeyEntry(name, default, about or recbole_comments().get(name, ""), is_of_model=True)


def _of_every_run() -> Iterator[KeyEntry]:
    defaults = {**recbole_defaults(), **read_yaml(PROPERTIES / "overall.yaml")}
    for name, key in KEYS.items():
        if key.source is Source.MODEL or name in DERIVED_KEYS | LAUNCHER_ARGUMENTS or key.source is Source.NAME:
            continue
        about = key.doc or recbole_comments().get(name, "")
        if not about:  # of a model alone, or of the launcher
            continue
        yield KeyEntry(name, defaults.get(name, key.default), about, is_of_model=False)


@functools.cache
def comments_of(file: Path) -> dict[str, str]:
    """The comment of each key in a property file."""
    return dict(re.findall(r"^(\w+):.*?# +(.+?)\s*$", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


def recbole_comments() -> dict[str, str]:
    """The comment of each key in the property files that RecBole reads for every run."""
    return {key: text for file in _RECBOLE_FILES for key, text in comments_of(file).items()}


def recbole_defaults() -> dict[str, Any]:
    """The default of each key in the same files."""
    return {
        key: value for file in _RECBOLE_FILES for key, value in yaml.safe_load(file.read_text(encoding="utf-8")).items()
    }
