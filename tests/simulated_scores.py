"""Scores of pairs of models whose true difference is known, to see how often a test finds it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

PAIRS_AT_A_TIME = 30


def simulated_pairs(
    n_users: int, n_seeds: int, user_effect: bool, difference: float = 0.0, n_pairs: int = 300
) -> Iterator[tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]]:
    """Pairs of models with a seed deviation of 0.003, and the users of their targets.

    A target's metric is 0.2 apart between two models, and 0.1 between two seeds of a model. With a user effect, a user
    has one to four targets, and what sets the models apart is the same for all of these.

    Args:
        n_users: Number of users, u.
        n_seeds: Number of seeds of each model, s.
        user_effect: Whether users have several targets that depend on each other. Otherwise, each has one.
        difference: Of the means of the two models.
        n_pairs: Number of pairs; a multiple of :data:`PAIRS_AT_A_TIME`.

    Yields:
        :data:`PAIRS_AT_A_TIME` pairs of arrays of shape (s, n), and the user of each of the n targets, shape (n,).
    """
    random = np.random.default_rng([n_users, n_seeds, user_effect])
    n_targets = random.integers(1, 5, n_users) if user_effect else np.ones(n_users, dtype=int)
    users = np.repeat(np.arange(n_users), n_targets)

    def model(shift: float) -> np.ndarray:
        apart = random.standard_normal(n_users if user_effect else len(users), np.float32)
        apart = 0.2 / np.sqrt(2) * (apart[users] if user_effect else apart)
        noise = 0.1 / np.sqrt(2) * random.standard_normal((n_seeds, len(users)), np.float32)
        return shift + apart + noise + random.normal(scale=0.003, size=(n_seeds, 1))

    for _ in range(n_pairs // PAIRS_AT_A_TIME):
        yield [(model(difference), model(0.0)) for _ in range(PAIRS_AT_A_TIME)], users
