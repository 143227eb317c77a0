"""What comes in from others and what goes out: pins, dangerous calls, the network, telemetry."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import recbole_posattn
from recbole_posattn import Config
from recbole_posattn.cli.setup import RECBOLE
from recbole_posattn.experiments import trials
from recbole_posattn.settings.properties import RECBOLE_PROPERTIES
from tests.dangerous_calls import dangerous_calls
from tests.requirements import ROOT, needed, pins
from tests.systems import needs_posix

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

MODULES = [module.name for module in pkgutil.walk_packages(recbole_posattn.__path__, "recbole_posattn.")]

# What is dangerous and meant, each with its reason; as "module, function: what".
MEANT = {
    "recbole_posattn.atomic_files.download, extract_archive: .extractall",  # after a look at all members
    # RecBole's pickles, where --allow_unsafe_checkpoint is given
    "recbole_posattn.training.checkpoint, _read_of_recbole: torch.load without weights_only=True",
}


# -- pins and advisories ---------------------------------------------------------------------------------------------


def test_all_that_is_installed_has_a_pin() -> None:
    """Or pip-audit, which reads the pins, would not look at it."""
    requirements = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    names = set(needed(requirements)) - {"recbole-posattn", "pip"}
    assert {"pandas", "requests", "tensorboard"} <= names and len(names) > 50
    assert names - pins().keys() == set()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_has_one_pin_of_a_package(python: str) -> None:
    for name, lines in pins().items():
        here = [pin for pin in lines if pin.marker is None or pin.marker.evaluate({"python_version": python})]
        assert len(here) == 1, name
        assert re.fullmatch(r"==[\w.]+", str(here[0].specifier))


def test_what_is_installed_is_what_is_pinned() -> None:
    """Of what decides the results; the rest may be newer in an environment that was not made by ``make``."""
    for name in ("numpy", "pandas", "scipy", "torch", "ray", "recbole"):
        (pin,) = (pin for pin in pins()[name] if pin.marker is None or pin.marker.evaluate())
        assert pin.specifier.contains(importlib.metadata.version(name)), pin


def test_the_metadata_name_what_recbole_asks_for_and_not_recbole_itself() -> None:
    ours = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    its = [Requirement(line) for line in importlib.metadata.requires("recbole")]
    names = {canonicalize_name(requirement.name) for requirement in its if requirement.marker is None}
    assert {"torch", "colorlog", "ray"} < names <= ours
    assert "recbole" not in ours


def test_uv_may_ignore_the_pins_of_recbole_that_exclude_ours() -> None:
    """Its pins that our requirements contradict are those that are overridden, by what we require."""
    uv = PYPROJECT["tool"]["uv"]
    assert PYPROJECT["dependency-groups"]["recbole"] == [f"recbole=={RECBOLE}"] and uv["default-groups"] == ["recbole"]
    ours = {canonicalize_name(Requirement(line).name): line for line in PROJECT["dependencies"]}
    overridden = {canonicalize_name(Requirement(line).name): line for line in uv["override-dependencies"]}
    assert overridden == {name: ours[name] for name in overridden}
    contradicted = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, importlib.metadata.requires("recbole"))
        if requirement.marker is None
        and not requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    }
    assert contradicted and contradicted <= overridden.keys()


def test_advisories_are_passed_over_for_a_reason() -> None:
    lines = (ROOT / "audit-ignored.txt").read_text(encoding="utf-8").splitlines()
    entries = [
        re.fullmatch(r"((?:CVE|GHSA|PYSEC)-[\w-]+) ([\w-]+): \S.{20,}", line) for line in lines if line[0] != "#"
    ]
    assert entries and all(entries)
    ignored = {entry[1] for entry in entries}
    assert len(ignored) == len(entries) and {entry[2] for entry in entries} <= pins().keys()
    explained = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Known advisories", 1)[1]
    assert set(re.findall(r"(?:CVE|GHSA|PYSEC)-[\w-]+\w", explained)) == ignored


@needs_posix
def test_the_makefile_passes_over_these_and_no_others(empty_folder: Path) -> None:
    """By running its recipe with a pip-audit that prints what it is given."""
    lines = (ROOT / "audit-ignored.txt").read_text(encoding="utf-8").splitlines()
    programs = empty_folder / "bin"
    programs.mkdir()
    for name in ("bandit", "pip-audit"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@" >> "$PRINTED"\n')
        (programs / name).chmod(0o755)
    (empty_folder / ".installed").touch()
    (empty_folder / ".audit-installed").touch()
    command = ["make", "-C", str(ROOT), "audit", f"VENV={empty_folder}", "--old-file", f"{empty_folder}/.installed"]
    printed = empty_folder / "printed"
    subprocess.run(
        [*command, "--old-file", f"{empty_folder}/.audit-installed"],
        env={**os.environ, "PRINTED": str(printed)},
        check=True,
        capture_output=True,
    )
    bandit, pip_audit = printed.read_text().split("pip-audit\n")
    assert {"recbole_posattn", "benchmarks", "run_recbole_posattn.py"} < set(bandit.splitlines())
    options = pip_audit.splitlines()
    assert "--strict" in options and "constraints.txt" in options  # without the first, what is not found is no failure
    assert [option.split("=")[1] for option in options if option.startswith("--ignore-vuln")] == [
        line.split()[0] for line in lines if line[0] != "#"
    ]


def test_recbole_downloads_over_tls() -> None:
    """Its list has no checksums: that the answer is the server's is all there is."""
    urls = yaml.safe_load((RECBOLE_PROPERTIES / "dataset" / "url.yaml").read_text(encoding="utf-8"))
    assert len(urls) > 30 and all(url.startswith("https://") for url in urls.values())


