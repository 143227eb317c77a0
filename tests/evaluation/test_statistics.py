"""Intervals and tests against SciPy's, exact enumeration, and simulated coverage and errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from recbole_posattn.experiments.leaderboard import paired_tests, statistics
from recbole_posattn.experiments.leaderboard.paired_tests import p_values_against, paired_p_values
from recbole_posattn.experiments.leaderboard.statistics import bootstrap_intervals, estimates, gains
from tests.simulated_scores import simulated_pairs


def interval(
    values: np.ndarray, users: np.ndarray | None = None, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    users = np.arange(values.shape[1]) if users is None else users
    return bootstrap_intervals({"model": values}, users, confidence, seed)["model"]


def p_value(values: np.ndarray, reference: np.ndarray, users: np.ndarray | None = None, seed: int = 0) -> float:
    users = np.arange(values.shape[1]) if users is None else users
    return float(paired_p_values([(values, reference)], users, seed)[0])


# -- intervals -------------------------------------------------------------------------------------------------------


def test_mean_and_deviation_are_those_of_the_seeds() -> None:
    values = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    users = np.array(["a", "b", "b", "c"])
    found = estimates({"model": values}, users)["model"]
    assert found.mean == 0.5 and found.deviation == pytest.approx(0.25)  # over targets, however few users they have
    assert found.low < 0.5 < found.high
    assert np.isnan(estimates({"model": values[:1]}, users)["model"].deviation)


def test_interval_of_one_seed_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=(1, 200))
    scipys = stats.bootstrap((values[0],), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert interval(values) == pytest.approx(tuple(scipys.confidence_interval), rel=0.02)


def test_interval_of_users_with_many_targets_is_scipys_of_a_ratio() -> None:
    random = np.random.default_rng(1)
    n_targets = random.integers(1, 30, 80)
    users = np.repeat(np.arange(80), n_targets)
    values = (random.exponential(size=80)[users] + random.normal(scale=0.1, size=len(users)))[None]
    sums = np.bincount(users, values[0])
    scipys = stats.bootstrap(
        (sums, n_targets),
        lambda total, n, axis: total.sum(axis) / n.sum(axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(2),
    )
    shuffled = random.permutation(len(users))
    ends = interval(values, users)
    assert ends == pytest.approx(tuple(scipys.confidence_interval), rel=0.02)
    assert interval(values[:, shuffled], users[shuffled].astype(str)) == pytest.approx(ends, rel=0.02)
    assert ends[1] - ends[0] > 3 * np.subtract(*interval(values)[::-1])  # over targets


def test_interval_grows_with_the_spread_of_seeds() -> None:
    """Users alone give 0.1 / sqrt(n); seeds that differ by 1 must dominate."""
    noise = np.random.default_rng(1).normal(scale=0.1, size=(4, 500))
    alike, apart = interval(noise), interval(noise + np.array([[-1.0], [-0.5], [0.5], [1.0]]))
    assert alike[1] - alike[0] < 0.03
    assert apart[1] - apart[0] > 1.0


@pytest.mark.parametrize(("n_seeds", "deviation", "lowest"), [(1, 0.0, 0.92), (3, 0.003, 0.92), (5, 0.02, 0.92)])
def test_interval_covers_the_mean_as_often_as_it_says(
    n_seeds: int, deviation: float, lowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "N_RESAMPLES", 500)
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(400), random.choice([1, 2, 5], 400))
    values = {
        trial: 0.3
        + random.normal(scale=0.2, size=400)[users]
        + random.normal(scale=0.2, size=(n_seeds, len(users)))
        + random.normal(scale=deviation, size=(n_seeds, 1))
        for trial in range(300)
    }
    covered = [low <= 0.3 <= high for low, high in bootstrap_intervals(values, users).values()]
    assert lowest <= np.mean(covered) <= 0.99


def test_intervals_do_not_depend_on_the_other_models() -> None:
    values, users = np.random.default_rng(1).normal(size=(3, 80)), np.arange(80) // 2
    found = bootstrap_intervals({"few": values[:2], "one": values, "other": values + 1.0}, users)
    assert found["other"] == pytest.approx(tuple(end + 1.0 for end in found["one"]))
    again = bootstrap_intervals({"other": values + 1.0, "one": values}, users)
    assert found["one"] == pytest.approx(again["one"])
    assert found["one"] == pytest.approx(interval(values, users))


def test_batches_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    values, reference = random.normal(size=(2, 50)), random.normal(size=(2, 50))
    whole, p = interval(values), p_value(values, reference)
    monkeypatch.setattr(statistics, "_NUMBERS", 50 * 64)
    assert interval(values) == pytest.approx(whole, abs=0.02)
    assert p_value(values, reference) == pytest.approx(p, abs=0.02)


# -- tests -----------------------------------------------------------------------------------------------------------


def test_p_value_is_that_of_all_sign_changes_by_user_where_seeds_make_no_difference() -> None:
    values, reference = np.array([[0.9, 0.4, 0.7, 0.1, 0.6, 0.8]]), np.array([[0.5, 0.5, 0.2, 0.1, 0.2, 0.9]])
    users = np.array([3, 1, 2, 5, 1, 3])
    difference = np.bincount(users, (values - reference)[0])
    flipped = [np.mean(difference * signs) for signs in itertools.product([1, -1], repeat=len(difference))]
    exact = np.mean(np.abs(flipped) >= abs(difference.mean()) - 1e-12)
    twice, reference_twice = np.repeat(values, 2, axis=0), np.repeat(reference, 2, axis=0)
    assert p_value(twice, reference_twice, users) == pytest.approx(exact, abs=0.015)
    assert p_value(reference_twice, twice, users) == pytest.approx(exact, abs=0.015)


def test_p_value_is_students_where_users_make_no_difference() -> None:
    """Users who are all alike: only the seeds' means are left, and Welch's test of these."""
    means, others = np.array([0.30, 0.36, 0.33]), np.array([0.25, 0.31, 0.27, 0.26])
    values, reference = (np.repeat(seeds[:, None], 5000, axis=1) for seeds in (means, others))
    expected = stats.ttest_ind(means, others, equal_var=False).pvalue
    assert 0.01 < expected < 0.2
    assert p_value(values, reference) == pytest.approx(expected, abs=0.015)


def test_p_value_of_no_difference_is_one() -> None:
    values = np.random.default_rng(1).random((2, 30))
    assert p_value(values, values) == 1.0
    assert p_value(values, values + 1, np.zeros(30)) > 0.4  # the sign of a single user tells nothing
    with pytest.raises(ValueError, match="all models need the same targets; got 29 of 30"):
        paired_p_values([(values, values[:, 1:])], np.arange(30))


def test_one_seed_is_not_tested() -> None:
    values = np.random.default_rng(1).random((3, 30))
    assert np.isnan(p_value(values[:1], values + 1)) and np.isnan(p_value(values, values[:1] + 1))
    p_values = p_values_against("a", {"a": values, "b": values[:1] + 1, "c": values + 1}, np.arange(30))
    assert np.isnan(p_values["b"])
    assert p_values["c"] == p_value(values + 1, values)  # the only test there is


def simulated(n_users: int, n_seeds: int, user_effect: bool, difference: float = 0.0, n_pairs: int = 300) -> np.ndarray:
    """P-values of simulated pairs of models, each batch of pairs with its own permutations."""
    trials = simulated_pairs(n_users, n_seeds, user_effect, difference, n_pairs)
    return np.concatenate([paired_p_values(pairs, users, seed) for seed, (pairs, users) in enumerate(trials)])


SIMULATED = list(itertools.product([943, 5000], [3, 5], [False, True]))


@pytest.mark.slow
@pytest.mark.parametrize(("n_users", "n_seeds", "user_effect"), SIMULATED)
def test_at_most_7_percent_of_marks_are_false(
    n_users: int, n_seeds: int, user_effect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paired_tests, "N_PERMUTATIONS", 499)
    p_values = simulated(n_users, n_seeds, user_effect)
    assert 0.01 <= np.mean(p_values < 0.05) <= 0.07
    assert 0.4 <= np.mean(p_values) <= 0.6


@pytest.mark.parametrize(("n_seeds", "lowest"), [(3, 0.55), (5, 0.75)])
def test_a_difference_of_a_hundredth_is_mostly_found(
    n_seeds: int, lowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paired_tests, "N_PERMUTATIONS", 499)
    assert np.mean(simulated(5000, n_seeds, user_effect=False, difference=0.01, n_pairs=150) < 0.05) >= lowest


def test_p_values_are_corrected_by_holm() -> None:
    random = np.random.default_rng(0)
    users = np.arange(60) // 2
    reference = random.normal(size=(3, 60))
    values = {"reference": reference} | {
        name: reference + shift + random.normal(scale=0.5, size=(3, 60))
        for name, shift in {"far": 0.5, "near": 0.12, "same": 0.0}.items()
    }
    raw = sorted(p_value(values[name], reference, users) for name in ("far", "near", "same"))
    holm = np.maximum.accumulate([min(1.0, factor * p) for factor, p in zip((3, 2, 1), raw)])
    found = p_values_against("reference", values, users)
    assert list(found) == ["far", "near", "same"]
    assert sorted(found.values()) == pytest.approx(list(holm))
    assert p_values_against("reference", {"reference": reference}, users) == {}


def test_a_model_in_several_pairs_has_the_p_values_of_each_pair_alone() -> None:
    random = np.random.default_rng(3)
    users = np.arange(90) // 3
    models = [random.random((n_seeds, 90)) + shift for n_seeds, shift in ((3, 0.0), (2, 0.05), (4, 0.1), (1, 0.0))]
    pairs = list(itertools.combinations(models, 2))
    together = paired_p_values(pairs, users)
    alone = np.concatenate([paired_p_values([pair], users) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=2e-4)
    assert np.isnan(together).tolist() == [len(pair[1]) == 1 for pair in pairs]
    assert paired_p_values([(values, values.copy()) for values in models[:3]], users).tolist() == [1.0] * 3


# -- gains -----------------------------------------------------------------------------------------------------------


def test_gains_are_paired_by_user_and_not_by_seed() -> None:
    """Each user has the same gain, whatever the level: no variance; and seeds are drawn for each model by itself."""
    random = np.random.default_rng(4)
    level = random.exponential(size=(1, 500))
    values = {"base": level, "more": level + 0.1, "share": 1.1 * level}
    constant, share = gains([("more", "base"), ("share", "base")], values, np.arange(500))
    assert [constant.difference, constant.low, constant.high] == pytest.approx([0.1] * 3)
    assert [share.share, share.share_low, share.share_high] == pytest.approx([0.1] * 3)
    assert share.low < share.difference < share.high and constant.share_low < constant.share < constant.share_high

    seeds = np.array([-0.03, 0.0, 0.03])[:, None]
    (seeded,) = gains([("more", "base")], {"base": level + seeds, "more": level + 0.1 + seeds}, np.arange(500))
    expected = 2 * 1.96 * np.sqrt(2 * seeds.var(ddof=1) / 3)
    assert 0.75 * expected < seeded.high - seeded.low < 1.1 * expected


def test_a_gain_does_not_depend_on_the_other_models() -> None:
    random = np.random.default_rng(5)
    values = {name: random.random((3, 40)) for name in ("a", "b", "c")}
    users = np.arange(40) // 2
    (alone,) = gains([("a", "b")], {"a": values["a"], "b": values["b"]}, users)
    together = gains([("c", "a"), ("a", "b")], values, users)[1]
    assert together == pytest.approx(alone)
    (back,) = gains([("b", "a")], values, users)
    assert [back.difference, back.low, back.high] == pytest.approx([-alone.difference, -alone.high, -alone.low])


def test_a_gain_over_nothing_is_no_share() -> None:
    (gain,) = gains([("a", "zero")], {"a": np.ones((1, 10)), "zero": np.zeros((1, 10))}, np.arange(10))
    assert gain[:3] == (1.0, 1.0, 1.0) and np.isnan(gain[3:]).all()


@pytest.mark.slow
def test_intervals_of_gains_cover_the_true_gain() -> None:
    random, covered = np.random.default_rng(6), []
    for trial in range(100):
        shared = random.exponential(size=300)
        runs = [
            shared + shift + random.normal(scale=0.2, size=(3, 300)) + random.normal(scale=0.01, size=(3, 1))
            for shift in (0.1, 0.0)
        ]
        (gain,) = gains([("a", "b")], {"a": runs[0], "b": runs[1]}, np.arange(300), seed=trial)
        covered.append(gain.low <= 0.1 <= gain.high)
    assert 0.86 <= np.mean(covered) <= 0.99
