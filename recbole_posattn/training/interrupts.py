"""Ctrl-C (SIGINT) and SIGTERM: a command ends at once, a training after its step, and both say so.

The handlers are those of the commands (:func:`handled`). In a program that calls :func:`recbole_posattn.run`, Ctrl-C is
Python's ``KeyboardInterrupt``, and SIGTERM whatever the program makes of it.
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
    """A signal has ended the work.

    Attributes:
        signum: Which one.
        between_steps: Whether it ended the work at a :func:`check`, where all is as it should be.
        kept: What of the work is kept and how to go on, for the user; may be empty.
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
    """Let a signal raise :class:`Interrupted`, in the main thread; nothing changes in another one."""
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
    """Take the signals back from a library that has put its own handlers in the place of :func:`handled`'s."""
    if _now.handled and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _on_signal)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal wait for the next :func:`check`; a second one does not wait."""
    before, _now.deferred = _now.deferred, True
    try:
        yield
        check()
    finally:
        _now.deferred = before


def check() -> None:
    """A place where the work can end.

    Raises:
        Interrupted: If a signal has come.
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
    os.write(sys.__stderr__.fileno(), b"\nrecbole-posattn: stopping after this step; once more stops at once\n")


def _on_signal_in_fork(signum: int) -> None:
    """In a loader's worker, which inherits the handler: Ctrl-C is for the training, which ends it; SIGTERM ends it."""
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
