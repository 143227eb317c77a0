"""RecBole's log, on screen and in a file, for one run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The attribute of a record that goes into the file of the log alone.
NOT_ON_SCREEN = "not_on_screen"


@contextmanager
def run_logger(config: Any) -> Iterator[None]:
    """Log one run as RecBole does, on screen and in ``log/<model>/``.

    RecBole calls ``logging.basicConfig``, which does nothing while the root logger has a handler: the second run of a
    process would write to the first one's file, and a run in a program with its own logging to no file. With several
    processes, only rank 0 logs.
    """
    from recbole.utils import init_logger

    from recbole_posattn.distributed import is_main

    root = logging.getLogger()
    host_handlers, host_level = root.handlers[:], root.level
    own_handlers = []
    if is_main():
        root.handlers.clear()
        init_logger(config)
        own_handlers = root.handlers[:]
        for handler in own_handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not getattr(record, NOT_ON_SCREEN, False))
        root.handlers = own_handlers + host_handlers  # RecBole names its TensorBoard log after the first handler's file
    else:
        root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(host_level)
        for handler in own_handlers:
            root.removeHandler(handler)
            handler.close()
