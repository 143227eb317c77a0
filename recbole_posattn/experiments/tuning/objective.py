"""The objective of RecBole's own ``HyperTuning``, without a look at the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_posattn.compat import let_hyper_tuning_run

from recbole_posattn.training.run import run

let_hyper_tuning_run()


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train with some settings; in the place of ``recbole.quick_start.objective_function``.

    .. code-block:: python

        from recbole.trainer import HyperTuning
        from recbole_posattn.experiments.tuning.objective import objective_function

        search = HyperTuning(objective_function, params_file="model.hyper", algo="bayes", max_evals=20)
        search.run()

    Args:
        config_dict: Settings, stronger than the files.
        config_file_list: YAML files with settings.
        saved: Whether to keep the best epoch.

    Returns:
        What RecBole's returns: ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``, and
        ``test_result``, which is empty: RecBole's own shows the test set to the search.

    Raises:
        SettingError, DataError: As :func:`recbole_posattn.run` does.
    """
    settings = dict(config_dict or {})
    result = run(config_file_list=config_file_list, config_dict=settings, saved=saved, test=False)
    return {
        "model": settings.get("model", "model"),
        "best_valid_score": result["best_valid_score"],
        "valid_score_bigger": result["valid_score_bigger"],
        "best_valid_result": result["best_valid_result"],
        "test_result": {},
    }
