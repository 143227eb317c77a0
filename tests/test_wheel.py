"""What users install: the wheel, in a fresh environment, run from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"


def call(*command: object, cwd: Path) -> str:
    """Run a command without this process's own Python settings; its output, which is shown if it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("recbole_posattn-*.whl")
    return built


def test_holds_the_properties_and_the_typing_marker(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    properties = {f"recbole_posattn/{path.relative_to(ROOT)}" for path in (ROOT / "properties").rglob("*.yaml")}
    assert properties and properties <= names
    assert {"recbole_posattn/py.typed", "recbole_posattn/leaderboard/leaderboard.html.j2"} <= names
    assert not any(name.startswith(("tests/", "properties/")) for name in names)


def test_trains_an_epoch_from_an_empty_folder(wheel: Path, empty_folder: Path) -> None:
    """Everything the wheel needs must be among its own dependencies."""
    environment = empty_folder / "environment"
    venv.create(environment, with_pip=True)
    constraints = ROOT / "constraints.txt"
    pip = [environment / BIN / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    call(*pip, "--constraint", constraints, wheel, cwd=empty_folder)

    folder = empty_folder / "empty"
    folder.mkdir()
    command = environment / BIN / "recbole-posattn"
    printed = call(command, "run", "--model=PosKernelSASRec", "--dataset=ml-100k", "--epochs=1", cwd=folder)
    assert "PosKernelSASRec on ml-100k" in printed
    (run_folder,) = (folder / "saved").iterdir()
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "best.pth",
        "last.pth",
        "result.json",
        "run.lock",
        "users.parquet",
    ]
    assert call(environment / BIN / "python", "-m", "recbole_posattn", "--version", cwd=folder).startswith("recbole-")
