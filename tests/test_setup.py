"""``recbole-posattn setup``: with pip, with uv, and what to type where there is neither; peak memory of each system."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from recbole_posattn.cli import main as cli
from recbole_posattn.cli import setup

PACKAGE = ["--no-deps", "recbole==1.2.1"]


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Let RecBole be missing; the commands that are run are noted, and end with a code and a version installed."""

    def install(code: int = 0, before: str | None = None, after: str | None = "1.2.1") -> list[list[str]]:
        commands: list[list[str]] = []

        def version(name: str) -> str:
            found = after if commands else before
            if name != "recbole" or found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        def run(command: list[str]) -> SimpleNamespace:
            commands.append(command)
            return SimpleNamespace(returncode=code)

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return install


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let modules be missing, and programs be where they are said to be; no others are found."""

    def hide(*modules: str, **programs: str) -> None:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in modules else find_spec(name))
        monkeypatch.setattr("shutil.which", programs.get)
        monkeypatch.delenv("UV", raising=False)

    return hide


@pytest.mark.parametrize("before", [None, "1.2.0", "1.1.1"])
def test_pip_of_this_interpreter_installs_recbole_alone(
    installer: Callable, before: str | None, capsys: pytest.CaptureFixture
) -> None:
    commands = installer(before=before)
    assert cli.main(["setup"]) == 0
    assert commands == [[sys.executable, "-m", "pip", "install", *PACKAGE]]
    assert capsys.readouterr().out.startswith(shlex.join(commands[0]))


def test_nothing_is_done_where_recbole_is(installer: Callable, capsys: pytest.CaptureFixture) -> None:
    assert not installer(before="1.2.1") and cli.main(["setup"]) == 0
    assert "already installed" in capsys.readouterr().out


def test_uv_installs_where_there_is_no_pip(
    installer: Callable, without: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = installer()
    without("pip", uv="/bin/uv")
    assert cli.main(["setup"]) == 0
    monkeypatch.setenv("UV", "/opt/uv")  # as "uv run" sets it
    assert setup.install_command()[0] == "/opt/uv"
    assert commands == [["/bin/uv", "pip", "install", "--python", sys.executable, *PACKAGE]]


@pytest.mark.parametrize("pipx", [False, True])
@pytest.mark.parametrize("has_ensurepip", [False, True])
def test_without_pip_and_uv_it_says_what_to_type(
    has_ensurepip: bool,
    pipx: bool,
    installer: Callable,
    without: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:
    commands = installer()
    without("pip", *(() if has_ensurepip else ("ensurepip",)))
    monkeypatch.setattr(sys, "executable", "/my python/bin/python")
    environment = tmp_path / "recbole-posattn"
    environment.mkdir()
    if pipx:
        (environment / "pipx_metadata.json").write_text("{}")
    monkeypatch.setattr(sys, "prefix", str(environment))
    assert cli.main(["setup"]) == 2 and commands == []
    error = capsys.readouterr().err
    assert error.startswith("recbole-posattn: /my python/bin/python has no pip, and uv was not found; type: ")
    assert error.count("\n") == 1
    typed = error.split("type: ")[1].strip()
    assert typed == (
        "pipx runpip recbole-posattn install --no-deps recbole==1.2.1"
        if pipx
        else "'/my python/bin/python' -m ensurepip && '/my python/bin/python' -m pip install --no-deps recbole==1.2.1"
        if has_ensurepip
        else "uv pip install --python '/my python/bin/python' --no-deps recbole==1.2.1"
    )


@pytest.mark.parametrize(("code", "after"), [(1, None), (0, None), (0, "1.2.0")])
def test_an_installation_that_fails_is_no_success(
    code: int, after: str | None, installer: Callable, capsys: pytest.CaptureFixture
) -> None:
    installer(code, after=after)
    assert cli.main(["setup"]) == 1
    assert capsys.readouterr().err.startswith("recbole-posattn: RecBole 1.2.1 was not installed (exit code ")
