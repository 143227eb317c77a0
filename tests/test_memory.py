"""The peak memory of a process, on each system."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from recbole_posattn.training import memory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
def test_it_is_what_the_kernel_says() -> None:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kernel = 1024 * int(lines["VmHWM"].split()[0])
    assert memory.peak_memory() == pytest.approx(kernel, rel=0.05)


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("linux", 1024), ("freebsd14", 1024)])
def test_the_unit_is_that_of_the_system(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(ru_maxrss=300_000_000)
    monkeypatch.setitem(sys.modules, "resource", SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0))
    monkeypatch.setattr(sys, "platform", platform)
    assert memory.peak_memory() == unit * 300_000_000


def test_windows_has_no_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=123_456))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setitem(sys.modules, "resource", None)  # its import fails
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory.peak_memory() == 123_456
