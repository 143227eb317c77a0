"""Puts this package's ``Config`` and launcher where RecBole's tests import RecBole's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import recbole
import recbole.config

import recbole_posattn
from recbole_posattn.experiments.tuning.objective import objective_function


class LastError:
    """What the launcher raised last; some of RecBole's tests catch it and fail on a bare ``False``."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def remembering(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose errors are kept here before they go on."""

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return function(*arguments, **options)
            except Exception as error:
                self.error = error
                raise

        return call


# RecBole's default of 500 epochs takes hours, and the one test that pretrains a model needs what the first one writes.
QUICK = {"pretrain_epochs": 1}


def quick_objective(config_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> dict[str, Any]:
    """Our objective function with the settings :data:`QUICK` as defaults."""
    return objective_function({**QUICK, **config_dict}, *arguments, **options)


def substitute() -> LastError:
    """Make RecBole's names ours, for the rest of the process.

    Data sets and loaders follow from it: a ``Config`` of ours makes RecBole's ``create_dataset`` and
    ``data_preparation`` build ours.
    """
    last_error = LastError()
    launcher = ModuleType("recbole.quick_start")  # RecBole's imports Ray
    launcher.run_recbole = last_error.remembering(recbole_posattn.run)
    launcher.objective_function = last_error.remembering(quick_objective)
    sys.modules[launcher.__name__] = launcher
    recbole.quick_start = launcher
    recbole.config.Config = recbole_posattn.Config
    return last_error
