"""Draw the badges of README.md from pyproject.toml: ``python docs/badges.py`` writes docs/images/badge_<name>.svg.

They are files of the repository, so that they show without a network, and a test compares them with pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
_WIDTH = 6.1  # of a character of 11 px Verdana, on average
_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{name}: {value}">
<title>{name}: {value}</title>
<clipPath id="round"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#round)">
<rect width="{left}" height="20" fill="#555"/><rect x="{left}" width="{right}" height="20" fill="{color}"/>
</g>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{name_x}" y="14" textLength="{name_width}">{name}</text>
<text x="{value_x}" y="14" textLength="{value_width}">{value}</text>
</g>
</svg>
"""


def facts(project: dict[str, Any]) -> dict[str, str]:
    """What the badges say, by their names, from the tables of pyproject.toml."""
    pythons = [found[1] for each in project["project"]["classifiers"] if (found := re.search(r":: (3\.\d+)$", each))]
    (recbole,) = project["dependency-groups"]["recbole"]
    (torch,) = (each for each in project["project"]["dependencies"] if each.startswith("torch>="))
    return {
        "python": f"{pythons[0]} – {pythons[-1]}",
        "recbole": recbole.removeprefix("recbole=="),
        "pytorch": f"≥ {torch.removeprefix('torch>=')}",
        "licence": project["project"]["license"],
    }


def badge(name: str, value: str, color: str = "#3f51b5") -> str:
    """An SVG picture with a name and a value."""
    widths = {"name_width": round(_WIDTH * len(name)), "value_width": round(_WIDTH * len(value))}
    left, right = widths["name_width"] + 12, widths["value_width"] + 12
    places = {"left": left, "right": right, "width": left + right, "name_x": left / 2, "value_x": left + right / 2}
    return _SVG.format(name=escape(name), value=escape(value), color=color, **widths, **places)


def drawn() -> dict[Path, str]:
    """The files of the badges and their contents."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {IMAGES / f"badge_{name}.svg": badge(name, value) for name, value in facts(project).items()}


if __name__ == "__main__":
    for file, svg in drawn().items():
        file.write_text(svg, encoding="utf-8")
        print(file)
