"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_INCOMPLETE = ".incomplete"


@contextmanager
def write_atomically(file: str | Path) -> Iterator[Path]:
    """A path to write to, renamed to ``file`` when the block succeeds; an old file stays untouched until then.

    No other process gets this path, so of several that write the same file, the last one's stays.

    Args:
        file: The file, in an existing folder.
    """
    incomplete = Path(f"{file}.{secrets.token_hex(4)}{_INCOMPLETE}")
    try:
        yield incomplete
        os.replace(incomplete, file)
    finally:
        with suppress(OSError):
            incomplete.unlink(missing_ok=True)


def discard_output() -> None:
    """Discard what is still to be written to standard output, whose reader has closed the pipe."""
    with suppress(OSError, ValueError):  # not a file of the system
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def link_or_copy(file: str | Path, name: str | Path) -> None:
    """Make a file available under a second name: as a hard link, or as a copy where the file system has no links.

    Args:
        file: The file.
        name: Its second name; a file of that name is replaced.
    """
    with write_atomically(name) as incomplete:
        incomplete.unlink(missing_ok=True)
        try:
            os.link(file, incomplete)
        except OSError:
            shutil.copyfile(file, incomplete)


def has_incomplete(folder: Path) -> bool:
    """Whether a folder contains incomplete files, of a process that is writing or has died."""
    return any(folder.rglob(f"*{_INCOMPLETE}"))


def remove_incomplete(folder: Path) -> None:
    """Remove the incomplete files of a process that died while writing."""
    for file in folder.rglob(f"*{_INCOMPLETE}"):
        file.unlink(missing_ok=True)


def make_new_folder(path: Path) -> Path:
    """Make a folder of this name, with a number appended if the name is taken, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()
        except FileExistsError:
            continue
        return candidate
    raise FileExistsError(f"no free name for {path}")


def write_json(file: str | Path, value: Any, **options: Any) -> None:
    """Write a value as an indented JSON file, whole or not at all; the arguments are those of :func:`json_text`."""
    with write_atomically(file) as incomplete:
        incomplete.write_text(json_text(value, indent=2, **options) + "\n", encoding="utf-8")


def json_text(value: Any, **options: Any) -> str:
    """A value as JSON. Numbers that are not finite become ``null``, because JSON has no infinity and no NaN.

    Args:
        value: Plain data.
        options: Options of ``json.dumps``.
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def json_lines(value: Any, width: int = 120) -> str:
    """A value as JSON text for readers and for ``git diff``: what fits into a line stands on one.

    Args:
        value: Plain data; see :func:`json_text` for numbers that are not finite.
        width: The most characters of a mapping or list on one line, without its indentation.
    """
    return _json_lines(_finite(value), width, "\n") + "\n"


def _json_lines(value: Any, width: int, newline: str) -> str:
    text = json_text(value, ensure_ascii=False)
    if len(text) <= width or not isinstance(value, (dict, list)):
        return text
    inner = f"{newline} "
    if isinstance(value, dict):
        parts = [f"{json_text(key)}: {_json_lines(item, width, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{newline}}}"
    return f"[{inner}{f',{inner}'.join(_json_lines(item, width, inner) for item in value)}{newline}]"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
