"""Modules that have moved: their old import paths keep working, with a ``DeprecationWarning``."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old and new path of each documented module or package that has moved.
MOVED = {
    "recbole_posattn.data.convert": "recbole_posattn.atomic_files.convert",
    "recbole_posattn.data.convert.filters": "recbole_posattn.atomic_files.convert.filters",
    "recbole_posattn.data.convert.make": "recbole_posattn.atomic_files.convert.convert",
    "recbole_posattn.data.convert.shapes": "recbole_posattn.atomic_files.convert.shapes",
    "recbole_posattn.data.statistics": "recbole_posattn.atomic_files.statistics",
    "recbole_posattn.evaluation.users": "recbole_posattn.evaluation.target_ranks",
    "recbole_posattn.inspect": "recbole_posattn.analysis",
    "recbole_posattn.inspect.inspection": "recbole_posattn.analysis.inspection",
    "recbole_posattn.inspect.interference": "recbole_posattn.analysis.interference",
    "recbole_posattn.tuning": "recbole_posattn.experiments.tuning",
    "recbole_posattn.tuning.objective": "recbole_posattn.experiments.tuning.objective",
}

# Documented names that have changed with the path: old and new name, by the old path.
RENAMED = {"recbole_posattn.data.convert.shapes": {"Reading": "ReadOptions"}}


class MovedModules(MetaPathFinder, Loader):
    """Imports a module of :data:`MOVED` from its new path; both paths then refer to the same module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder.find_spec``."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader.exec_module``."""
        old, new = module.__name__, MOVED[module.__name__]
        warnings.warn(f"{old} has moved to {new}; import it from there", DeprecationWarning, stacklevel=2)
        moved = sys.modules[old] = importlib.import_module(new)
        for old_name, new_name in RENAMED.get(old, {}).items():
            setattr(moved, old_name, getattr(moved, new_name))


def keep_old_import_paths() -> None:
    """Let the import system find the modules of :data:`MOVED` by their old paths."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())  # before the finder for files, which would load a second copy
