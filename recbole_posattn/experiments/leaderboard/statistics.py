"""Means, spreads, intervals and paired tests of models that were evaluated on the same targets with several seeds.

The unit is the user, as the values of a user's targets depend on each other. The metric itself remains the mean over
targets, as RecBole computes it, so each user is weighted by the number of targets.

Shape keys: s seeds, n targets, u users, m pairs of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

N_RESAMPLES = 2_000  # of a bootstrap
N_PERMUTATIONS = 9_999  # of a test; the smallest possible p-value is 1 / (N_PERMUTATIONS + 1)

# Random numbers in memory at a time.
_NUMBERS = 2**22


class Estimate(NamedTuple):
    """The estimate of a metric of a model.

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


def estimates(
    values: Mapping[str, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Mean, standard deviation over seeds, and bootstrap interval of each model.

    Args:
        values: The contribution of each target to the metric, by model; shape (s, n) with the same n targets for all.
        users: The user of each target, of any type; shape (n,).
        confidence: Coverage of the intervals.
        seed: Random seed of the resampling.

    Raises:
        ValueError: If the numbers of targets and users differ.
    """
    intervals = bootstrap_intervals(values, users, confidence, seed)
    result = {}
    for model, array in values.items():
        deviation = array.mean(axis=1).std(ddof=1) if len(array) > 1 else np.nan
        result[model] = Estimate(float(array.mean()), float(deviation), *intervals[model])
    return result


def bootstrap_intervals(
    values: Mapping[str, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means under resampling of both users and seeds.

    Each resample draws u users, each with all targets, and s seeds, both with replacement and independently (the
    pigeonhole bootstrap; Owen, The Annals of Applied Statistics 1(2), 2007), so an interval covers other users and
    other seeds. With one seed it covers other users only. Resampling s seeds underestimates the variance by the
    factor (s − 1) / s, which is far from 1 for few seeds; the weights of the seeds are spread to correct this. All
    models share the resamples, so the interval of a model does not depend on the others.

    Args:
        values: See :func:`estimates`.
        users: See :func:`estimates`.
        confidence: Share of the resamples inside an interval.
        seed: Random seed of the resampling.

    Returns:
        The lower and the upper end for each model.

    Raises:
        ValueError: If the numbers of targets and users differ.
    """
    n_targets, sums = _sums_by_user(users)
    numbers = [len(array) for array in values.values()]
    by_user = np.concatenate([sums(array) for array in values.values()])
    means: dict[str, list[np.ndarray]] = {model: [] for model in values}
    for nth, size in enumerate(_batches(N_RESAMPLES, len(n_targets))):
        of_users = _draws(len(n_targets), size, [seed, nth, 0])
        of_runs = (of_users @ by_user.T) / (of_users @ n_targets)[:, None]
        for model, of_seeds in zip(values, np.split(of_runs, np.cumsum(numbers)[:-1], axis=1)):
            weights = _seed_weights(of_seeds.shape[1], size, [seed, nth, 1])
            means[model].append((of_seeds * weights).sum(axis=1))
    tail = (1 - confidence) / 2
    ends = {model: np.quantile(np.concatenate(parts), [tail, 1 - tail]) for model, parts in means.items()}
    return {model: (float(low), float(high)) for model, (low, high) in ends.items()}


def p_values_against(
    reference: str, values: Mapping[str, np.ndarray], users: np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Paired tests of each model against the reference, with Holm's correction.

    Args:
        reference: A key of ``values``.
        values: See :func:`estimates`.
        users: See :func:`estimates`.
        seed: Random seed of the permutations.

    Returns:
        The corrected p-values of all models but the reference; ``nan`` where either has a single seed; such
        pairs do not count in the correction.
    """
    others = [model for model in values if model != reference]
    raw = paired_p_values([(values[model], values[reference]) for model in others], users, seed)
    tested = ~np.isnan(raw)
    corrected = np.full(len(others), np.nan)
    if tested.any():
        corrected[tested] = multipletests(raw[tested], method="holm")[1]
    return dict(zip(others, map(float, corrected)))


def paired_p_values(pairs: Sequence[tuple[np.ndarray, np.ndarray]], users: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided tests of the mean difference of pairs of models, valid for other users and other seeds.

    The difference of the means over seeds and targets has two parts. The users' part is permuted: under the null
    hypothesis the two models are exchangeable user by user, so the sign of each user's difference is random. The
    seeds' part has too few permutations (20 for three seeds each), and a seed's deviation has the same sign for all
    users. It is modelled as normal, with the variance of the seeds' means beyond chance within users (the interaction
    of users and seeds, which the users' part already contains). As few seeds estimate this variance badly, the sum of
    both parts is scaled as in Student's t, with Satterthwaite's degrees of freedom of the total variance (Biometrics
    Bulletin 2(6), 1946). If seeds make no difference, this is the permutation test by user alone.

    Targets are paired, as all seeds and both models share them. Seeds are not paired: those of the two models are
    independent, though they have the same numbers.

    Args:
        pairs: The contribution of each target to the metric in both models, each of shape (s, n); s may differ.
        users: The user of each target, of any type; shape (n,).
        seed: Random seed of the permutations.

    Returns:
        float64, shape (m,); ``nan`` where a model has a single seed.

    Raises:
        ValueError: If the numbers of targets and users differ.
    """
    n_targets, sums = _sums_by_user(users)
    differences = [_Difference.of(sums(values), sums(reference), n_targets) for values, reference in pairs]
    if not differences:
        return np.empty(0)
    flipped = _flipped_means(np.stack([each.by_user for each in differences], axis=1), n_targets.sum(), seed)
    return np.array([each.p_value(permuted, seed) for each, permuted in zip(differences, flipped.T)])


class _Difference(NamedTuple):
    """The difference of two models' means, with the variances of its parts.

    Attributes:
        by_user: Sum over each user's targets of the difference of the means over seeds; shape (u,).
        mean: Over all targets.
        users_variance: Variance of the mean, users' part.
        seeds_variance: Variance of the mean, seeds' part.
        freedom: Degrees of freedom of the sum of both variances; infinite if all seeds agree, ``nan`` if a model
            has a single seed.
    """

    by_user: np.ndarray
    mean: float
    users_variance: float
    seeds_variance: float
    freedom: float

    @classmethod
    def of(cls, values: np.ndarray, reference: np.ndarray, n_targets: np.ndarray) -> _Difference:
        """From each user's sums, shapes (s, u), s may differ, and numbers of targets, shape (u,)."""
        by_user = values.mean(axis=0) - reference.mean(axis=0)
        mean, users_variance = by_user.sum() / n_targets.sum(), (by_user**2).sum() / n_targets.sum() ** 2
        n_free = [len(values) - 1, len(reference) - 1]
        if min(n_free) < 1:
            return cls(by_user, mean, users_variance, np.nan, np.nan)
        between, within = np.transpose([_seed_variances(array, n_targets) for array in (values, reference)])
        seeds_variance = max(0.0, between.sum() - within.sum())
        freedom = np.inf
        if between.any():
            freedom = max((users_variance + seeds_variance) ** 2 / (between**2 / n_free).sum(), min(n_free))
        return cls(by_user, mean, users_variance, seeds_variance, freedom)

    def p_value(self, permuted: np.ndarray, seed: int) -> float:
        """The p-value, from the means with each user's sign flipped at random."""
        if np.isnan(self.freedom):
            return np.nan
        random = np.random.default_rng([seed, 1])  # the same draws for all models, so that none depends on the others
        drawn = permuted + np.sqrt(self.seeds_variance) * random.standard_normal(len(permuted))
        if np.isfinite(self.freedom):
            drawn = drawn * np.sqrt(self.freedom / random.chisquare(self.freedom, len(permuted)))
        as_far = np.abs(drawn) >= np.abs(self.mean) * (1 - 1e-9)  # tolerates rounding
        return float((as_far.sum() + 1) / (len(permuted) + 1))


def _seed_variances(sums: np.ndarray, n_targets: np.ndarray) -> tuple[float, float]:
    """Variance of a model's mean over seeds: total, and the part due to chance within users."""
    n_seeds, n = len(sums), n_targets.sum()
    means = sums.sum(axis=1) / n
    rest = sums - sums.mean(axis=0) - np.outer(means - means.mean(), n_targets)
    return means.var(ddof=1) / n_seeds, (rest**2).sum() / ((n_seeds - 1) * n_seeds * n**2)


def _flipped_means(by_user: np.ndarray, n_targets: int, seed: int) -> np.ndarray:
    """Means of differences (u, m) with each user's sign flipped at random, shape (:data:`N_PERMUTATIONS`, m)."""
    random = np.random.default_rng([seed, 0])
    total = by_user.sum(axis=0)
    means = []
    for size in _batches(N_PERMUTATIONS, len(by_user)):
        bits = np.unpackbits(random.integers(0, 256, (size, -(-len(by_user) // 8)), np.uint8), axis=1)
        means.append((2 * (bits[:, : len(by_user)].astype(by_user.dtype) @ by_user) - total) / n_targets)
    return np.concatenate(means)


def _draws(n: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """How often each of n is drawn in some resamples of as many, shape (size, n)."""
    drawn = np.random.default_rng(seed).integers(0, n, (size, n))
    drawn += n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _seed_weights(n: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """Weights of n seeds in each resample, see :func:`bootstrap_intervals`; shape (size, n)."""
    shares = _draws(n, size, seed) / n
    return shares if n == 1 else 1 / n + (shares - 1 / n) * np.sqrt(n / (n - 1))


def _sums_by_user(users: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Number of targets by user, shape (u,), and a function that sums values of targets (s, n) by user to (s, u)."""
    codes, names = pd.factorize(np.asarray(users))

    def sums(values: np.ndarray) -> np.ndarray:
        if values.shape[1] != len(codes):
            raise ValueError(f"all models need the same targets; got {values.shape[1]} of {len(codes)}")
        return np.stack([np.bincount(codes, row, len(names)) for row in values])

    return np.bincount(codes, minlength=len(names)), sums


def _batches(n_draws: int, n_users: int) -> Iterator[int]:
    """Numbers of draws to make at a time."""
    size = max(1, _NUMBERS // n_users)
    for start in range(0, n_draws, size):
        yield min(size, n_draws - start)
