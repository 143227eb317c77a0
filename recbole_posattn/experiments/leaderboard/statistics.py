"""Means, spreads, intervals and paired tests of models that were evaluated on the same targets with several seeds.

The unit is the user: what is measured on one target of a user depends on what is measured on the user's others. The
metric itself stays the mean over targets, as RecBole computes it, so a user counts as often as it has targets.

Shape keys: s seeds, n targets, u users, m pairs of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

N_RESAMPLES = 2_000  # of a bootstrap
N_PERMUTATIONS = 9_999  # of a test; the smallest p-value there can be is 1 over one more than these

# Numbers that a bootstrap or a test holds at a time.
_NUMBERS = 2**22


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


def estimates(
    values: Mapping[str, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[str, Estimate]:
    """Mean, standard deviation over seeds, and bootstrap interval of each model.

    Args:
        values: What each target contributes to the metric by model, each of shape (its s, n) on the same n targets.
        users: The user of each target, of any type; shape (n,).
        confidence: Of the intervals.
        seed: Of the resampling.

    Raises:
        ValueError: If the models were not evaluated on as many targets as have a user.
    """
    intervals = bootstrap_intervals(values, users, confidence, seed)
    found = {}
    for model, array in values.items():
        deviation = array.mean(axis=1).std(ddof=1) if len(array) > 1 else np.nan
        found[model] = Estimate(float(array.mean()), float(deviation), *intervals[model])
    return found


def bootstrap_intervals(
    values: Mapping[str, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the means under resampling of both users and seeds.

    Each resample draws as many users, each with all targets, and as many seeds as there are, with replacement and
    independently of each other (the pigeonhole bootstrap; Owen, The Annals of Applied Statistics 1(2), 2007), so an
    interval speaks for other users and for other seeds alike. With one seed it speaks for other users only. The
    variance of s seeds drawn from s is that of s new ones times (s − 1) / s, which is far from 1 for the few that are
    run; the weights of the seeds are spread to make up for it. All models see the same resamples, so the interval of
    one does not depend on which others there are.

    Args:
        values: See :func:`estimates`.
        users: See :func:`estimates`.
        confidence: Share of the resamples' means inside an interval.
        seed: Of the resampling.

    Returns:
        The lower and the upper end for each model.

    Raises:
        ValueError: If the models were not evaluated on as many targets as have a user.
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
    """The paired test of each model against one of them, corrected for their number by Holm's method.

    Args:
        reference: A key of ``values``.
        values: See :func:`estimates`.
        users: See :func:`estimates`.
        seed: Of the permutations.

    Returns:
        The corrected p-values of all models but the reference; ``nan`` where one of the two has a single seed, which
        counts for nothing in the correction.
    """
    others = [model for model in values if model != reference]
    raw = paired_p_values([(values[model], values[reference]) for model in others], users, seed)
    tested = ~np.isnan(raw)
    corrected = np.full(len(others), np.nan)
    if tested.any():
        corrected[tested] = multipletests(raw[tested], method="holm")[1]
    return dict(zip(others, map(float, corrected)))


def paired_p_values(pairs: Sequence[tuple[np.ndarray, np.ndarray]], users: np.ndarray, seed: int = 0) -> np.ndarray:
    """Tests of the mean difference of two models each, two-sided, that hold for other users and other seeds.

    The difference of the means over seeds and targets has two parts. The users' part is permuted: under the null
    hypothesis the two models are exchangeable user by user, so the sign of each user's difference is a coin toss. The
    seeds' part cannot be: three seeds of each have 20 exchanges, and the sign of a seed's deviation is the same for all
    users. It is normal, with the variance that the seeds' means show beyond what chance within the users explains (the
    interaction of users and seeds, which the users' part holds already). As few seeds tell this variance badly, the sum
    of both is stretched as Student's t is, by Satterthwaite's degrees of freedom of the whole variance (Biometrics
    Bulletin 2(6), 1946). Where seeds make no difference, this is the permutation test by user alone.

    The targets are the same for all seeds and both models, and so are paired. Seeds are not: those of one model are
    independent of the other's, though they have the same numbers.

    Args:
        pairs: What each target contributes to the metric by the one model, shape (s, n), and by the other, (its s, n).
        users: The user of each target, of any type; shape (n,).
        seed: Of the permutations.

    Returns:
        float64, shape (m,); ``nan`` where a model has one seed, from which nothing is known of others.

    Raises:
        ValueError: If a model was not evaluated on as many targets as have a user.
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
        users_variance: Of the mean, by the users' part.
        seeds_variance: Of the mean, by the seeds' part.
        freedom: Degrees of freedom of the sum of both variances; infinite if all seeds are alike, ``nan`` if a model
            has but one.
    """

    by_user: np.ndarray
    mean: float
    users_variance: float
    seeds_variance: float
    freedom: float

    @classmethod
    def of(cls, values: np.ndarray, reference: np.ndarray, n_targets: np.ndarray) -> _Difference:
        """From each user's sums, shapes (s, u) and (its s, u), and numbers of targets, shape (u,)."""
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
        """From the means with each user's sign flipped at random."""
        if np.isnan(self.freedom):
            return np.nan
        random = np.random.default_rng([seed, 1])  # the same draws for all models: none depends on the others
        drawn = permuted + np.sqrt(self.seeds_variance) * random.standard_normal(len(permuted))
        if np.isfinite(self.freedom):
            drawn = drawn * np.sqrt(self.freedom / random.chisquare(self.freedom, len(permuted)))
        as_far = np.abs(drawn) >= np.abs(self.mean) * (1 - 1e-9)  # sums in another order differ by rounding
        return float((as_far.sum() + 1) / (len(permuted) + 1))


def _seed_variances(sums: np.ndarray, n_targets: np.ndarray) -> tuple[float, float]:
    """Variance of a model's mean over seeds: as the seeds' means tell it, and the part that is chance within users."""
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
    """What each of n seeds counts in some resamples, see :func:`bootstrap_intervals`; shape (size, n)."""
    shares = _draws(n, size, seed) / n
    return shares if n == 1 else 1 / n + (shares - 1 / n) * np.sqrt(n / (n - 1))


def _sums_by_user(users: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Each user's number of targets, shape (u,), and what sums values of targets, shape (s, n), to (s, u)."""
    codes, names = pd.factorize(np.asarray(users))

    def sums(values: np.ndarray) -> np.ndarray:
        if values.shape[1] != len(codes):
            raise ValueError(f"models are compared on the same targets, got {values.shape[1]} of {len(codes)}")
        return np.stack([np.bincount(codes, row, len(names)) for row in values])

    return np.bincount(codes, minlength=len(names)), sums


def _batches(n_draws: int, n_users: int) -> Iterator[int]:
    """Draws to make at a time."""
    size = max(1, _NUMBERS // n_users)
    for start in range(0, n_draws, size):
        yield min(size, n_draws - start)
