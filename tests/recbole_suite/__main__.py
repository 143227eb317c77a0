"""``python -m tests.recbole_suite PATH [arguments of pytest]``: RecBole's tests with this package in RecBole's place.

PATH is a checkout of RecBole, its ``tests`` folder, or an archive (``.tar.gz`` or ``.zip``), such as GitHub's of the
tag v1.2.1. The tests run in a temporary folder: nothing is written elsewhere. The exit code is 0 if exactly the tests
of :data:`tests.recbole_suite.known.KNOWN` fail, each as it is known to.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from recbole_posattn.atomic_files.download import extract_archive
from recbole_posattn.errors import UserError
from tests.recbole_suite.known import KNOWN, Known
from tests.recbole_suite.plugin import Outcomes
from tests.recbole_suite.substitution import substitute

_LANDMARK = Path("model", "test_model_auto.py")  # below RecBole's tests


def copy_tests(path: Path, folder: Path) -> None:
    """Copy RecBole's tests to ``<folder>/tests``.

    Args:
        path: A checkout, its ``tests`` folder, or an archive.
        folder: An empty one.

    Raises:
        UserError: If the tests are not there.
    """
    source = path
    if path.is_file():
        source = folder / "archive"
        if zipfile.is_zipfile(path):
            extract_archive(path, source)
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                archive.extractall(source, filter="data")
        else:
            raise UserError(f"{path} is no folder, .tar.gz or .zip file")
    for tests in (source, source / "tests", *source.glob("*/tests")):
        if (tests / _LANDMARK).is_file():
            shutil.copytree(tests, folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
            return
    raise UserError(f"{path} holds no tests of RecBole: there is no tests/{_LANDMARK} in it")


def judge(failures: Mapping[str, str | None], known: Mapping[str, Known]) -> tuple[list[str], bool]:
    """What became of the tests, in lines to print, and whether all of it was expected.

    Args:
        failures: The message of each test that failed; ``None`` for each that passed.
        known: The tests that fail.
    """
    expected, unexpected = [], []
    for name, message in failures.items():
        why = known.get(name)
        fails = why is not None and why.holds()
        if message is None and fails:
            unexpected.append(f"passes, but is known to fail: {name}: {why.reason}")
        elif message is not None and fails and why.message in message:
            expected.append(f"fails as known: {name}: {why.reason}")
        elif message is not None:
            unexpected.append(f"FAILS: {name}: {message}")
    passed = sum(message is None for message in failures.values())
    counts = f"{len(failures)} tests: {passed} passed, {len(expected)} failed as known, {len(unexpected)} unexpected"
    return [*expected, *unexpected, counts], bool(failures) and not unexpected


def main(arguments: Sequence[str]) -> int:
    """Run the tests and print what failed, with reasons; the exit code."""
    if not arguments:
        print("RECBOLE_TESTS must name a checkout or an archive of RecBole", file=sys.stderr)
        return 2
    path = Path(arguments[0]).resolve()
    with tempfile.TemporaryDirectory(prefix="recbole-tests-") as name:
        try:
            copy_tests(path, Path(name))
        except (OSError, UserError, tarfile.TarError) as error:
            print(error, file=sys.stderr)
            return 2
        before = Path.cwd()
        os.chdir(name)
        try:
            outcomes = Outcomes(substitute())
            options = ["-q", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider"]
            pytest.main([*options, "--rootdir=.", *(arguments[1:] or ["tests"])], plugins=[outcomes])
        finally:
            os.chdir(before)
    lines, as_expected = judge(outcomes.failures, KNOWN)
    print("\n".join(lines))
    return 0 if as_expected else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
