"""Draw the rooms of the package and the imports between them into CONTRIBUTING.md: ``python docs/house.py``.

A room is a folder of the package, or a module beside the folders. The table in CONTRIBUTING.md has a row for each room,
which says what each is for and which others it may import; a test compares it with the imports in the code.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "recbole_posattn"
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: python docs/house.py -->", "<!-- end of rooms -->"


def rooms() -> dict[str, list[Path]]:
    """The Python files of each room."""
    package = ROOT / PACKAGE
    found: dict[str, list[Path]] = {}
    for file in sorted(package.rglob("*.py")):
        top = file.relative_to(package).parts[0]
        found.setdefault(top.removesuffix(".py"), []).append(file)
    return found


def imported_modules(file: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it; ``from a import b`` gives ``a.b``."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def imports_between_rooms() -> dict[str, set[str]]:
    """The other rooms that each room imports; ``__init__`` stands for the public names of the package."""
    found = rooms()
    arrows: dict[str, set[str]] = {room: set() for room in found}
    for room, files in found.items():
        for module in set().union(*map(imported_modules, files)):
            package, _, rest = module.partition(".")
            if package == PACKAGE:
                target = rest.partition(".")[0]
                arrows[room].add(target if target in found else "__init__")
        arrows[room].discard(room)
    return arrows


def allowed_imports(page: str) -> dict[str, set[str]]:
    """The table of CONTRIBUTING.md: the rooms that each room may import."""
    name = r"`(\w+)(?:/|\.py)?`"
    rows = re.findall(rf"^\| {name} \|[^|]*\| ([^|]*) \|$", page, flags=re.MULTILINE)
    return {room: set(re.findall(name, may)) for room, may in rows}


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Rooms floor by floor, the lowest first: each stands one above the highest that it imports.

    Raises:
        ValueError: If rooms import each other in a circle.
    """
    level: dict[str, int] = {}
    waiting = dict(arrows)
    while waiting:
        ready = [room for room, targets in waiting.items() if targets <= level.keys()]
        if not ready:
            raise ValueError(f"these rooms import each other in a circle: {', '.join(sorted(waiting))}")
        for room in ready:
            level[room] = 1 + max((level[target] for target in waiting[room]), default=0)
        waiting = {room: targets for room, targets in waiting.items() if room not in level}
    return [sorted(room for room in level if level[room] == floor) for floor in range(1, max(level.values()) + 1)]


def diagram(arrows: dict[str, set[str]]) -> str:
    """A Mermaid diagram of the rooms, with the arrows that no longer path through other rooms implies."""
    drawn = {room: targets for room, targets in arrows.items() if room not in ("__init__", "__main__")}
    lines = ["```mermaid", "flowchart TD"]
    for room in sorted(drawn):
        direct = drawn[room] - {"__init__"}
        implied = set().union(*(_reachable(target, drawn) for target in direct)) if direct else set()
        lines += [f"  {room} --> {target}" for target in sorted(direct - implied)]
    return "\n".join([*lines, "```"])


def _reachable(room: str, arrows: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows.get(room, ()))
    while waiting:
        target = waiting.pop()
        if target not in found:
            found.add(target)
            waiting += arrows.get(target, ())
    return found


def drawn_page(page: str) -> str:
    """CONTRIBUTING.md with the diagram drawn anew."""
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n\n{diagram(imports_between_rooms())}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(drawn_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for number, floor in reversed(list(enumerate(floors(imports_between_rooms()), start=1))):
        print(f"floor {number:2}  {', '.join(floor)}", file=sys.stdout)
