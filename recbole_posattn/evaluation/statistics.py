"""Means, spreads, intervals and paired tests of models that were evaluated on the same targets with several seeds.

Shape keys: s seeds, n targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

N_RESAMPLES = 2_000  # of a bootstrap
N_PERMUTATIONS = 9_999  # of a test; the smallest p-value there can be is 2 over one more than these

# Numbers that a bootstrap or a test holds at a time.
_NUMBERS = 2**24


class Estimate(NamedTuple):
    """A metric of a model.

    Attributes:
        mean: Over seeds and targets.
        deviation: Standard deviation of the seeds' means; ``nan`` for one seed.
        low: Lower end of the interval, see :func:`bootstrap_intervals`.
        high: Upper end of the interval.
    """

    mean: float
    deviation: float
    low: float
    high: float


def estimates(values: Mapping[str, np.ndarray], confidence: float = 0.95, seed: int = 0) -> dict[str, Estimate]:
    """Mean, standard deviation over seeds, and bootstrap interval of each model.

    Args:
        values: What each target contributes to the metric by model, each of shape (its s, n) on the same n targets.
        confidence: Of the intervals.
        seed: Of the resampling.
    """
    intervals = bootstrap_intervals(values, confidence, seed)
    found = {}
    for model, array in values.items():
        deviation = array.mean(axis=1).std(ddof=1) if len(array) > 1 else np.nan
        found[model] = Estimate(float(array.mean()), float(deviation), *intervals[model])
    return found


def bootstrap_intervals(
    values: Mapping[str, np.ndarray], confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means under resampling of both targets and seeds.

    Each resample draws as many targets and as many seeds as there are, with replacement and independently of each other
    (the pigeonhole bootstrap; Owen, The Annals of Applied Statistics 1(2), 2007), so that an interval speaks for other
    users and for other seeds alike. With one seed it speaks for other users only. All models see the same resamples, so
    that the interval of one does not depend on which others there are.

    Args:
        values: See :func:`estimates`.
        confidence: Share of the resamples' means inside an interval.
        seed: Of the resampling.

    Returns:
        The lower and the upper end for each model.

    Raises:
        ValueError: If the models were not evaluated on as many targets.
    """
    n_targets = _number_of_targets(values)
    means: dict[str, list[np.ndarray]] = {model: [] for model in values}
    for nth, size in enumerate(_batches(n_targets)):
        of_targets = _shares(n_targets, size, [seed, nth, 0])
        for model, array in values.items():
            of_seeds = _shares(len(array), size, [seed, nth, 1])
            means[model].append(((of_targets @ array.T) * of_seeds).sum(axis=1))
    tail = (1 - confidence) / 2
    ends = {model: np.quantile(np.concatenate(parts), [tail, 1 - tail]) for model, parts in means.items()}
    return {model: (float(low), float(high)) for model, (low, high) in ends.items()}


def paired_p_value(values: np.ndarray, reference: np.ndarray, seed: int = 0) -> float:
    """Permutation test of the mean difference of two models on the same targets, two-sided.

    Under the null hypothesis the two are exchangeable target by target: the sign of each target's difference, which is
    taken between means over seeds, is a coin toss.

    Args:
        values: Shape (s, n).
        reference: Of the other model on the same targets in the same order, shape (its s, n).
        seed: Of the permutations.

    Raises:
        ValueError: If the targets are not as many.
    """
    _number_of_targets({"model": values, "reference": reference})
    difference = values.mean(axis=0) - reference.mean(axis=0)
    difference = difference[difference != 0]  # no sign changes these
    if not len(difference):
        return 1.0
    test = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_PERMUTATIONS,
        batch=max(1, _NUMBERS // len(difference)),
        random_state=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def p_values_against(reference: str, values: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, float]:
    """The paired test of each model against one of them, corrected for their number by Holm's method.

    Args:
        reference: A key of ``values``.
        values: What each target contributes to the metric by model, each of shape (s, n) on the same n targets.
        seed: Of the permutations.

    Returns:
        The corrected p-values of all models but the reference.
    """
    others = [model for model in values if model != reference]
    if not others:
        return {}
    raw = [paired_p_value(values[model], values[reference], seed) for model in others]
    return dict(zip(others, map(float, multipletests(raw, method="holm")[1])))


def _shares(n: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """How much each of n counts in some resamples of as many, shape (size, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size) / n


def _number_of_targets(values: Mapping[str, np.ndarray]) -> int:
    numbers = {model: array.shape[1] for model, array in values.items()}
    if len(set(numbers.values())) != 1:
        raise ValueError(f"models are compared on the same targets, got {numbers}")
    return next(iter(numbers.values()))


def _batches(n_targets: int) -> list[int]:
    """Resamples to draw at a time, :data:`N_RESAMPLES` in all."""
    size = max(1, _NUMBERS // n_targets)
    whole, rest = divmod(N_RESAMPLES, size)
    return [size] * whole + [rest] * (rest > 0)
