"""``make`` takes the Python that is there, and says in one line what is wrong with one that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import ROOT, pins
from tests.systems import needs_posix
from tools import pythons


@pytest.mark.parametrize(
    ("version", "missing", "message"),
    [
        ((2, 7), None, "Python 2.7 is too old: this needs Python 3.11 to 3.14; choose one"),
        ((3, 10), None, "Python 3.10 is too old: this needs Python 3.11 to 3.14; choose one"),
        ((3, 15), None, "Python 3.15 is too new: this needs Python 3.11 to 3.14; choose one"),
        ((3, 12), "venv", "Python 3.12 has no module venv; install it (Debian, Ubuntu: apt install python3.12-venv)"),
        ((3, 13), "ensurepip", "Python 3.13 has no module ensurepip; install it (Debian, Ubuntu: apt install python3"),
    ],
)
def test_says_what_is_wrong(version: tuple[int, int], missing: str | None, message: str) -> None:
    said = pythons.problem(version, "CPython", lambda module: module != missing)
    assert said.startswith(message) and "\n" not in said and said.endswith("make run PYTHON=python3.13")


def test_takes_every_version_of_the_range() -> None:
    for minor in range(11, 15):
        assert pythons.problem((3, minor), "CPython", lambda module: True) is None
    assert "PyPy" in pythons.problem((3, 11), "PyPy", lambda module: True)


def test_this_one_is_found() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "pythons.py", "list"], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    versions = [
        subprocess.run([line, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True).stdout
        for line in lines
    ]
    assert done.returncode == 0 and sys.executable in lines
    assert versions == sorted(set(versions))


@pytest.fixture
def old_python(tmp_path: Path) -> Path:
    """A program that runs what it is given with this Python, which calls itself 3.10."""
    program = tmp_path / "python3"
    code = (
        "import runpy, sys; del sys.argv[0]; sys.version_info = (3, 10, 0); runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    program.chmod(0o755)
    return program


def make(*arguments: object) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(["make", "-C", ROOT, *arguments], capture_output=True, text=True, env=environment)


@needs_posix
def test_make_stops_at_an_old_python_and_makes_nothing(old_python: Path, tmp_path: Path) -> None:
    done = make("run", f"PYTHON={old_python}", f"VENV={tmp_path / 'venv'}")
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode and len(said) == 1 and said[0].startswith("make: Python 3.10 is too old")
    assert not (tmp_path / "venv").exists()


def test_make_says_that_there_is_no_such_python(tmp_path: Path) -> None:
    done = make("test", "PYTHON=python3.99", f"VENV={tmp_path / 'venv'}")
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode and said == ["make: there is no python3.99; say which Python: make run PYTHON=python3.13"]


def test_make_installs_the_pins_and_recbole_without_its_dependencies(tmp_path: Path) -> None:
    printed = make("--dry-run", "run", f"PYTHON={sys.executable}", f"VENV={tmp_path / 'venv'}").stdout
    pips = [line.split("-m pip ")[1] for line in printed.splitlines() if "-m pip" in line]
    assert pips == [
        'install --no-warn-conflicts --constraint constraints.txt --editable ".[test]"',
        "install --no-deps --constraint constraints.txt recbole",
    ]
    assert str(pins()["recbole"][0]) == "recbole==1.2.1"


@needs_posix
def test_make_keeps_an_environment_of_the_same_python(tmp_path: Path) -> None:
    """And makes it anew for another one that is named."""
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (tmp_path / "venv" / ".installed").touch()
    given = ["--dry-run", "run", f"VENV={tmp_path / 'venv'}"]
    assert "pip install" not in make(*given).stdout
    assert "pip install" not in make(*given, f"PYTHON={sys.executable}").stdout
    (binaries / "python").unlink()
    assert f"-m venv --clear {tmp_path / 'venv'}" in make(*given, f"PYTHON={sys.executable}").stdout


@needs_posix
def test_every_python_gets_an_environment_that_is_removed(tmp_path: Path) -> None:
    """By running the recipe with a make that notes what it is asked for, and fails for one of two Pythons."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho /usr/bin/python3.11\necho /usr/bin/python3.13\n")
    program = tmp_path / "make"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nmkdir -p {tmp_path}/venv-pythons\n'
        'case "$*" in *3.13*) exit 1;; esac\n'
    )
    for file in (python, program):
        file.chmod(0o755)
    done = make("test-pythons", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}", f"MAKE={program}")
    environment = f"VENV={tmp_path}/venv-pythons"
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"test PYTHON=/usr/bin/python3.11 {environment}",
        f"test PYTHON=/usr/bin/python3.13 {environment}",
    ]
    assert done.returncode and not (tmp_path / "venv-pythons").exists()
    assert "passed  /usr/bin/python3.11\nfailed  /usr/bin/python3.13\n" in done.stdout
