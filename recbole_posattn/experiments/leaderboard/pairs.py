"""Every pair of a board's models: the difference of the watched metric, its interval, and its test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from recbole_posattn.experiments.leaderboard.paired_tests import holm, paired_p_values
from recbole_posattn.experiments.leaderboard.statistics import gains

PAIR_COLUMNS = ["model", "other", "difference", "low", "high", "share", "share_low", "share_high", "p"]


def compare_pairs(order: Sequence[str], values: Mapping[str, np.ndarray], users: np.ndarray) -> pd.DataFrame:
    """Every pair of models, the one with the higher mean first.

    Args:
        order: The models, the best first.
        values: The contribution of each target to the metric, by model; shape (s, n).
        users: The user of each target, shape (n,).

    Returns:
        The columns :data:`PAIR_COLUMNS`: the two models, the fields of
        :class:`~recbole_posattn.experiments.leaderboard.statistics.Gain`, and the p-value of the paired test with
        Holm's correction for the number of pairs; missing where a model has a single seed.
    """
    pairs = list(itertools.combinations(order, 2))
    p_values = holm(paired_p_values([(values[model], values[other]) for model, other in pairs], users))
    rows = [
        (model, other, gain.difference, gain.low, gain.high, gain.share, gain.share_low, gain.share_high, p)
        for (model, other), gain, p in zip(pairs, gains(pairs, values, users), p_values)
    ]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)
