"""The parser of the command line: errors of one line, and the nearest name for a mistyped one."""

from __future__ import annotations

import argparse
import csv
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from recbole_posattn.errors import EXIT_USER_ERROR, SettingError, did_you_mean, one_line, shown

# What people type for a command that has another name here.
_OTHER_NAMES = {
    **dict.fromkeys(("train", "fit", "evaluate", "run_recbole"), "run"),
    **dict.fromkeys(("compare", "benchmark", "board"), "leaderboard"),
    **dict.fromkeys(("search", "hyper", "hypertune", "optimize"), "tune"),
    **dict.fromkeys(("predict", "serve", "topk"), "recommend"),
    **dict.fromkeys(("dataset", "datasets"), "data"),
    **{name: f"data {name}" for name in ("convert", "stats")},
    **dict.fromkeys(("analyse", "analyze", "explain"), "inspect"),
    **dict.fromkeys(("install", "init"), "setup"),
    **dict.fromkeys(("list", "ls"), "models"),
    **dict.fromkeys(("settings", "config", "parameters"), "keys"),
}


class _StoreOnce(argparse.Action):
    """Store a value; argparse's own action lets the last of several values win."""

    _last: tuple[argparse.Namespace, Any] | None = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: str | None = None
    ) -> None:
        if self._last is not None and self._last[0] is namespace and self._last[1] != values:
            first, second = shown(self._last[1]), shown(values)
            raise argparse.ArgumentError(self, f"was given twice, as {first} and {second}; give it once")
        self._last = (namespace, values)
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """A parser that ends mistyped commands, flags and values in one line that names the nearest right one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})
        for action in (None, "store"):
            self.register("action", action, _StoreOnce)

    def parse_known_args(  # type: ignore[override]  # typeshed has two overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """See argparse, which would not treat an unknown flag with a space, such as ``--key={a: b}``, as a flag."""
        given = sys.argv[1:] if args is None else list(args)
        own = set(self.flags())
        aside = [each for each in given if _is_setting_with_space(each) and each.partition("=")[0] not in own]
        options, rest = super().parse_known_args([each for each in given if each not in aside], namespace)
        places = {each: place for place, each in enumerate(given)}
        return options, sorted([*rest, *aside], key=lambda each: places.get(each, len(given)))

    def error(self, message: str) -> NoReturn:
        """Print the message as one line and exit with code 2."""
        self.exit(EXIT_USER_ERROR, f"recbole-posattn: {one_line(message)} (see {self.prog} --help)\n")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """Called by argparse for each value; an empty one is usually that of an unset shell variable."""
        if not arg_string and action.default != "" and action.nargs != argparse.PARSER:  # the parser of a command asks
            raise argparse.ArgumentError(action, "needs a value; got ''")
        return super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Called by argparse for an argument that has choices."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        other = _OTHER_NAMES.get(str(value), "")
        is_here = other.partition(" ")[0] in choices
        hint = f" Did you mean {other!r}?" if is_here else did_you_mean(str(value), choices)
        raise argparse.ArgumentError(action, f"must be one of {', '.join(choices)}; got {shown(value)}.{hint}")

    def flags_of_its_own(self) -> list[str]:
        """The flags of this parser alone."""
        return [flag for action in self._actions for flag in action.option_strings]

    def flags(self) -> Iterator[str]:
        """All flags of this parser and of those of its sub-commands."""
        yield from self.flags_of_its_own()
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.flags()

    def chosen(self, options: argparse.Namespace) -> Parser:
        """The parser of the chosen sub-command; this one if it has none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices[getattr(options, action.dest)].chosen(options)
        return self

    def refuse(self, arguments: Sequence[str], given: Sequence[str] = ()) -> NoReturn:
        """End with a line on arguments that nothing here understands; ``given`` are all arguments."""
        flag = next((each for each in arguments if each.startswith("-")), arguments[0])
        hint = did_you_mean(flag.partition("=")[0], self.flags())
        if flag in given and any(each.startswith("-") for each in given[: given.index(flag)]):
            hint = hint or " Name all files and folders before the first flag."  # argparse may miss later ones
        self.error(f"unrecognized arguments: {' '.join(arguments)}.{hint}")


def names_in(text: str) -> list[str]:
    """Names separated by commas; one that contains a comma is in double quotes."""
    lines = csv.reader(text.splitlines(), skipinitialspace=True)
    return [name.strip() for line in lines for name in line if name.strip()]


def _is_setting_with_space(argument: str) -> bool:
    return argument.startswith("--") and "=" in argument and " " in argument


def check_flags(
    settings: Sequence[str], flags: Sequence[str], others: Mapping[str, Parser], plugins: bool = False
) -> None:
    """Refuse a mistyped flag, or one of another command, among the settings of a command, which may be any key.

    Args:
        settings: Arguments, such as ``--key=value``.
        flags: Those of the command.
        others: The parsers of all commands, by name.
        plugins: Whether the command imports plugins, which may read any key but the launcher's arguments.

    Raises:
        SettingError: If a key is none that the package or a property file knows, and is a flag of another command or
            resembles one of this command.
    """
    names = [flag.removeprefix("--") for flag in flags if flag.startswith("--")]
    for argument in settings:
        key, equals, _ = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or key in names:
            continue
        having = [name for name, parser in others.items() if f"--{key}" in parser.flags()]
        if having and key not in _setting_keys() and (key in _launcher_arguments() or not plugins):
            commands = f"the command{'s' if len(having) > 1 else ''} {', '.join(having)}"
            raise SettingError(
                f"--{key} is a flag of {commands}, not of this command, and not a setting; leave it out."
            )
        nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.75)
        if nearest and not (equals and key in _known_keys()):
            raise SettingError(f"argument {shown(argument)} is not understood. Did you mean --{nearest[0]}?")


def _setting_keys() -> set[str]:
    """Keys of settings, without those of the files of leaderboards and searches, and of the launcher."""
    from recbole_posattn.settings.keys import KEYS
    from recbole_posattn.settings.properties import property_keys

    kinds = ("model", "dataset", "quick_start_config", "preset", "protocol")
    keys = {*KEYS, *property_keys("*.yaml", *(f"{kind}/*.yaml" for kind in kinds))}
    return keys - _launcher_arguments()


def _launcher_arguments() -> set[str]:
    from recbole_posattn.settings.keys import LAUNCHER_ARGUMENTS

    return LAUNCHER_ARGUMENTS


def _known_keys() -> set[str]:
    from recbole_posattn.settings.properties import property_keys

    return _setting_keys() | property_keys("**/*.yaml")
