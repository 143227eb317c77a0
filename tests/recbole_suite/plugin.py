"""A pytest plugin that collects what became of each of RecBole's tests."""

from __future__ import annotations

import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recbole_suite.substitution import LastError

# A script with assertions that reads its settings from the command line, and the file that says which.
COMMAND_LINE_TEST, COMMAND_LINE_SCRIPT = "test_command_line.py", "run.sh"


class Outcomes:
    """Runs RecBole's tests as RecBole does, from a folder with ``tests/`` in it.

    Attributes:
        failures: The message of each test that failed, by class and name; ``None`` for those that passed.
    """

    def __init__(self, last_error: LastError) -> None:
        self.failures: dict[str, str | None] = {}
        self._last_error = last_error

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Take the script among the tests as one test."""
        return Script.from_parent(parent, path=file_path) if file_path.name == COMMAND_LINE_TEST else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Run a test with an empty command line, which RecBole's ``Config`` and ours read."""
        arguments, sys.argv = sys.argv, sys.argv[:1]
        self._last_error.error = None
        try:
            return (yield)
        finally:
            sys.argv = arguments

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
        """Note the message of a failure."""
        report = yield
        name = "::".join(item.nodeid.split("::")[1:])
        if call.excinfo is not None:
            message = f"{call.excinfo.typename}: {call.excinfo.value}"
            last = self._last_error.error
            if isinstance(call.excinfo.value, AssertionError) and last is not None:
                message = f"{message}, after {type(last).__name__}: {last}"
            self.failures[name] = " ".join(message.split())
        elif call.when == "call":
            self.failures.setdefault(name, None)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failures[report.nodeid] = " ".join(str(report.longrepr).split())


class Script(pytest.File):
    """RecBole's test of the command line, with the settings that its shell script gives it."""

    def collect(self) -> Iterator[pytest.Item]:
        """The one test."""
        yield ScriptRun.from_parent(self, name="script")


class ScriptRun(pytest.Item):
    """One run of the script."""

    def runtest(self) -> None:
        """Run it as a main program."""
        script = self.path.with_name(COMMAND_LINE_SCRIPT).read_text(encoding="utf-8").replace("\\\n", " ")
        (line,) = [line for line in script.splitlines() if COMMAND_LINE_TEST in line]
        sys.argv = shlex.split(line)[1:]  # after "python"
        runpy.run_path(str(self.path), run_name="__main__")
