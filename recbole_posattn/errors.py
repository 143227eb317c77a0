"""Errors that the user can fix: each message is one line that says what was given, what is allowed and what to do.

The launcher prints the line and exits with code 2; from Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_FAILURE, EXIT_USER_ERROR = 1, 2


class UserError(ValueError):
    """An input of the user cannot be used."""


class SettingError(UserError):
    """A setting (command line, dict, YAML file) has a wrong name or value."""


class DataError(UserError):
    """A data set is missing or cannot be read as atomic files."""


class CheckpointError(UserError):
    """A checkpoint is missing or is not one of ours."""


class InUseError(UserError):
    """Another process is using a file or folder."""


class TrainingError(UserError):
    """Training cannot continue with its settings: out of memory, or a loss that is not finite."""


class ProcessError(RuntimeError):
    """One of several processes failed or died, not because of the user's input."""


class NoAnswerError(ProcessError):
    """One of several processes did not answer in time."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known name regardless of case, or an empty string.

    If exactly one known name begins with this one, it is preferred to similar names.
    """
    by_lower, given = {candidate.lower(): candidate for candidate in known}, str(name).lower()
    nearest = [candidate for candidate in by_lower if len(given) > 2 and candidate.startswith(given)]
    if len(nearest) != 1:
        nearest = difflib.get_close_matches(given, by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as ``1 row``, ``2,000 rows`` and, with the plural ``processes``, ``2 processes``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def one_line(message: object) -> str:
    """A message on one line, with control characters escaped: names in files may contain some."""
    text = " ".join(str(message).split())
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def typed(value: object) -> str:
    """:func:`shown`, with ``None`` as in YAML and on the command line."""
    return "~" if value is None else shown(value)


def shown(value: object, length: int = 120) -> str:
    """The ``repr`` of a value for a message, cut to a given length."""
    try:
        text = repr(value[:length] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list that contains itself
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= length + 2 else f"{text[:length]}…"
