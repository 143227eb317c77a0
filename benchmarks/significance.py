"""How often the paired test of a leaderboard gives a mark, with and without a true difference.

python -m benchmarks.significance   # writes results/significance.md
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from tqdm import tqdm

from benchmarks.common import report
from recbole_posattn.experiments.leaderboard.paired_tests import paired_p_values
from tests.simulated_scores import PAIRS_AT_A_TIME, simulated_pairs

N_USERS = (943, 5_000)
N_SEEDS = (3, 5)
DIFFERENCES = (0.0, 0.01)
LEVEL = 0.05


def marked(n_users: int, n_seeds: int, user_effect: bool, difference: float, n_pairs: int) -> tuple[float, float]:
    """Shares of pairs with p < 0.05: flipping the signs of users, and of targets."""
    by_user, by_target = [], []
    trials = simulated_pairs(n_users, n_seeds, user_effect, difference, n_pairs)
    for seed, (pairs, users) in enumerate(tqdm(trials, total=n_pairs // PAIRS_AT_A_TIME, leave=False)):
        by_user.append(paired_p_values(pairs, users, seed) < LEVEL)
        by_target.append(paired_p_values(pairs, np.arange(len(users)), seed) < LEVEL)
    return float(np.mean(by_user)), float(np.mean(by_target))


def main() -> None:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=900, help="pairs of models a row, a multiple of 30 (default: 900)")
    options = parser.parse_args()
    if options.pairs < 1 or options.pairs % PAIRS_AT_A_TIME:
        parser.error(f"--pairs must be a multiple of {PAIRS_AT_A_TIME}; got {options.pairs}")
    rows = []
    for difference, n_users, n_seeds, user_effect in itertools.product(DIFFERENCES, N_USERS, N_SEEDS, (False, True)):
        shares = marked(n_users, n_seeds, user_effect, difference, options.pairs)
        targets = "1 to 4" if user_effect else "1"
        rows.append([difference, f"{n_users:,}", targets, n_seeds, *(f"{share:.1%}" for share in shares)])
    report(
        "significance",
        "How often the paired test gives a mark",
        f"{options.pairs:,} simulated pairs of models a row, tested at p < {LEVEL}. A model's mean varies between "
        "seeds with a standard deviation of 0.003; a target's metric is 0.2 apart between two models and 0.1 "
        "between two seeds. Where a user has several targets, what sets the models apart is the same for all of "
        "them. Without a true difference, a test should give a mark in 5 % of the cases; with one, in as many as "
        "possible. The last column is not what a leaderboard does: it treats the targets of a user as independent.",
        ["true difference", "users", "targets a user", "seeds", "marks, users flipped", "marks, targets flipped"],
        rows,
    )


if __name__ == "__main__":
    main()
