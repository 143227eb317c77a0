"""How much each key of a search matters. Optuna is imported where it is used: it takes its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_posattn.experiments.tuning.records import TrialRecord
from recbole_posattn.experiments.tuning.space import Space

_FEWEST_TRIALS = 4


def importances(
    records: Sequence[TrialRecord], space: Space, fixed: Mapping[str, Any], bigger: bool
) -> dict[str, float]:
    """fANOVA's share of each key in the variance of the scores over the space, the largest first.

    A random forest is fitted to the best score of each trial, that of pruned ones included, and its variance is taken
    apart (Hutter, Hoos & Leyton-Brown, ICML 2014), by Optuna. Only keys that every trial has can be compared.

    Args:
        records: The trials.
        space: What was searched.
        fixed: All other settings.
        bigger: Whether a higher score is better.

    Returns:
        Shares by key, which sum to 1; empty if there are too few trials, or all have the same score.
    """
    scored = [record for record in records if record.curve]
    if len(scored) < _FEWEST_TRIALS or len({record.best(bigger) for record in scored}) == 1:
        return {}
    import optuna

    study = optuna.create_study(direction="maximize" if bigger else "minimize")
    for record in scored:
        study.enqueue_trial(space.parameters(record.settings))
        trial = study.ask()
        space.suggest(trial, fixed)
        study.tell(trial, record.best(bigger))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
