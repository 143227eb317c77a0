"""The TensorBoard log of a run, which the run does not depend on."""

from __future__ import annotations

import logging
from typing import Any


class SafeWriter:
    """Passes everything on to a ``SummaryWriter`` until that fails, such as on a full disk; the run then goes on.

    Args:
        writer: The writer of RecBole's trainer.
    """

    def __init__(self, writer: Any) -> None:
        self._writer, self._failed = writer, False

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._writer, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            if self._failed:
                return None
            try:
                return value(*arguments, **options)
            except OSError as error:
                self._failed = True
                logging.getLogger().warning(
                    f"the TensorBoard log cannot be written: {error.strerror or error}; the run continues without it"
                )
                return None

        return call
