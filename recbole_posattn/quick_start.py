"""``run`` and ``load``, under the module name that RecBole users know."""

from recbole_posattn.training.load import Loaded, evaluate_checkpoint, load
from recbole_posattn.training.result import RunResult
from recbole_posattn.training.run import run

__all__ = ["Loaded", "RunResult", "evaluate_checkpoint", "load", "run"]
