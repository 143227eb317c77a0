"""Messages about the settings of a search or leaderboard, each logged once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def each_message_once() -> Iterator[None]:
    """Drop messages of the root logger that were logged before: the same settings are checked several times."""
    logged: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in logged
        logged.add(message)
        return new

    root = logging.getLogger()
    root.addFilter(is_new)
    try:
        yield
    finally:
        root.removeFilter(is_new)
