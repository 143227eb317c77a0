"""An objective for RecBole's own ``HyperTuning`` that does not use the test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_posattn.compat import patch_hyper_tuning

from recbole_posattn.training.run import run

patch_hyper_tuning()


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str | Path] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """Train with some settings; replaces ``recbole.quick_start.objective_function``.

    .. code-block:: python

        from recbole.trainer import HyperTuning
        from recbole_posattn.experiments.tuning.objective import objective_function

        search = HyperTuning(objective_function, params_file="model.hyper", algo="bayes", max_evals=20)
        search.run()

    Args:
        config_dict: Settings; they override those of the files.
        config_file_list: YAML files with settings.
        saved: Whether to save the checkpoint of the best epoch.

    Returns:
        The keys of RecBole's objective: ``model``, ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result``,
        and ``test_result``, which is empty: RecBole's own evaluates every trial on the test set.

    Raises:
        SettingError, DataError: As :func:`recbole_posattn.run` does.
    """
    settings = dict(config_dict or {})
    result = run(config_file_list=config_file_list, config_dict=settings, saved=saved, test=False)
    assert result is not None  # None is returned by runs in several processes only
    return {
        "model": settings.get("model", "model"),
        "best_valid_score": result["best_valid_score"],
        "valid_score_bigger": result["valid_score_bigger"],
        "best_valid_result": result["best_valid_result"],
        "test_result": {},
    }
