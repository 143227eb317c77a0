"""``recbole-posattn completion``: commands, flags, models and data sets completed by the shell."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Print the code for shell completion of recbole-posattn. For bash or zsh, add this line to ~/.bashrc or "
        '~/.zshrc, with the name of the shell: eval "$(recbole-posattn completion bash)". For fish: recbole-posattn '
        "completion fish > ~/.config/fish/completions/recbole-posattn.fish"
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def execute(options: argparse.Namespace) -> int:
    """Print the code; returns the exit code."""
    import argcomplete

    print(argcomplete.shellcode(["recbole-posattn", "run_recbole_posattn.py"], True, options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell, and exit; it asks with the variable ``_ARGCOMPLETE``."""
    import argcomplete

    for action in _actions(parser):
        names = _NAMES.get(action.dest)
        if names is not None:
            setattr(action, "completer", names)  # noqa: B010  # argcomplete's attribute, which mypy does not know
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _models(**_: Any) -> list[str]:
    """Names of the models, without the import of RecBole, which takes seconds."""
    return sorted({file.stem for folder in _property_folders() for file in (folder / "model").glob("*.yaml")})


def _datasets(**_: Any) -> list[str]:
    """Data sets in the folder ``dataset``, and those with settings of their own."""
    folders = [folder.name for folder in Path("dataset").glob("*/") if folder.is_dir()]
    return sorted({*folders, "ml-100k", *(file.stem for file in (_properties() / "dataset").glob("*.yaml"))})


def _listed(names: Iterable[str], prefix: str) -> list[str]:
    """Completions of the last name in a comma-separated list; the names before it stay."""
    before, comma, _ = prefix.rpartition(",")
    return [f"{before}{comma}{name}" for name in names]


def _files_of(kind: str) -> Any:
    return lambda **_: sorted(file.stem for file in (_properties() / kind).glob("*.yaml"))


def _properties() -> Path:
    package = Path(__file__).parent.parent
    return next(path for path in (package / "properties", package.parent / "properties") if path.is_dir())


def _property_folders() -> list[Path]:
    spec = importlib.util.find_spec("recbole")  # finds it without importing it
    found = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "properties"]
    return [_properties(), *found]


# What completes an argument, by its name.
_NAMES: dict[str, Any] = {
    "model": _models,
    "dataset": _datasets,
    "models": lambda prefix, **_: _listed(_models(), prefix),
    "datasets": lambda prefix, **_: _listed(_datasets(), prefix),
    "protocols": lambda prefix, **_: _listed(_files_of("protocol")(), prefix),
    "spec": _files_of("leaderboard"),
    "space": _files_of("tuning"),
}
