"""Tells at the end how many cases of each kind were tried."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.fuzz.harness import COUNTS, write_counts

if not hasattr(signal, "SIGALRM"):  # by which a case that hangs is ended
    collect_ignore_glob = ["test_*.py"]

# Where the counts are written, if it is set.
COUNTS_VARIABLE = "FUZZ_COUNTS"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each kind, in a process that has run cases."""
    if not COUNTS:
        return
    terminalreporter.section("fuzzed cases")
    kinds = {kind: {} for kind, _ in sorted(COUNTS)}
    for (kind, how), count in COUNTS.items():
        kinds[kind][how] = count
    for kind, counts in kinds.items():
        numbers = ", ".join(f"{how} {counts[how]:,}" for how in ("run", "refused", "other") if how in counts)
        terminalreporter.write_line(f"{kind}: {sum(counts.values()):,} ({numbers})")
    terminalreporter.write_line(f"all: {sum(COUNTS.values()):,}")
    if COUNTS_VARIABLE in os.environ:
        write_counts(Path(os.environ[COUNTS_VARIABLE]))
