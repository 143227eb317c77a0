"""The tests of RecBole 1.2.1 that fail here, each with what it must fail with and why that is right."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class Known(NamedTuple):
    """A test that fails.

    Attributes:
        message: Part of the failure's message; a failure with another one is unexpected.
        reason: Why it is right that it fails.
        unless: A package with which the test passes.
    """

    message: str
    reason: str
    unless: str | None = None

    def holds(self) -> bool:
        """Whether the test fails with the packages that are installed."""
        return self.unless is None or find_spec(self.unless) is None


_DGL = Known("dgl", "RecBole builds the graph with dgl, which is not installed", unless="dgl")
_SCATTER = Known("torch_scatter", "RecBole needs torch_scatter, which is not installed", unless="torch_scatter")

# By the name of class and test, which are unique among RecBole's.
KNOWN: dict[str, Known] = {}
