"""Table cells, and pages without external resources."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recbole_posattn.errors import UserError
from recbole_posattn.files import write_atomically

# What a test found; hollow if the evidence is weak.
MARKS = {"better": "▲", "worse": "▼", "tie": "="}
WEAK_MARKS = {"better": "△", "worse": "▽", "tie": "="}

MISSING = "–"


class Cell(NamedTuple):
    """A cell of a table, independent of the output format.

    Attributes:
        text: The text.
        value: The sorting key; ``None`` comes last.
        best: Whether it is the best of its column.
        verdict: The outcome of a test, a key of :data:`MARKS`; empty without a test.
        p: The p-value of the test.
        weak: Whether the evidence of the test is weak.
    """

    text: str
    value: str | float | None
    best: bool = False
    verdict: str = ""
    p: float = math.nan
    weak: bool = False

    @property
    def mark(self) -> str:
        """The outcome of the test as a sign; empty without a test."""
        return (WEAK_MARKS if self.weak else MARKS).get(self.verdict, "")


def number_cell(value: float | None, form: str) -> Cell:
    """A number as a cell, sorted by its value; a dash if it is missing."""
    if value is None or math.isnan(value):
        return Cell(MISSING, None)
    return Cell(form.format(value), float(value))


def command_line() -> str:
    """The present command line, as typed."""
    name = Path(sys.argv[0]).name
    return shlex.join(["recbole-posattn" if name == "__main__.py" else name, *sys.argv[1:]])


def render_page(template: Path, **context: Any) -> str:
    """A page from a template that extends ``page.html.j2``; all values are escaped."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**context)


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files, each whole or not at all.

    Args:
        folder: Created if missing.
        contents: Contents by file name.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with write_atomically(folder / name) as incomplete:
                incomplete.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return [folder / name for name in contents]
