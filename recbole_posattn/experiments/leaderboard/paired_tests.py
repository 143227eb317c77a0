"""Paired tests of models that were evaluated on the same targets with several seeds. The unit is the user.

Shape keys: s seeds, n targets, u users, m pairs of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from statsmodels.stats.multitest import multipletests

from recbole_posattn.experiments.leaderboard.statistics import batches, sums_by_user

N_PERMUTATIONS = 9_999  # the smallest possible p-value is 1 / (N_PERMUTATIONS + 1)


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
    return dict(zip(others, map(float, holm(raw))))


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values with Holm's correction for their number, shape (m,); those that are ``nan`` do not count."""
    tested = ~np.isnan(p_values)
    corrected = np.full(len(p_values), np.nan)
    if tested.any():
        corrected[tested] = multipletests(p_values[tested], method="holm")[1]
    return corrected


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
    n_targets, sums = sums_by_user(users)
    # A model that is in several pairs is summed and permuted once: its permuted means are differences of these.
    models = {id(array): array for pair in pairs for array in pair}
    by_user = {key: sums(array) for key, array in models.items()}
    p_values = np.full(len(pairs), np.nan)
    tested = [nth for nth, pair in enumerate(pairs) if min(map(len, pair)) > 1]
    if not tested:
        return p_values
    permuted = list(dict.fromkeys(id(array) for nth in tested for array in pairs[nth]))
    means = np.stack([by_user[key].mean(axis=0) for key in permuted], axis=1)
    flipped = dict(zip(permuted, _flipped_means(means, n_targets.sum(), seed).T))
    for nth in tested:
        model, reference = map(id, pairs[nth])
        difference = _Difference.of(by_user[model], by_user[reference], n_targets)
        p_values[nth] = difference.p_value(flipped[model] - flipped[reference], seed)
    return p_values


class _Difference(NamedTuple):
    """The difference of two models' means, with the variances of its parts.

    Attributes:
        mean: Over all targets.
        users_variance: Variance of the mean, users' part.
        seeds_variance: Variance of the mean, seeds' part.
        freedom: Degrees of freedom of the sum of both variances; infinite if all seeds agree.
    """

    mean: float
    users_variance: float
    seeds_variance: float
    freedom: float

    @classmethod
    def of(cls, values: np.ndarray, reference: np.ndarray, n_targets: np.ndarray) -> _Difference:
        """From each user's sums, shapes (s, u), s at least 2 and may differ, and numbers of targets, shape (u,)."""
        by_user = values.mean(axis=0) - reference.mean(axis=0)
        mean, users_variance = by_user.sum() / n_targets.sum(), (by_user**2).sum() / n_targets.sum() ** 2
        n_free = [len(values) - 1, len(reference) - 1]
        between, within = np.transpose([_seed_variances(array, n_targets) for array in (values, reference)])
        seeds_variance = max(0.0, between.sum() - within.sum())
        freedom = np.inf
        if between.any():
            freedom = max((users_variance + seeds_variance) ** 2 / (between**2 / n_free).sum(), min(n_free))
        return cls(mean, users_variance, seeds_variance, freedom)

    def p_value(self, permuted: np.ndarray, seed: int) -> float:
        """The p-value, from the means with each user's sign flipped at random."""
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
    for size in batches(N_PERMUTATIONS, len(by_user)):
        bits = np.unpackbits(random.integers(0, 256, (size, -(-len(by_user) // 8)), np.uint8), axis=1)
        means.append((2 * (bits[:, : len(by_user)].astype(by_user.dtype) @ by_user) - total) / n_targets)
    return np.concatenate(means)
