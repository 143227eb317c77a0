"""Reads the lines of a file block by block. A line that is undecodable or too long does not affect others.

Shape keys: n lines.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from recbole_posattn.atomic_files.convert.rejects import Rejects
from recbole_posattn.atomic_files.convert.sources import READ_ERRORS, Stream
from recbole_posattn.data.text import LONGEST_LINE, line_encoding
from recbole_posattn.errors import DataError, SettingError

# Bytes of a block.
BLOCK = 2**20

# How many bytes are shown of a line that is undecodable or too long.
_SHOWN = 1000


class Lines(NamedTuple):
    """Some lines of a file, none of them empty.

    Attributes:
        number: Number of each line, from 1; int64, shape (n,).
        texts: The lines without their line breaks.
        done: How many bytes of the (compressed) file have been read.
    """

    number: np.ndarray
    texts: list[str]
    done: int

    def take(self, good: np.ndarray) -> Lines:
        """The lines for which a mask of shape (n,) is true."""
        if good.all():
            return self
        return Lines(self.number[good], [self.texts[index] for index in np.flatnonzero(good).tolist()], self.done)


def read_lines(stream: Stream, encoding: str, rejects: Rejects) -> Iterator[Lines]:
    """The lines of a file except for empty ones.

    Args:
        stream: The file.
        encoding: See :func:`checked_encoding`. A byte order mark of UTF-8 is removed.
        rejects: Collects lines that are not in this encoding.

    Raises:
        DataError: If the file is damaged or cut off.
    """
    number, rest, block = 1, b"", None
    while block != b"":
        try:
            block = stream.file.read(BLOCK)
        except READ_ERRORS as error:
            raise DataError(
                f"{rejects.label} is damaged or cut off after line {number - 1}, byte {stream.position()} of "
                f"{stream.size} ({error or type(error).__name__}); download it again"
            ) from error
        if number == 1 and not rest and encoding == "utf-8":
            block = block.removeprefix(codecs.BOM_UTF8)
        whole, newline, rest = (rest + block).rpartition(b"\n") if block else (rest, rest, b"")
        rest = rest[: LONGEST_LINE + 1]
        if newline:
            texts = _decoded(whole, encoding)
            good = np.array([bool(text) for text in texts])
            numbers = np.arange(number, number + len(texts))
            for index, line in _unusable(whole, texts):
                good[index] = False
                problem = f"longer than {LONGEST_LINE} bytes" if len(line) > LONGEST_LINE else f"not {encoding}"
                rejects.add(
                    int(numbers[index]), f"the line is {problem}", line[:_SHOWN].decode("ascii", "backslashreplace")
                )
            number += len(texts)
            lines = Lines(numbers, texts, stream.position())  # type: ignore[arg-type]  # take() drops each None
            yield lines.take(good)


def checked_encoding(name: str) -> str:
    """Python's name of an encoding that ends lines with byte 10, as all do except UTF-16, UTF-32 and EBCDIC.

    Raises:
        SettingError: If it does not, or is unknown.
    """
    encoding = line_encoding(name)
    if encoding is not None:
        return encoding
    raise SettingError(
        f"encoding must be one such as utf-8, latin-1 or cp1252; got {name!r}. Convert the file with iconv."
    )


def _decoded(whole: bytes, encoding: str) -> Sequence[str | None]:
    """The lines of a block, ``None`` for a line that is not in this encoding."""
    text = _decode(whole, encoding)
    texts = [_decode(line, encoding) for line in whole.split(b"\n")] if text is None else text.split("\n")
    return [line and line.removesuffix("\r") for line in texts] if b"\r" in whole else texts


def _decode(line: bytes, encoding: str) -> str | None:
    try:
        text = line.decode(encoding)
        if encoding != "utf-8":
            text.encode()  # some encodings allow surrogates, which cannot be written
        return text
    except UnicodeError:
        return None


def _unusable(whole: bytes, texts: Sequence[str | None]) -> Iterator[tuple[int, bytes]]:
    """The lines of a block that are undecodable or too long, with their indices."""
    if None in texts or len(whole) > LONGEST_LINE:
        for index, line in enumerate(whole.split(b"\n")):
            if texts[index] is None or len(line) > LONGEST_LINE:
                yield index, line
