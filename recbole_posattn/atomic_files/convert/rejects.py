"""The lines of a dump that cannot be used: the end of the conversion, or counted and written down."""

from __future__ import annotations

import shutil
import tempfile
from typing import BinaryIO, Literal, NamedTuple

from recbole_posattn.errors import DataError

OnError = Literal["strict", "skip"]

# Bad lines after which a strict conversion reads no further, and those of them that are told.
STRICT_LIMIT = 20
_TOLD = 5

# Characters of a bad line that are written down.
_LENGTH = 1000

# Bytes of bad lines that are held in memory.
_IN_MEMORY = 2**20


class Reason(NamedTuple):
    """Lines that were skipped for one reason.

    Attributes:
        reason: What is wrong with them.
        count: How many there are.
        first: The numbers of the first of them.
    """

    reason: str
    count: int
    first: tuple[int, ...]


class Rejects:
    """The bad lines of a file.

    Args:
        label: How messages name the file.
        on_error: ``strict`` stops at them, ``skip`` goes on without them.
        unit: What is counted: ``line``, or ``row``.
    """

    def __init__(self, label: str, on_error: OnError, unit: str = "line") -> None:
        self.label, self.strict, self.unit = label, on_error == "strict", unit
        self.count = 0
        self._pending: list[tuple[int, str, str]] = []
        self._first: list[tuple[int, str, str]] = []
        self._by_reason: dict[str, list[int]] = {}  # the count, then the numbers of the first lines
        self._rows = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (see close)

    def add(self, number: int, reason: str, text: str) -> None:
        """Take down a bad line.

        Args:
            number: Of the line, from 1.
            reason: What is wrong; lines with the same reason are counted together.
            text: The line.
        """
        self._pending.append((number, reason, text))

    def flush(self) -> None:
        """Bring the lines taken down since the last call into their order.

        Raises:
            DataError: If it is strict and there are so many that reading on makes no sense.
        """
        for number, reason, text in sorted(self._pending):
            self.count += 1
            if len(self._first) < _TOLD:
                self._first.append((number, reason, text))
            of_reason = self._by_reason.setdefault(reason, [0])
            of_reason[0] += 1
            if len(of_reason) <= _TOLD:
                of_reason.append(number)
            if not self.strict:
                self._rows.write(f"{number}\t{reason}\t{printable(text, _LENGTH)}\n".encode())
        self._pending.clear()
        if self.strict and self.count >= STRICT_LIMIT:
            self._stop(f"{self.count} bad {self.unit}s or more")

    def end(self) -> None:
        """The file has been read.

        Raises:
            DataError: If it is strict and there are any.
        """
        self.flush()
        if self.strict and self.count:
            self._stop(f"{self.count} bad {self.unit}{'s' if self.count > 1 else ''}")

    def _stop(self, how_many: str) -> None:
        told = "; ".join(f"{n}: {reason}: {printable(text, 60)!r}" for n, reason, text in self._first)
        more = "; …" if self.count > len(self._first) else ""
        raise DataError(
            f"{self.label} has {how_many}, {self.unit} {told}{more}. Mend the file, or leave them out: --on_error=skip"
        )

    def reasons(self) -> list[Reason]:
        """The reasons, that of most lines first."""
        found = [Reason(reason, count, tuple(first)) for reason, (count, *first) in self._by_reason.items()]
        return sorted(found, key=lambda reason: -reason.count)

    def write(self, file: BinaryIO) -> None:
        """Write all of them down as a table: number, reason, text."""
        file.write(f"{self.unit}\treason\ttext\n".encode())
        self._rows.seek(0)
        shutil.copyfileobj(self._rows, file)

    def close(self) -> None:
        """Forget them."""
        self._rows.close()


def printable(text: str, length: int) -> str:
    """A text on one line without control characters, shortened to about a length."""
    shown = text[:length]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    return f"{shown}…" if len(text) > length else shown
