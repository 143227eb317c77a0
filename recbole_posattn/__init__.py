"""Positional-kernel self-attention for sequential recommendation in RecBole."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_posattn.moved import keep_old_import_paths
from recbole_posattn.version import __version__

if TYPE_CHECKING:
    from recbole_posattn.models.poskernelsasrec import PosKernelSASRec
    from recbole_posattn.serving.recommender import Recommender
    from recbole_posattn.settings.config import Config
    from recbole_posattn.settings.extensions import register_encoding, register_kernel, register_loss
    from recbole_posattn.settings.registry import register
    from recbole_posattn.training.load import load
    from recbole_posattn.training.run import run

__all__ = [
    "Config",
    "PosKernelSASRec",
    "Recommender",
    "__version__",
    "load",
    "register",
    "register_encoding",
    "register_kernel",
    "register_loss",
    "run",
]

_MODULES = {
    "Config": "recbole_posattn.settings.config",
    "PosKernelSASRec": "recbole_posattn.models.poskernelsasrec",
    "Recommender": "recbole_posattn.serving.recommender",
    "load": "recbole_posattn.training.load",
    "register": "recbole_posattn.settings.registry",
    "register_encoding": "recbole_posattn.settings.extensions",
    "register_kernel": "recbole_posattn.settings.extensions",
    "register_loss": "recbole_posattn.settings.extensions",
    "run": "recbole_posattn.training.run",
}

keep_old_import_paths()

if not TYPE_CHECKING:  # to a type checker, a name that is not imported above is unknown

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first used: torch and RecBole take seconds."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from recbole_posattn.settings.registry import hook_recbole

        hook_recbole()
        globals()[name] = value = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
