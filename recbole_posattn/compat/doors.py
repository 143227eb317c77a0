"""RecBole functions that cannot use our models or checkpoints: they raise an error that names our replacement."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any

import recbole_posattn.compat  # noqa: F401

import recbole.utils
from recbole.config import Config

from recbole_posattn.errors import CheckpointError, SettingError

_QUICK_START = "recbole.quick_start.quick_start"

# RecBole's functions and what to call instead; anything else builds its settings itself.
_OURS = {
    "run_recbole": "recbole_posattn.run",
    "run_recboles": "recbole_posattn.run with nproc",
    "run": "recbole_posattn.run",
    "objective_function": "recbole_posattn.experiments.tuning.objective.objective_function",
    "Config": "recbole_posattn.Config",
}


def block_incompatible_functions(needs_our_settings: Callable[[Config, str], bool]) -> None:
    """Let RecBole refuse our models with its own ``Config``, and our checkpoints in ``load_data_and_model``.

    RecBole's ``Config`` does not read the defaults of our models, so that they would fail with a ``TypeError``. With
    all keys given, they would silently lack what our ``Config`` derives from them. Our checkpoints hold plain data in
    place of a ``Config``.

    Args:
        needs_our_settings: Whether a ``Config`` cannot be that of a model, given by its name.
    """
    load, init_logger = Config._load_internal_config_dict, recbole.utils.init_logger

    @functools.wraps(load)
    def load_internal_config_dict(config: Config, model: str, *arguments: Any) -> Any:
        if needs_our_settings(config, model):
            function = _calling_function() or "Config"
            raise SettingError(
                f"RecBole's {function} cannot use {model}, whose settings it does not know: use "
                f"{_OURS[function]} instead, see docs/from_recbole.md."
            )
        return load(config, model, *arguments)

    @functools.wraps(init_logger)
    def init_logger_of_settings(config: Any) -> None:
        if type(config) is dict:
            raise CheckpointError(
                f"RecBole's {_calling_function() or 'init_logger'} cannot use plain settings, which checkpoints "
                "of recbole_posattn hold: use recbole_posattn.load for such a checkpoint, see docs/from_recbole.md."
            )
        init_logger(config)

    Config._load_internal_config_dict = load_internal_config_dict
    recbole.utils.init_logger = init_logger_of_settings
    if _QUICK_START in sys.modules:  # which has taken the function
        vars(sys.modules[_QUICK_START])["init_logger"] = init_logger_of_settings


def _calling_function() -> str | None:
    """The function of RecBole's quick start that the caller called."""
    frames = [frame for frame, _ in traceback.walk_stack(None) if frame.f_globals.get("__name__") == _QUICK_START]
    return frames[-1].f_code.co_name if frames else None
