"""Collects the bad lines of a dump, which end the conversion, or are counted and listed in a file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import BinaryIO, Literal

from recbole_posattn.errors import DataError, counted

OnError = Literal["strict", "skip"]

# How many bad lines end a strict conversion before the end of the file, and how many of them are shown.
STRICT_LIMIT = 20
_SHOWN = 5

# How many characters of a bad line are kept.
_LENGTH = 1000

# How many bytes of bad lines are held in memory; more go to disk.
_IN_MEMORY = 2**20


@dataclass(frozen=True)
class Reason:
    """Lines that were skipped for one reason.

    Attributes:
        reason: What is wrong with them.
        count: Their number.
        first: The numbers of the first of these lines.
    """

    reason: str
    count: int
    first: tuple[int, ...]


class Rejects:
    """The bad lines of a file.

    Args:
        label: How messages name the file.
        on_error: ``strict`` ends the conversion at bad lines, ``skip`` leaves them out.
        unit: ``line`` or ``row``.
    """

    def __init__(self, label: str, on_error: OnError, unit: str = "line") -> None:
        self.label, self.strict, self.unit = label, on_error == "strict", unit
        self.count = 0
        self._pending: list[tuple[int, str, str]] = []
        self._first: list[tuple[int, str, str]] = []
        self._by_reason: dict[str, list[int]] = {}  # the count, then the numbers of the first lines
        self._rows = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (see close)

    def add(self, number: int, reason: str, text: str) -> None:
        """Record a bad line.

        Args:
            number: Number of the line, from 1.
            reason: What is wrong; lines with the same reason are counted together.
            text: The line.
        """
        self._pending.append((number, reason, text))

    def flush(self) -> None:
        """Take in the lines recorded since the last call, in the order of the file.

        Raises:
            DataError: If the conversion is strict and there are at least :data:`STRICT_LIMIT` bad lines.
        """
        for number, reason, text in sorted(self._pending):
            self.count += 1
            if len(self._first) < _SHOWN:
                self._first.append((number, reason, text))
            of_reason = self._by_reason.setdefault(reason, [0])
            of_reason[0] += 1
            if len(of_reason) <= _SHOWN:
                of_reason.append(number)
            if not self.strict:
                self._rows.write(f"{number}\t{reason}\t{printable(text, _LENGTH)}\n".encode())
        self._pending.clear()
        if self.strict and self.count >= STRICT_LIMIT:
            self._stop(f"{self.count} bad {self.unit}s or more")

    def end(self) -> None:
        """Finish when the whole file has been read.

        Raises:
            DataError: If the conversion is strict and there are bad lines.
        """
        self.flush()
        if self.strict and self.count:
            self._stop(f"{counted(self.count, f'bad {self.unit}')}")

    def _stop(self, how_many: str) -> None:
        examples = "; ".join(f"{n}: {reason}: {printable(text, 60)!r}" for n, reason, text in self._first)
        more = "; …" if self.count > len(self._first) else ""
        raise DataError(
            f"{self.label} has {how_many}, {self.unit} {examples}{more}. "
            "Correct the file, or leave them out with --on_error=skip"
        )

    def reasons(self) -> list[Reason]:
        """The reasons, the most frequent first."""
        found = [Reason(reason, count, tuple(first)) for reason, (count, *first) in self._by_reason.items()]
        return sorted(found, key=lambda reason: -reason.count)

    def write(self, file: BinaryIO) -> None:
        """Write all bad lines as a table: number, reason, text."""
        file.write(f"{self.unit}\treason\ttext\n".encode())
        self._rows.seek(0)
        shutil.copyfileobj(self._rows, file)

    def close(self) -> None:
        """Discard the bad lines."""
        self._rows.close()


def printable(text: str, length: int) -> str:
    """A text on one line without control characters, shortened to about ``length`` characters."""
    shown = text[:length]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return f"{shown}…" if len(text) > length else shown
