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


@pytest.mark.parametrize(
    ("platform", "environment", "libc", "expected"),
    [
        ("linux", {}, SimpleNamespace(), [(-1, 2**31 - 1), (-3, 2**30)]),
        ("linux", {"MALLOC_TRIM_THRESHOLD_": "1000"}, SimpleNamespace(), []),
        ("linux", {}, object(), []),
        ("darwin", {}, SimpleNamespace(), []),
    ],
    ids=["glibc", "set by the user", "musl", "macOS"],
)
def test_freed_memory_is_kept_on_linux_with_glibc_unless_the_user_sets_it(
    platform: str, environment: dict, libc: object, expected: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []
    if isinstance(libc, SimpleNamespace):
        libc.mallopt = lambda option, value: calls.append((option, value))
    for name in memory._SET_BY_USER:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libc)
    memory.keep_freed_memory()
    assert calls == expected
