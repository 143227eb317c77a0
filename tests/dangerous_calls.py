"""Finds calls in Python source that can execute the contents of a file or a text, from the syntax tree."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from types import ModuleType

import yaml

# What rebuilds any Python object, or runs it.
MODULES = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
CALLS = {
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "runpy.run_path"),
    *("os.system", "os.popen", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *("torch.hub.load", "torch.jit.load", "pandas.read_pickle", "pyarrow.deserialize", "shutil.unpack_archive"),
}
METHODS = {"extract", "extractall", "read_pickle", "to_pickle"}  # of an object, whatever it is
EXPRESSIONS, TEXT = {"eval", "query"}, (ast.Constant, ast.JoinedStr)  # pandas'; other methods of the name take no text


def dangerous_calls(source: str, module: ModuleType) -> list[str]:
    """What is dangerous in a module, as ``function: what``.

    Args:
        source: Of the module.
        module: The same, imported: there the loaders are that YAML is read with.
    """
    tree = ast.parse(source)
    full_names = dict(_imported(tree))
    found = [f"import {name}" for name in full_names.values() if name.split(".")[0] in MODULES]
    for function, call in _calls(tree, "module"):
        name = _full_name(call.func, full_names)
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        method = call.func.attr if isinstance(call.func, ast.Attribute) else None
        if name in CALLS or name.startswith(("os.exec", "os.spawn")) or name.split(".")[0] in MODULES:
            found.append(f"{function}: {name}")
        elif method in METHODS or (method in EXPRESSIONS and any(isinstance(arg, TEXT) for arg in call.args)):
            found.append(f"{function}: .{method}")
        elif name == "torch.load" and not _is(keywords.get("weights_only"), True):
            found.append(f"{function}: torch.load without weights_only=True")
        elif name in {"yaml.load", "yaml.load_all"}:
            (loader, *_) = *call.args[1:], keywords.get("Loader")
            if loader is None or not _is_safe_loader(loader, module):
                found.append(f"{function}: {name} without a SafeLoader")
        for keyword in ("shell", "allow_pickle"):
            if keyword in keywords and not _is(keywords[keyword], False):
                found.append(f"{function}: {keyword}")
    return found


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Names in a module, and what they are in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name if alias.asname else alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _calls(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    """Calls, and the functions that they stand in."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
        if isinstance(child, ast.Call):
            yield inside, child
        yield from _calls(child, inside)


def _full_name(node: ast.expr, full_names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, full_names)}.{node.attr}"
    if isinstance(node, ast.Name):
        return full_names.get(node.id, f"builtins.{node.id}" if hasattr(builtins, node.id) else node.id)
    return ""


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_safe_loader(node: ast.expr, module: ModuleType) -> bool:
    """Whether an expression is a class that makes plain data alone."""
    loader = module
    for name in ast.unparse(node).split("."):
        loader = getattr(loader, name, None)
    return isinstance(loader, type) and issubclass(loader, (yaml.SafeLoader, yaml.CSafeLoader))
