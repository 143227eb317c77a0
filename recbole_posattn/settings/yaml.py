"""Settings as text and YAML: plain data, never code."""

from __future__ import annotations

import ast
import copy
import functools
import json
import re
from pathlib import Path
from typing import Any

import recbole_posattn.compat  # noqa: F401

import yaml

from recbole_posattn.errors import SettingError, shown
from recbole_posattn.settings.run_keys import TEXT_KEYS

_MERGE_TAG, _NULL_TAG, _BOOL_TAG, _TEXT_TAG = (f"tag:yaml.org,2002:{kind}" for kind in ("merge", "null", "bool", "str"))

# Keys of a leaderboard whose values are names
_NAMES = {"datasets", "models", "protocols", "reference"}

# The most values and levels of a YAML document once its anchors are expanded; settings have a few hundred values.
_LARGEST_DOCUMENT, _DEEPEST_DOCUMENT = 100_000, 50


class YamlLoader(yaml.SafeLoader):
    """YAML without Python objects, in which 1e-3 is a number, as in RecBole (YAML 1.1 needs 1.0e-3).

    As in YAML 1.2, 010 is not the octal number 8 and 1:30 is not 90; both are text. Keys are text, whatever they look
    like, such as ``no`` for a row of a leaderboard. A duplicate key is an error, and so are anchors that contain
    themselves or grow without bounds.
    """

    def compose_document(self) -> yaml.Node | None:
        """See ``yaml.composer.Composer.compose_document``; also checks the document."""
        node = super().compose_document()
        if node is not None:
            self._written_out(node, {}, ())
        if isinstance(node, yaml.MappingNode):
            self._keep_names(node)
        return node

    @staticmethod
    def _keep_names(node: yaml.MappingNode) -> None:
        """Keep names as text, whatever they look like, such as 2024 for a data set."""
        is_leaderboard = any(key.value == "models" for key, _ in node.value)
        names = TEXT_KEYS | (_NAMES if is_leaderboard else {"datasets"})
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            for name in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(name, yaml.ScalarNode) and (
                    (key.value in names and name.tag != _NULL_TAG)
                    or (is_leaderboard and key.value == "priority" and name.tag == _BOOL_TAG)  # seeds stay numbers
                ):
                    name.tag = _TEXT_TAG

    def _written_out(self, node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
        """The number of nodes below a node, with anchors expanded."""
        if id(node) in above or len(above) > _DEEPEST_DOCUMENT:
            problem = "contains itself" if id(node) in above else f"is nested more than {_DEEPEST_DOCUMENT} levels deep"
            raise yaml.composer.ComposerError(None, None, f"a value {problem}", node.start_mark)
        if id(node) not in known:
            below: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                self._keys_as_text(node)
                below = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                below = node.value
            known[id(node)] = 1 + sum(self._written_out(part, known, (*above, id(node))) for part in below)
            if known[id(node)] > _LARGEST_DOCUMENT:
                problem = f"a value has more than {_LARGEST_DOCUMENT:,} parts"
                raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return known[id(node)]

    @staticmethod
    def _keys_as_text(node: yaml.MappingNode) -> None:
        """Make the keys of a mapping text, whatever they look like, and refuse a duplicate."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE_TAG:
                key.tag = _TEXT_TAG
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise _GivenTwice(key.value, lines[key.value], line)
                lines[key.value] = line


_NUMBERS = {
    "int": r"^[-+]?(?:0b[0-1_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$",
    "float": r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
}
_NUMBER_TAGS = {f"tag:yaml.org,2002:{kind}": re.compile(pattern) for kind, pattern in _NUMBERS.items()}
YamlLoader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBER_TAGS]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBER_TAGS.items():
    YamlLoader.add_implicit_resolver(_tag, _pattern, list("-+0123456789."))


class _GivenTwice(yaml.YAMLError):
    """A duplicate key in a mapping; names it and its lines."""

    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(f"key {shown(key)} is given twice, in line {first} and in line {second}; give it once")


def parse_setting(key: str, text: str) -> Any:
    """The value of a setting given as text; see :func:`parse_value`. Names stay text, whatever they look like."""
    value = parse_value(text)
    return text if key in TEXT_KEYS and value is not None and not isinstance(value, str) else value


def parse_value(text: str) -> Any:
    """A setting given as text: a Python literal if it is one, else a YAML scalar, list or mapping.

    So ``None``, ``(1, 2)`` and ``{'LS': 'valid_and_test'}`` work as in RecBole and ``~``, ``true``, ``1e-3`` and
    ``[rope]`` as in a YAML file. Nothing is evaluated. Anything else stays text, and so does what YAML would
    read as text, list or mapping without brackets or quotes, such as ``|``, ``a #b`` or ``::``.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        try:
            value = yaml.load(text, Loader=YamlLoader)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: text that looks like a date but is not one
            return text
        if value is None and text.strip().lower() not in ("~", "null") and text:  # a comment, blanks
            return text
        marks: dict[type, tuple[str, ...]] = {str: ("'", '"'), list: ("[",), dict: ("{",)}
        if type(value) in marks and not text.lstrip().startswith(marks[type(value)]):
            return text
    return value if value is None or isinstance(value, (str, bool, int, float, list, tuple, dict)) else text


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty for an empty file.

    Raises:
        SettingError: If the file is missing, or is not a YAML mapping.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        raise SettingError(f"config file {file} cannot be read: {getattr(error, 'strerror', error)}") from error
    try:
        settings = copy.deepcopy(_parsed(text))
    except _GivenTwice as error:
        raise SettingError(f"config file {file}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingError(f"config file {file} is not YAML: {' '.join(str(error).split())}") from error
    if settings is not None and not isinstance(settings, dict):
        raise SettingError(f"config file {file} must hold lines of 'key: value', got a {type(settings).__name__}")
    return settings or {}


def default_text(value: Any) -> str:
    """A default as it is written in a property file."""
    if value is None:
        return "~"
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", repr(value))
    if isinstance(value, str) and re.fullmatch(r"[\w@/-]+", value) and yaml.load(value, YamlLoader) == value:
        return value
    if isinstance(value, (str, bool, int)):
        return json.dumps(value) if isinstance(value, str) else str(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """The content of a YAML document, parsed once: parsing the property files took most of the time of a ``Config``."""
    return yaml.load(text, Loader=YamlLoader)
