"""What users install: the wheel, in a fresh environment, run from an empty folder."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.requirements import ROOT, needed

BIN = "Scripts" if os.name == "nt" else "bin"


def call(*command: object, cwd: Path, code: int = 0) -> str:
    """Run a command without this process's own Python settings; its output, shown if the exit code is wrong."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("recbole_posattn-*.whl")
    return built


@pytest.mark.slow
def test_holds_the_properties_and_the_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    properties = {f"recbole_posattn/{path.relative_to(ROOT)}" for path in (ROOT / "properties").rglob("*.yaml")}
    assert properties and properties <= names
    of_leaderboards = {
        f"recbole_posattn/experiments/leaderboard/leaderboard.{kind}" for kind in ("html.j2", "schema.json")
    }
    assert {"recbole_posattn/py.typed", *of_leaderboards} <= names
    assert not any(name.startswith(("tests/", "properties/")) for name in names)


def requirements(wheel: Path) -> list[str]:
    """What the wheel asks for, by its own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")


def link_installed(names: set[str], site_packages: Path) -> None:
    """Put distributions of this environment into another one, by links: what they bring takes gigabytes.

    Those that are not named stay out, also where others need them.
    """
    for name in names:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(Path(distribution.locate_file(top)).resolve())


def test_asks_for_what_recbole_needs_and_never_for_recbole(wheel: Path) -> None:
    names = set(needed(requirements(wheel)))
    assert {"torch", "ray", "colorlog", "tensorboardx"} < names
    assert "recbole" not in names and not any("recbole" in line for line in requirements(wheel) if "extra" not in line)


@pytest.mark.slow
def test_is_set_up_and_trains_an_epoch_from_an_empty_folder(wheel: Path, empty_folder: Path) -> None:
    """With what its own dependencies bring, and nothing else."""
    environment = empty_folder / "environment"
    venv.create(environment, with_pip=True)
    python, command = environment / BIN / "python", environment / BIN / "recbole-posattn"
    paths = sysconfig.get_paths("venv", vars={"base": str(environment), "platbase": str(environment)})
    link_installed(set(needed(requirements(wheel))), Path(paths["purelib"]))
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", wheel, cwd=empty_folder)

    folder = empty_folder / "empty"
    folder.mkdir()
    assert call(python, "-m", "recbole_posattn", "--version", cwd=folder).startswith("recbole-posattn")
    run = [command, "run", "--model=PosKernelSASRec", "--dataset=ml-100k", "--epochs=1"]
    said = call(*run, cwd=folder, code=2)
    assert said == "recbole-posattn: RecBole is not installed; install it with: recbole-posattn setup\n"
    assert list(folder.iterdir()) == []

    assert "RecBole 1.2.1 is installed; try: recbole-posattn run" in call(command, "setup", cwd=folder)
    assert "PosKernelSASRec on ml-100k" in call(*run, cwd=folder)
    (run_folder,) = (folder / "saved").iterdir()
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "best.pth",
        "last.pth",
        "result.json",
        "run.lock",
        "users.parquet",
    ]
