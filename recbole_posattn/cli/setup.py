"""``recbole-posattn setup``: RecBole itself, without its dependencies."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from recbole_posattn.errors import ProcessError, SettingError

RECBOLE = "1.2.1"
_INSTALL = ["install", "--no-deps", f"recbole=={RECBOLE}"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the description; there are no arguments."""
    parser.description = (
        f"Install RecBole {RECBOLE} for this Python, without its dependencies, because its pins exclude numpy 2 and "
        "every Ray version for current Pythons. Its dependencies are installed with recbole-posattn."
    )


def execute(options: argparse.Namespace) -> int:
    """Install RecBole if it is not there; returns the exit code.

    Raises:
        SettingError: If there is neither pip nor uv; names the command to type.
        ProcessError: If the installation fails.
    """
    if _installed() == RECBOLE:
        print(f"RecBole {RECBOLE} is already installed for {sys.executable}")
        return 0
    command = install_command()
    print(shlex.join(command), flush=True)
    code = subprocess.run(command).returncode
    if code or _installed() != RECBOLE:
        raise ProcessError(f"RecBole {RECBOLE} was not installed (exit code {code}); the reason is above")
    print(f"RecBole {RECBOLE} is installed; try: recbole-posattn run --epochs=1")
    return 0


def install_command() -> list[str]:
    """The command that installs RecBole for this interpreter: its own pip, or uv if it has none.

    Raises:
        SettingError: If there is neither.
    """
    if importlib.util.find_spec("pip") is not None:  # pipx shares its own pip with its environments
        return [sys.executable, "-m", "pip", *_INSTALL]
    uv = os.environ.get("UV") or shutil.which("uv")  # the first is set by "uv run"
    if uv is not None:
        return [uv, "pip", _INSTALL[0], "--python", sys.executable, *_INSTALL[1:]]
    raise SettingError(f"{sys.executable} has no pip, and uv was not found; type: {_by_hand()}")


def _by_hand() -> str:
    """The command for the user to type: with pipx in its environments, else with the pip that Python brings, or uv."""
    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").is_file():
        return shlex.join(["pipx", "runpip", environment.name, *_INSTALL])
    if importlib.util.find_spec("ensurepip") is not None:
        python = [sys.executable, "-m"]
        return f"{shlex.join([*python, 'ensurepip'])} && {shlex.join([*python, 'pip', *_INSTALL])}"
    return shlex.join(["uv", "pip", _INSTALL[0], "--python", sys.executable, *_INSTALL[1:]])


def _installed() -> str | None:
    """The version of RecBole that this interpreter finds now."""
    importlib.invalidate_caches()
    try:
        return importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError:
        return None
