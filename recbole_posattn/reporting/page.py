"""Tables and pages: a cell, a page that loads nothing, files that are whole or not there."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recbole_posattn.errors import UserError
from recbole_posattn.files import whole_file

MARKS = {"better": "▲", "worse": "▼", "tie": "="}

MISSING = "–"


class Cell(NamedTuple):
    """A cell of a table, before a format gives it its looks.

    Attributes:
        text: What it says.
        value: What a table is sorted by; ``None`` goes last.
        best: Whether it is the best of its column.
        verdict: What a test said of it, a key of :data:`MARKS`, or empty.
        p: What the verdict rests on.
    """

    text: str
    value: str | float | None
    best: bool = False
    verdict: str = ""
    p: float = math.nan


def number_cell(value: float | None, form: str) -> Cell:
    """A number as a cell, sorted by what it is and not by how it is written; a dash if it is missing."""
    missing = value is None or math.isnan(value)
    return Cell(MISSING, None) if missing else Cell(form.format(value), float(value))


def command_line() -> str:
    """The command that is being executed, as one would type it."""
    name = Path(sys.argv[0]).name
    return shlex.join(["recbole-posattn" if name == "__main__.py" else name, *sys.argv[1:]])


def render_page(template: Path, **context: Any) -> str:
    """A page from a template that extends ``page.html.j2``; names are escaped."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(marks=MARKS, **context)


def write_files(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files, each of them whole or not at all.

    Args:
        folder: Made if it is not there.
        contents: What is in them, by their names.

    Returns:
        The files.

    Raises:
        UserError: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with whole_file(folder / name) as incomplete:
                incomplete.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error
    return [folder / name for name in contents]
