"""Digests of a data set's contents, by which runs on the same data are recognized wherever the files are.

A file is read for its digest once as long as its path, size and modification time stay the same. A reader that goes
through the whole file for another purpose computes the digest on the way (:class:`Digesting`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_posattn.data.sources import file_of, is_parquet

_FEATURES = ("user", "item", "kg", "link", "net")

_BLOCK = 2**22
_TICKS = 10**8  # nanoseconds


class FileState(NamedTuple):
    """What identifies the contents of a file without reading it.

    Attributes:
        file: Its absolute path.
        size: In bytes.
        modified: When it was last modified, in nanoseconds.
        is_settled: Whether that is so long ago that a new change must get a different time, despite the limited time
            resolution of file systems. Contents of other files are not cached.
    """

    file: Path
    size: int
    modified: int
    is_settled: bool

    @classmethod
    def of(cls, file: Path) -> FileState:
        """The present state of a file."""
        status = os.stat(file)
        settled = time.time_ns() - status.st_mtime_ns > _TICKS
        return cls(file.absolute(), status.st_size, status.st_mtime_ns, settled)

    def is_of(self, file: Path) -> bool:
        """Whether a file is still in this state."""
        return self[:3] == FileState.of(file)[:3]


class Contents(NamedTuple):
    """What is in a file.

    Attributes:
        sha256: The SHA-256 digest, 64 hexadecimal digits.
        n_lines: Lines after the first one; the last one may lack its line break.
    """

    sha256: str
    n_lines: int


_known: dict[FileState, Contents] = {}


class Digesting:
    """The digest of a file, computed in a thread of its own while another reader goes through the file.

    Args:
        file: The file.

    Attributes:
        state: The state of the file when the reader began.
    """

    def __init__(self, file: Path) -> None:
        self.state = FileState.of(file)
        self._sha256 = hashlib.sha256()
        self._n_breaks, self._last = 0, b"\n"
        self._thread = ThreadPoolExecutor(1)
        self._previous: Future[None] | None = None

    def __enter__(self) -> Digesting:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def add(self, block: bytes) -> None:
        """Add the next bytes of the file; waits for the bytes before them, so that few are in memory."""
        self._wait()
        self._previous = self._thread.submit(self._add, block)

    def _add(self, block: bytes) -> None:
        self._sha256.update(block)
        self._n_breaks += n_line_ends(block)
        self._last = block[-1:] or self._last

    def _wait(self) -> None:
        if self._previous is not None:
            self._previous.result()

    def finish(self) -> Contents:
        """What is in the file, after its last byte was added; remembered unless the file has changed meanwhile."""
        self._wait()
        contents = Contents(self._sha256.hexdigest(), max(self._n_breaks + (self._last != b"\n") - 1, 0))
        if self.state.is_settled and self.state.is_of(self.state.file):
            _known[self.state] = contents
        return contents


def n_line_ends(block: bytes) -> int:
    """How often byte 10 occurs; counting in an array is faster than ``bytes.count`` where there are many."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))


def data_digest(config: Any, pretrained: str | None = None) -> str:
    """The SHA-256 digest of the names and contents of a data set's atomic files, 64 hexadecimal digits.

    All of them count, read or not, but no other file beside them, such as a backup.

    Args:
        config: The resolved settings of a run.
        pretrained: A checkpoint whose contents count as well.
    """
    contents = [(file.name, file_digest(file)) for file in _data_files(config)]
    if pretrained is not None:
        contents.append(("", file_digest(Path(pretrained))))
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def data_contents(config: Any) -> dict[str, dict[str, str | int]]:
    """Digests of those files of a data set that a run reads, by which a resumed run recognizes them.

    Args:
        config: The resolved settings of a run.

    Returns:
        By the names of the files: ``sha256``, 64 hexadecimal digits, and ``rows``, without the header.
    """
    return {file.name: {"sha256": file_digest(file), "rows": _n_rows(file)} for file in _read_files(config)}


def _read_files(config: Any) -> list[Path]:
    """The files of a data set that a run reads, by name."""
    columns = config["load_col"]
    return _data_files(config, lambda feature: columns is None or feature in columns)


def _data_files(config: Any, is_wanted: Callable[[str], bool] = lambda feature: True) -> list[Path]:
    """The atomic files of a data set, by name: those of interactions, and of wanted features such as ``item``."""
    parts = config["benchmark_filename"]
    sources = ["inter"] if parts is None else [f"{part}.inter" for part in parts]
    sources += filter(is_wanted, [*_FEATURES, *(config["additional_feat_suffix"] or [])])
    folder = Path(config["data_path"])
    files = {file_of(folder / f"{config['dataset']}.{source}") for source in sources}
    return sorted(file for file in files if file.is_file())


def _n_rows(file: Path) -> int:
    if is_parquet(file):
        from pyarrow.parquet import read_metadata

        return int(read_metadata(file).num_rows)
    return contents_of(file).n_lines


def file_digest(file: Path) -> str:
    """The SHA-256 digest of a file, 64 hexadecimal digits."""
    return contents_of(file).sha256


def contents_of(file: Path) -> Contents:
    """What is in a file; it is read if it has changed since the last time."""
    known = _known.get(FileState.of(file))
    if known is not None:
        return known
    with Digesting(file) as digest, open(file, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.add(block)
        return digest.finish()
