"""What only some systems have."""

from __future__ import annotations

import os

import pytest

needs_posix = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no SIGKILL, no forks, no limits of file sizes and no shell scripts"
)
