"""The runner of RecBole's own tests, on tests of the same form."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from recbole_posattn.errors import UserError
from tests.recbole_suite.__main__ import copy_tests, judge
from tests.recbole_suite.known import KNOWN, Known

ROOT = Path(__file__).parent.parent

TESTS = {
    "model/test_model_auto.py": """
import unittest
from recbole.quick_start import objective_function, run_recbole


class TestGeneralRecommender(unittest.TestCase):
    def test_pop(self):
        result = objective_function(config_dict={"model": "Pop", "dataset": "ml-100k", "epochs": 1}, saved=False)
        assert result["test_result"] == {}, "ours, which does not look at the test set"

    def test_caught(self):
        try:
            run_recbole(model="Nope", dataset="ml-100k")
        except ValueError:
            self.assertTrue(False)
""",
    "config/test_config.py": """
import unittest
from recbole.config import Config
from recbole.data import create_dataset


class TestConfigClass(unittest.TestCase):
    def test_priority(self):
        Config(model="BPR", dataset="ml-100k", config_dict={"topk": [50]})

    def test_config_dict(self):
        assert Config(model="BPR", dataset="ml-100k", config_dict={"topk": [10]})["topk"] == [10]
""",
    "config/test_command_line.py": """
from recbole.config import Config

if __name__ == "__main__":
    assert Config(model="BPR", dataset="ml-100k")["epochs"] == 200
""",
    "config/run.sh": '#!/bin/bash\n\npython test_command_line.py --epochs=200 \\\n--metrics=\'["Recall", "MRR"]\'',
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in TESTS.items():
        file = tmp_path / "RecBole-1.2.1" / "tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return tmp_path / "RecBole-1.2.1"


@pytest.mark.parametrize("form", ["checkout", "tests", "zip", "gztar"])
def test_tests_come_from_a_checkout_or_an_archive(checkout: Path, tmp_path: Path, form: str) -> None:
    given = {"checkout": checkout, "tests": checkout / "tests"}.get(form)
    if given is None:
        given = Path(shutil.make_archive(str(tmp_path / "archive"), form, tmp_path, "RecBole-1.2.1"))
    copy_tests(given, tmp_path / "copy")
    copied = {str(file.relative_to(tmp_path / "copy")) for file in (tmp_path / "copy" / "tests").rglob("*.*")}
    assert copied == {f"tests/{name}" for name in TESTS}


def test_what_holds_no_tests_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for path, message in (
        (tmp_path / "text", "is no folder, .tar.gz or .zip"),
        (tmp_path, "holds no tests of RecBole"),
    ):
        with pytest.raises(UserError, match=message):
            copy_tests(path, tmp_path / "copy")
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.add(tmp_path / "text", "../outside")
    with pytest.raises(tarfile.TarError):
        copy_tests(tmp_path / "bad.tar", tmp_path / "copy")


def test_only_known_failures_are_expected() -> None:
    known = {"a": Known("no dgl", "needs dgl"), "b": Known("", "always fails"), "c": Known("x", "y", unless="pytest")}
    for failures, right in (
        ({"a": "no dgl here", "d": None}, True),
        ({"a": "something else"}, False),
        ({"b": None}, False),
        ({"c": None}, True),  # the package is there, and so it passes
        ({"c": "x"}, False),
        ({"d": "x"}, False),
        ({}, False),  # nothing ran
    ):
        lines, as_expected = judge(failures, known)
        assert as_expected == right, failures
        assert lines[-1].startswith(f"{len(failures)} tests: ")
    assert (
        judge({"a": "no dgl", "b": "z", "c": None}, known)[0][-1]
        == "3 tests: 1 passed, 2 failed as known, 0 unexpected"
    )


@pytest.mark.slow
def test_ours_stands_in_the_place_of_recboles(checkout: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.recbole_suite", str(checkout)]
    before = sorted(map(str, checkout.rglob("*")))
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    output = done.stdout.splitlines()
    assert f"fails as known: TestConfigClass::test_priority: {KNOWN['TestConfigClass::test_priority'].reason}" in output
    passes = [
        line for line in output if line.startswith("passes, but is known to fail: TestConfigClass::test_config_dict")
    ]
    (fails,) = [line for line in output if line.startswith("FAILS: ")]
    assert passes and "TestGeneralRecommender::test_caught: AssertionError" in fails
    assert "after SettingError: model 'Nope' is unknown" in fails, "the reason, which the test has caught"
    assert output[-1] == "5 tests: 3 passed, 1 failed as known, 2 unexpected", "the script is one of them"
    assert sorted(map(str, checkout.rglob("*"))) == before, "nothing is written into the checkout"
