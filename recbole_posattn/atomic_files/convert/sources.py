"""Finds the file of a dump in a folder or a zip archive, and opens it for reading, compressed or not.

The first bytes of a file show how it is compressed. Nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from recbole_posattn.atomic_files.convert.formats import fits
from recbole_posattn.errors import DataError

_GZIP, _ZIP = b"\x1f\x8b\x08", b"PK\x03\x04"

# Errors when a file is cut off, damaged, encrypted, or compressed in a way that Python does not support.
READ_ERRORS = (EOFError, OSError, zlib.error, zipfile.BadZipFile, struct.error, RuntimeError, NotImplementedError)


class Located(NamedTuple):
    """Where the interactions are.

    Attributes:
        file: The file on disk.
        member: The name of the member with the interactions, if the file is a zip archive.
    """

    file: Path
    member: str | None = None

    @property
    def label(self) -> str:
        """How messages name it."""
        return str(self.file) if self.member is None else f"{self.file}:{self.member}"

    @property
    def name(self) -> str:
        """The name of the file or member, without folders."""
        return Path(self.member or self.file).name


class Stream(NamedTuple):
    """A file that is being read.

    Attributes:
        file: Its uncompressed bytes.
        size: Its compressed size in bytes.
        position: Returns how many compressed bytes have been read.
    """

    file: BinaryIO
    size: int
    position: Callable[[], int]


def refuse_stream(source: Path) -> None:
    """Refuse a pipe or a device: a source is opened several times, which would miss what was read before.

    Raises:
        DataError: If there is a file of this name that is neither a regular file nor a folder.
    """
    if os.path.exists(source) and not (source.is_file() or source.is_dir()):
        kind = "a pipe" if source.is_fifo() else "neither a file nor a folder"
        raise DataError(f"{source} is {kind}; write it to a file first (gzip is fine)")


def locate(source: Path, patterns: Sequence[str] | None, others: Sequence[str] = ()) -> Located:
    """The file with the interactions in a source.

    Args:
        source: A file, a zip archive, or the unpacked folder of a dump.
        patterns: Possible names of the file; ``None`` if they are not known.
        others: Possible names of other files of the dump, which are left alone.

    Raises:
        DataError: If there is no such file, or there are several.
    """
    if source.is_dir():
        if patterns is None:
            raise DataError(f"{source} is a folder; give the path of the file with the interactions")
        found = [Path(folder) / name for folder, _, names in os.walk(source) for name in names]
        return Located(Path(_only(source, [str(file) for file in found], patterns, others)))
    try:
        with open(source, "rb") as file:
            first = file.read(len(_ZIP))
        if first != _ZIP:
            return Located(source)
        with zipfile.ZipFile(source) as archive:
            members = [info.filename for info in archive.infolist() if info.filename and not info.is_dir()]
    except READ_ERRORS as error:
        raise DataError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return Located(source, _only(source, members, patterns or ["*"], others))


def _only(source: Path, files: Sequence[str], patterns: Sequence[str], others: Sequence[str]) -> str:
    names = {file: Path(file).name for file in files if not Path(file).name.startswith(".")}
    found = sorted(file for file, name in names.items() if fits(name, patterns) and not fits(name, others))
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{source} has no file {' or '.join(patterns)}; give the path of the file with the interactions"
        )
    more = ", …" if len(found) > 4 else ""
    raise DataError(
        f"{source} has several files that match: {', '.join(found[:4])}{more}; give the path of the "
        "one with the interactions"
    )


@contextmanager
def open_stream(located: Located) -> Iterator[Stream]:
    """Open a located file for reading.

    Raises:
        DataError: If it cannot be opened.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(open(located.file, "rb"))
            file: Any = raw  # may become a ZipExtFile or GzipFile; they have no common type with peek()
            size, start = os.fstat(raw.fileno()).st_size, 0
            if located.member is not None:
                archive = stack.enter_context(zipfile.ZipFile(raw))
                member = archive.getinfo(located.member)
                size, start = member.compress_size, member.header_offset
                file = stack.enter_context(archive.open(member))
            if file.peek(len(_GZIP)).startswith(_GZIP):
                file = stack.enter_context(gzip.GzipFile(fileobj=file))
        except READ_ERRORS as error:
            raise DataError(f"{located.label} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        yield Stream(file, size, lambda: min(max(raw.tell() - start, 0), size))


def category_of(name: str) -> str:
    """The category in the name of an Amazon file, such as ``Beauty`` of ``reviews_Beauty_5.json.gz``."""
    category = re.sub(r"^(reviews|ratings)_", "", name)
    return re.sub(r"(_\d+)?(\.(csv|jsonl?|gz))+$", "", category)


def beside(located: Located, patterns: Sequence[str]) -> Located | None:
    """The file of one of some names in the folder of another one, of the disk or of the same archive.

    Args:
        located: The other file.
        patterns: Names that the file may have, the likeliest first.

    Raises:
        DataError: If the archive cannot be read.
    """
    if located.member is None:
        names = {path.name: Located(path) for path in located.file.parent.iterdir() if path.is_file()}
    else:
        folder = Path(located.member).parent
        try:
            with zipfile.ZipFile(located.file) as archive:
                members = [Path(name) for name in archive.namelist()]
        except READ_ERRORS as error:
            raise DataError(f"{located.file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        names = {path.name: Located(located.file, str(path)) for path in members if path.parent == folder}
    fitting = (name for pattern in patterns for name in sorted(names) if fits(name, [pattern]))
    return next((names[name] for name in fitting), None)
