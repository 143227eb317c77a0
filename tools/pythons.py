"""The Pythons that this project runs on, for ``make``. Every Python must be able to read this file, 2.7 included.

``python3 tools/pythons.py check`` says in one line why the running Python cannot be used, if so; ``list`` prints the
usable Pythons of this machine, one for each version.
"""

from __future__ import print_function

import glob
import os
import platform
import subprocess
import sys

OLDEST, NEWEST = (3, 11), (3, 14)
RANGE = "Python %d.%d to %d.%d" % (OLDEST + NEWEST)


def problem(version, implementation, importable):
    """What is wrong with a Python, or None.

    Args:
        version: (major, minor).
        implementation: As ``platform.python_implementation()`` returns it.
        importable: A function that returns whether a module can be imported.
    """
    name = "Python %d.%d" % tuple(version)
    other = "choose one, such as: make run PYTHON=python3.%d" % (NEWEST[1] - 1)
    if implementation != "CPython":
        return "%s is %s, for which PyTorch is not built; %s" % (name, implementation, other)
    if not OLDEST <= tuple(version) <= NEWEST:
        too = "old" if tuple(version) < OLDEST else "new"
        return "%s is too %s: this needs %s; %s" % (name, too, RANGE, other)
    for module in ("venv", "ensurepip"):
        if not importable(module):
            package = "python%d.%d-venv" % tuple(version)
            return "%s has no module %s; install it (Debian, Ubuntu: apt install %s) or %s" % (
                name,
                module,
                package,
                other,
            )
    return None


def importable(module):
    """Whether a module can be imported."""
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def candidates():
    """Commands and paths that may be Pythons of the range: on the PATH, then what pyenv and uv have installed."""
    home = os.path.expanduser("~")
    pyenv = os.path.join(os.environ.get("PYENV_ROOT") or os.path.join(home, ".pyenv"), "versions", "3.*")
    uv = os.path.join(home, ".local", "share", "uv", "python", "cpython-3.*")
    named = ["python3.%d" % minor for minor in range(OLDEST[1], NEWEST[1] + 1)]
    installed = [path for folder in (pyenv, uv) for path in sorted(glob.glob(os.path.join(folder, "bin", "python3")))]
    return [sys.executable] + named + ["python3", "python"] + installed


def usable():
    """Paths of the first usable Python of each version, oldest version first."""
    found = {}
    for command in candidates():
        try:
            output = subprocess.check_output([command, os.path.abspath(__file__), "where"], stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):  # missing, or not usable
            continue
        version, path = output.decode().strip().split(" ", 1)
        found.setdefault(tuple(map(int, version.split("."))), path)
    return [found[version] for version in sorted(found)]


def main(what):
    """Do one of ``check``, ``version``, ``where`` and ``list``; returns the exit code."""
    version = sys.version_info[:2]
    if what == "version":
        print("%d.%d" % version)
        return 0
    if what == "list":
        paths = usable()
        print("\n".join(paths))
        return 0 if paths else 2
    wrong = problem(version, platform.python_implementation(), importable)
    if wrong:
        print("make: %s" % wrong, file=sys.stderr)
        return 2
    if what == "where":
        print("%d.%d %s" % (version + (os.path.abspath(sys.executable),)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
