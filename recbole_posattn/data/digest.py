"""Digests of a data set's contents, by which runs on the same data are recognized wherever the files are."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
from pathlib import Path
from typing import Any


def data_digest(config: Any) -> str:
    """The SHA-256 digest of the names and contents of a data set's files, 64 hexadecimal digits.

    A file is read again once its size or modification time has changed.

    Args:
        config: The resolved settings of a run: ``data_path`` and ``dataset``.
    """
    contents = [(file.name, file_digest(file)) for file in _data_files(config)]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def data_contents(config: Any) -> dict[str, dict[str, str | int]]:
    """Digests of those files of a data set that a run reads, by which a resumed run recognizes them.

    Args:
        config: The resolved settings of a run.

    Returns:
        By the names of the files: ``sha256``, 64 hexadecimal digits, and ``rows``, without the header.
    """
    columns, parts = config["load_col"], config["benchmark_filename"]
    sources = ["inter"] if parts is None else [f"{part}.inter" for part in parts]
    features = ["user", "item", "kg", "link", "net", *(config["additional_feat_suffix"] or [])]
    sources += [source for source in features if columns is None or source in columns]
    read = {f"{config['dataset']}.{source}" for source in sources}
    files = [file for file in _data_files(config) if file.name in read]
    return {file.name: {"sha256": file_digest(file), "rows": _n_rows(file)} for file in files}


def _data_files(config: Any) -> list[Path]:
    """The files of a data set, ``<data_path>/<dataset>.*``, by name."""
    files = sorted(Path(config["data_path"]).glob(f"{glob.escape(config['dataset'])}.*"))
    return [file for file in files if file.is_file()]


def _n_rows(file: Path) -> int:
    """The number of lines of a file after the first one."""
    n_lines, last = 0, b"\n"
    with file.open("rb") as opened:
        while part := opened.read(2**20):
            n_lines, last = n_lines + part.count(b"\n"), part[-1:]
    return max(n_lines + (last != b"\n") - 1, 0)


def file_digest(file: Path) -> str:
    """The SHA-256 digest of a file, 64 hexadecimal digits."""
    status = file.stat()
    return _digest_of_state(file.absolute(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest_of_state(file: Path, size: int, modified: int) -> str:
    """The digest of a file in the state that its size and modification time (in nanoseconds) identify."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
