"""Means, spreads and intervals of models that were evaluated on the same targets with several seeds.

The unit is the user, as the values of a user's targets depend on each other. The metric itself remains the mean over
targets, as RecBole computes it, so each user is weighted by the number of targets.

Shape keys: s seeds, n targets, u users, r resamples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

N_RESAMPLES = 2_000  # of a bootstrap
_DECIMALS = 12  # of the ends of an interval

# Random numbers in memory at a time.
_NUMBERS = 2**22

# What identifies a model, or a model and a metric.
Key = TypeVar("Key", bound=Hashable)


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


class Gain(NamedTuple):
    """How much higher the mean of one model is than that of another, with intervals.

    Attributes:
        difference: Difference of the means.
        low: Lower end of its interval, see :func:`gains`.
        high: Upper end.
        share: The difference as a share of the other's mean; ``nan`` if that is 0.
        share_low: Lower end of its interval; ``nan`` if the other's mean is 0 in a resample.
        share_high: Upper end.
    """

    difference: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float


def estimates(
    values: Mapping[Key, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[Key, Estimate]:
    """Mean, standard deviation over seeds, and bootstrap interval of each model.

    Args:
        values: The contribution of each target to the metric, by model, or by model and metric; shape (s, n) with the
            same n targets for all.
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
    values: Mapping[Key, np.ndarray], users: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> dict[Key, tuple[float, float]]:
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
    means = _resampled_means(values, users, seed, dict.fromkeys(values, 1))
    # the spread weights can lead beyond the smallest and largest value of a target, where no mean can be
    inside = {model: drawn.clip(values[model].min(), values[model].max()) for model, drawn in means.items()}
    return {model: _interval(drawn, confidence) for model, drawn in inside.items()}


def gains(
    pairs: Sequence[tuple[Key, Key]],
    values: Mapping[Key, np.ndarray],
    users: np.ndarray,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Gain]:
    """How much higher the first model of each pair is than the second, with paired bootstrap intervals.

    The resamples are those of :func:`bootstrap_intervals`: both models get the same users in each, as targets are
    paired, but seeds of their own, as seeds are not.

    Args:
        pairs: Keys of ``values``.
        values: See :func:`estimates`.
        users: See :func:`estimates`.
        confidence: Share of the resamples inside an interval.
        seed: Random seed of the resampling.

    Raises:
        ValueError: If the numbers of targets and users differ.
    """
    streams = {model: 2 + zlib.crc32(repr(model).encode()) for model in values}  # whatever the other models are
    means = _resampled_means(values, users, seed, streams)
    result = []
    for model, other in pairs:
        difference = float(values[model].mean() - values[other].mean())
        drawn = means[model] - means[other]
        level = float(values[other].mean())
        share = difference / level if level > 0 else np.nan
        ends = _interval(drawn / means[other], confidence) if (means[other] > 0).all() else (np.nan, np.nan)
        result.append(Gain(difference, *_interval(drawn, confidence), share, *ends))
    return result


def _resampled_means(
    values: Mapping[Key, np.ndarray], users: np.ndarray, seed: int, streams: Mapping[Key, int]
) -> dict[Key, np.ndarray]:
    """The mean of each model in each resample of users and seeds, shape (r,); its seeds are drawn from its stream."""
    n_targets, sums = sums_by_user(users)
    numbers = [len(array) for array in values.values()]
    by_user = np.concatenate([sums(array) for array in values.values()])
    means: dict[Key, list[np.ndarray]] = {model: [] for model in values}
    for nth, size in enumerate(batches(N_RESAMPLES, len(n_targets))):
        of_users = _draws(len(n_targets), size, [seed, nth, 0])
        of_runs = (of_users @ by_user.T) / (of_users @ n_targets)[:, None]
        for model, of_seeds in zip(values, np.split(of_runs, np.cumsum(numbers)[:-1], axis=1)):
            weights = _seed_weights(of_seeds.shape[1], size, [seed, nth, streams[model]])
            means[model].append((of_seeds * weights).sum(axis=1))
    return {model: np.concatenate(parts) for model, parts in means.items()}


def _interval(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
    """The percentile interval of resamples, shape (r,).

    Its last digits are cut off: they depend on the number of threads of the matrix product, and a report is to be the
    same on any machine.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).round(_DECIMALS)
    return float(low), float(high)


def _draws(n: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """How often each of n is drawn in some resamples of as many, shape (size, n)."""
    drawn = np.random.default_rng(seed).integers(0, n, (size, n))
    drawn += n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _seed_weights(n: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """Weights of n seeds in each resample, see :func:`bootstrap_intervals`; shape (size, n)."""
    shares = _draws(n, size, seed) / n
    return shares if n == 1 else 1 / n + (shares - 1 / n) * np.sqrt(n / (n - 1))


def sums_by_user(users: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Number of targets by user, shape (u,), and a function that sums values of targets (s, n) by user to (s, u)."""
    codes, names = pd.factorize(np.asarray(users))

    def sums(values: np.ndarray) -> np.ndarray:
        if values.shape[1] != len(codes):
            raise ValueError(f"all models need the same targets; got {values.shape[1]} of {len(codes)}")
        return np.stack([np.bincount(codes, row, len(names)) for row in values])

    return np.bincount(codes, minlength=len(names)), sums


def batches(n_draws: int, n_users: int) -> Iterator[int]:
    """Numbers of draws to make at a time."""
    size = max(1, _NUMBERS // n_users)
    for start in range(0, n_draws, size):
        yield min(size, n_draws - start)
