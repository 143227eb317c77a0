"""The architecture: rooms, the imports between them, and the sizes of what is in them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recbole_posattn.moved import MOVED

ROOT = Path(__file__).resolve().parent.parent
MOST_FLOORS, MOST_LINES, MOST_LINES_OF_CODE = 11, 330, 45


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs" / "house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rooms_import_what_the_table_allows(house: ModuleType) -> None:
    allowed = house.allowed_imports(house.PAGE.read_text(encoding="utf-8"))
    found = house.imports_between_rooms()
    assert allowed.keys() == found.keys()
    assert {room: targets - allowed[room] for room, targets in found.items() if targets - allowed[room]} == {}
    assert len(house.floors(found)) <= MOST_FLOORS  # and there is no circle
    assert len(house.floors(allowed)) <= MOST_FLOORS


def test_modules_of_a_room_import_each_other_in_no_circle(house: ModuleType) -> None:
    files = [file for of_room in house.rooms().values() for file in of_room if file.name != "__init__.py"]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    arrows = {
        name: {
            other for module in house.imported_modules(file) for other in names if f"{module}.".startswith(f"{other}.")
        }
        - {name}
        for name, file in names.items()
    }
    house.floors(arrows)


def test_a_circle_is_noticed(house: ModuleType) -> None:
    assert house.floors({"a": {"b"}, "b": set()}) == [["b"], ["a"]]
    with pytest.raises(ValueError, match="circle: a, b"):
        house.floors({"a": {"b"}, "b": {"a"}, "c": set()})


@pytest.mark.slow
def test_nn_is_pure_pytorch(house: ModuleType) -> None:
    modules = set().union(*map(house.imported_modules, house.rooms()["nn"]))
    assert {module.split(".")[0] for module in modules} <= {"torch", "recbole_posattn", *sys.stdlib_module_names}
    assert all(module.startswith("recbole_posattn.nn.") for module in modules if module.startswith("recbole_posattn"))
    code = "import recbole_posattn.nn.backbone, sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'torch'" in loaded and "'recbole'" not in loaded


def test_types_are_ignored_with_a_code_and_a_reason(house: ModuleType) -> None:
    """`make lint` checks them; what mypy is told to ignore must say why."""
    ignored = [
        line.strip()
        for files in house.rooms().values()
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if "type: ignore" in line
    ]
    assert all(re.search(r"# type: ignore\[[a-z-]+\]  # \w.+", line) for line in ignored), ignored
    assert (ROOT / "recbole_posattn" / "py.typed").is_file()


def changes_of_recbole(source: str) -> list[str]:
    """Statements that assign to attributes or items of what a module imports from RecBole, or delete them."""
    tree = ast.parse(source)
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or "recbole" for alias in node.names if alias.name.split(".")[0] == "recbole"}
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "recbole":
            imported |= {alias.asname or alias.name for alias in node.names}

    def of_recbole(target: ast.expr) -> bool:
        if isinstance(target, (ast.Tuple, ast.List)):
            return any(map(of_recbole, target.elts))
        while isinstance(target, (ast.Attribute, ast.Subscript)):
            target = target.value
            if isinstance(target, ast.Name) and target.id in imported:
                return True
        return False

    found = []
    for node in ast.walk(tree):
        targets = list(getattr(node, "targets", []))
        if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            targets = [ast.Attribute(node.args[0], "any")]
        found += [ast.unparse(node) for target in targets if of_recbole(target)]
    return found


def test_recbole_is_changed_in_compat_alone(house: ModuleType) -> None:
    found = {
        str(file.relative_to(ROOT)): changes
        for room, files in house.rooms().items()
        for file in files
        if room != "compat" and (changes := changes_of_recbole(file.read_text(encoding="utf-8")))
    }
    assert found == {}
    assert sum(len(changes_of_recbole(file.read_text(encoding="utf-8"))) for file in house.rooms()["compat"]) >= 10


@pytest.mark.parametrize(
    ("source", "n_changes"),
    [
        ("import recbole.data.utils\nrecbole.data.utils.get_dataloader = None", 1),
        ("from recbole.trainer import trainer as theirs\ntheirs.get_tensorboard, mine = 1, 2", 1),
        ("from recbole.evaluator import register\nregister.metrics_dict['cov'] = 1\ndel register.metric_types", 2),
        ("from recbole.data import dataset\nsetattr(dataset, 'ModelDataset', 1)\nsetattr(mine, 'dataset', 1)", 1),
        ("from recbole.config import Config\nconfig = Config()\nconfig.seed = 1\nConfig = None", 0),
    ],
)
def test_changes_of_recbole_are_noticed(source: str, n_changes: int) -> None:
    assert len(changes_of_recbole(source)) == n_changes


def test_the_diagram_is_that_of_the_code(house: ModuleType) -> None:
    page = house.PAGE.read_text(encoding="utf-8")
    assert house.drawn_page(page) == page, "run: python docs/house.py"


def lines_of_code(function: ast.AST) -> int:
    """Lines of a function's body with code on them, without its docstring and the functions defined in it."""
    body = function.body[ast.get_docstring(function) is not None :]
    lines = {
        line
        for statement in body
        for node in ast.walk(statement)
        if hasattr(node, "lineno")
        for line in (node.lineno, node.end_lineno)
    }
    return len(lines)


def test_modules_and_functions_are_short(house: ModuleType) -> None:
    files = [file for of_room in house.rooms().values() for file in of_room]
    long = {str(file.relative_to(ROOT)): n for file in files if (n := len(file.read_text().splitlines())) > MOST_LINES}
    assert long == {}
    functions = {
        f"{file.relative_to(ROOT)}:{node.name}": lines_of_code(node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: n for name, n in functions.items() if n > MOST_LINES_OF_CODE} == {}


# What the documentation imported before the modules moved.
DOCUMENTED = {
    "recbole_posattn": ("run", "load", "Config", "register", "Recommender"),
    "recbole_posattn.data.convert.filters": ("Filters",),
    "recbole_posattn.data.convert.make": ("convert",),
    "recbole_posattn.data.convert.shapes": ("Reading",),
    "recbole_posattn.data.statistics": ("data_statistics",),
    "recbole_posattn.evaluation.users": ("metric_by_target",),
    "recbole_posattn.inspect.inspection": ("inspect_checkpoint",),
    "recbole_posattn.inspect.interference": ("interference",),
    "recbole_posattn.tuning.objective": ("objective_function",),
}


@pytest.mark.filterwarnings("ignore:recbole_posattn.* has moved:DeprecationWarning")
@pytest.mark.parametrize("module", DOCUMENTED)
def test_names_of_the_old_documentation_can_be_imported(module: str) -> None:
    if module in MOVED:
        sys.modules.pop(module, None)  # so that it is imported by its old path
    imported = importlib.import_module(module)
    assert all(callable(getattr(imported, name)) for name in DOCUMENTED[module])
    assert module == "recbole_posattn" or module in MOVED


# The packages above it may have moved as well, and warn if nothing has imported them yet.
@pytest.mark.filterwarnings("ignore:recbole_posattn.* has moved:DeprecationWarning")
@pytest.mark.parametrize("old", MOVED)
def test_old_import_paths_keep_working(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old]}"):
        moved = importlib.import_module(old)
    assert moved is importlib.import_module(MOVED[old])
