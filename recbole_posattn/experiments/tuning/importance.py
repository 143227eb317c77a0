"""The importance of each key of a search. Optuna is imported where it is used, as it is slow to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_posattn.experiments.tuning.records import TrialRecord
from recbole_posattn.experiments.tuning.space import Space

_FEWEST_TRIALS = 4

# Importances of fewer trials than this are shown with a caution.
_FEW_TRIALS = 20


def importances(
    records: Sequence[TrialRecord], space: Space, fixed: Mapping[str, Any], bigger: bool
) -> dict[str, float]:
    """The share of each key in the variance of the scores over the space (fANOVA), the largest first.

    Optuna fits a random forest to the best score of each trial, pruned trials included, and decomposes its variance
    (Hutter, Hoos & Leyton-Brown, ICML 2014). Only keys that every trial has can be compared.

    Args:
        records: The trials.
        space: The search space.
        fixed: All other settings.
        bigger: Whether a higher score is better.

    Returns:
        Shares by key, which sum to 1; empty if there are too few trials, or all have the same score or settings.
    """
    scored = [record for record in records if record.best(bigger) is not None]
    if len(scored) < _FEWEST_TRIALS or len({record.best(bigger) for record in scored}) == 1:
        return {}
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would print a line for the study
    try:
        return _fanova(scored, space, fixed, bigger)
    except RuntimeError:  # the trials do not differ in any key
        return {}
    finally:
        optuna.logging.set_verbosity(verbosity)


def _fanova(scored: Sequence[TrialRecord], space: Space, fixed: Mapping[str, Any], bigger: bool) -> dict[str, float]:
    import optuna

    study = optuna.create_study(direction="maximize" if bigger else "minimize")
    for record in scored:
        study.enqueue_trial(space.parameters(record.settings))
        trial = study.ask()
        space.suggest(trial, fixed)
        study.tell(trial, record.best(bigger))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def caution(records: Sequence[TrialRecord], bigger: bool) -> str:
    """A caution to show with importances from few trials; empty if there are enough."""
    n_scored = sum(record.best(bigger) is not None for record in records)
    if n_scored >= _FEW_TRIALS:
        return ""
    return f"Caution: {n_scored} trials are too few to rank keys."
