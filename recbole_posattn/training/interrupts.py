"""Ctrl-C (SIGINT) and SIGTERM: a command ends at once, training after the current step, and both report it.

Only the commands install the handlers (:func:`handled`). In a program that calls :func:`recbole_posattn.run`, Ctrl-C
raises Python's ``KeyboardInterrupt``, and SIGTERM is up to the program.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, SimpleNamespace

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_now = SimpleNamespace(handled=False, deferred=False, pending=None, process=None)


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    Attributes:
        signum: The signal.
        between_steps: Whether the work ended at a :func:`check`, where the state is consistent.
        kept: What is kept and how to continue, for the user; may be empty.
    """

    def __init__(self, signum: int, between_steps: bool = False) -> None:
        super().__init__(signum)
        self.signum = signum
        self.between_steps = between_steps
        self.kept = ""

    @property
    def exit_code(self) -> int:
        """The shell's: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum

    def __str__(self) -> str:
        what = "interrupted" if self.signum == signal.SIGINT else f"stopped by {signal.Signals(self.signum).name}"
        return f"{what}; {self.kept}" if self.kept else what


@contextmanager
def handled() -> Iterator[None]:
    """Let a signal raise :class:`Interrupted`; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in _SIGNALS}
    _now.handled, _now.process = True, os.getpid()
    try:
        yield
    finally:
        _now.handled, _now.pending = False, None
        for number, handler in before.items():
            signal.signal(number, handler)


def handle_again() -> None:
    """Reinstall the handlers of :func:`handled` after a library has replaced them."""
    if _now.handled and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer the first signal to the next :func:`check`; a second one acts at once."""
    before, _now.deferred = _now.deferred, True
    try:
        yield
        check()
    finally:
        _now.deferred = before


@contextmanager
def explained(kept: str) -> Iterator[SimpleNamespace]:
    """Let an interruption of the block say what is kept, unless it does already.

    Args:
        kept: What to say.

    Yields:
        An object whose function ``kept`` is to be replaced when there is more to say.
    """
    now = SimpleNamespace(kept=lambda: "")
    try:
        yield now
    except Interrupted as interrupted:
        interrupted.kept = interrupted.kept or now.kept() or kept
        raise


def check() -> None:
    """A point at which the work may end.

    Raises:
        Interrupted: If a signal has arrived.
    """
    if _now.pending is not None:
        signum, _now.pending = _now.pending, None
        raise Interrupted(signum, between_steps=True)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _now.process:
        _on_signal_in_fork(signum)
        return
    if not _now.deferred or _now.pending is not None:
        _now.pending = None
        raise Interrupted(signum)
    _now.pending = signum
    if sys.__stderr__ is not None:  # a program without a console has none
        os.write(sys.__stderr__.fileno(), b"\nrecbole-posattn: stopping after this step; once more stops at once\n")


def _on_signal_in_fork(signum: int) -> None:
    """In a loader's worker, which inherits the handler: SIGTERM ends it; on Ctrl-C the training process does."""
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