# -- dangerous calls -------------------------------------------------------------------------------------------------

DANGEROUS = {
    "import pickle": "import pickle",
    "from cloudpickle import loads": "import cloudpickle.loads",
    "import marshal as m; m.loads(x)": "module: marshal.loads",
    "eval(text)": "module: builtins.eval",
    "def f():\n exec(text)": "f: builtins.exec",
    "__import__(name)": "module: builtins.__import__",
    "import os; os.system('ls')": "module: os.system",
    "from os import popen as p; p('ls')": "module: os.popen",
    "import os; os.execv(a, b)": "module: os.execv",
    "import subprocess as s; s.run(c, shell=True)": "module: shell",
    "import subprocess as s; s.run(c, shell=given)": "module: shell",
    "import numpy as np; np.load(f, allow_pickle=True)": "module: allow_pickle",
    "import torch; torch.load(f)": "module: torch.load without weights_only=True",
    "from torch import load; load(f, weights_only=safe)": "module: torch.load without weights_only=True",
    "import torch; torch.jit.load(f)": "module: torch.jit.load",
    "import pandas as pd; pd.read_pickle(f)": "module: pandas.read_pickle",
    "table.eval('a + b')": "module: .eval",
    "table.query(f'a > {b}')": "module: .query",
    "import yaml; yaml.load(t)": "module: yaml.load without a SafeLoader",
    "import yaml; yaml.load(t, yaml.Loader)": "module: yaml.load without a SafeLoader",
    "import yaml; yaml.load(t, Loader=Mine)": "module: yaml.load without a SafeLoader",
    "import yaml; yaml.unsafe_load(t)": "module: yaml.unsafe_load",
    "archive.extractall(f)": "module: .extractall",
}

HARMLESS = [
    "model.eval(); self.query(x)",
    "import ast; ast.literal_eval(text)",
    "import torch; torch.load(f, weights_only=True)",
    "import numpy as np; np.load(f, allow_pickle=False)",
    "import yaml; yaml.load(t, Loader=yaml.CSafeLoader); yaml.load(t, yaml.SafeLoader); yaml.safe_load(t)",
    "import subprocess; subprocess.run(c, shell=False)",
    "import re; re.compile(text)",
]


@pytest.fixture(scope="module")
def module_with_loaders() -> ModuleType:
    module = ModuleType("with_loaders")
    module.yaml, module.Mine = yaml, type("Mine", (yaml.UnsafeLoader,), {})
    return module


@pytest.mark.parametrize("source", DANGEROUS)
def test_finds_what_is_dangerous(source: str, module_with_loaders: ModuleType) -> None:
    assert DANGEROUS[source] in dangerous_calls(source, module_with_loaders)


@pytest.mark.parametrize("source", HARMLESS)
def test_lets_pass_what_is_not(source: str, module_with_loaders: ModuleType) -> None:
    assert dangerous_calls(source, module_with_loaders) == []


def test_the_package_runs_no_data() -> None:
    found = set()
    for name in MODULES:
        if name != "recbole_posattn.__main__":
            module = importlib.import_module(name)
            source = Path(module.__file__).read_text(encoding="utf-8")
            found |= {f"{name}, {danger}" for danger in dangerous_calls(source, module)}
    assert found == MEANT


# -- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_reaches_for_the_network(tiny_data_path: Path, empty_folder: Path) -> None:
    """Every module imported; a run, and all commands that take a checkpoint, which need no network at all."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.offline", str(tiny_data_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(Path("report.json").read_text())
    assert report["attempts"] == []
    assert report["modules"] == MODULES and set(report["codes"].values()) == {0} and len(report["codes"]) == 7


def test_an_attempt_would_be_seen() -> None:
    code = """
import socket, urllib.request
from contextlib import suppress
from tests.offline import forbid_network
attempts = forbid_network()
for reach in (
    lambda: socket.create_connection(("192.0.2.1", 9)),
    lambda: socket.socket().connect_ex(("192.0.2.1", 9)),
    lambda: socket.getaddrinfo("nowhere.invalid", 80),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 9)),
    lambda: urllib.request.urlopen("https://nowhere.invalid"),
):
    with suppress(PermissionError):
        reach()
        print("reached")
print(*(attempt.split("(")[0] for attempt in attempts))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        *("socket.getaddrinfo", "socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"),
    ]


@pytest.mark.parametrize("address", [None, "auto"])
def test_ray_is_told_to_report_no_usage(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "set so that it is unset again")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    seen = {}

    def init(*_: object, **options: object) -> None:
        seen.update(options, usage=os.environ.get("RAY_USAGE_STATS_ENABLED"))

    answers = {"shutdown": lambda: None, "is_initialized": lambda: False, "cluster_resources": lambda: {"CPU": 64.0}}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, **answers))
    with trials.ray_cluster(trials.Resources(address=address)):
        assert seen["usage"] == "0"
        if address is None:
            assert seen["include_dashboard"] is False  # it takes jobs from whoever reaches it


@pytest.mark.parametrize("model", ["PosKernelSASRec", "SASRec"])
def test_nothing_is_logged_elsewhere_by_default(model: str) -> None:
    assert Config(model, "ml-100k", command_line=[])["log_wandb"] is False
