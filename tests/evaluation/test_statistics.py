"""Intervals and tests against SciPy's, exact enumeration, and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from recbole_posattn.evaluation import statistics
from recbole_posattn.evaluation.statistics import bootstrap_intervals, estimates, p_values_against, paired_p_value


def interval(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    return bootstrap_intervals({"model": values}, confidence, seed)["model"]


def test_mean_and_deviation_are_those_of_the_seeds() -> None:
    values = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    found = estimates({"model": values})["model"]
    assert found.mean == 0.5 and found.deviation == pytest.approx(0.25)
    assert found.low < 0.5 < found.high
    assert np.isnan(estimates({"model": values[:1]})["model"].deviation)


def test_interval_of_one_seed_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=(1, 200))
    low, high = interval(values)
    scipys = stats.bootstrap((values[0],), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert (low, high) == pytest.approx(tuple(scipys.confidence_interval), rel=0.02)


def test_interval_grows_with_the_spread_of_seeds() -> None:
    """Targets alone give 0.1 / sqrt(n); seeds that differ by 1 must dominate."""
    noise = np.random.default_rng(1).normal(scale=0.1, size=(4, 500))
    alike, apart = interval(noise), interval(noise + np.array([[-1.0], [-0.5], [0.5], [1.0]]))
    assert alike[1] - alike[0] < 0.03
    assert apart[1] - apart[0] > 1.0


def test_interval_covers_the_mean_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "N_RESAMPLES", 400)
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        low, high = interval(random.binomial(1, 0.3, size=(1, 150)).astype(float), 0.9, trial)
        covered += low <= 0.3 <= high
    assert 0.85 <= covered / 300 <= 0.95


def test_intervals_do_not_depend_on_the_other_models() -> None:
    values = np.random.default_rng(1).normal(size=(3, 80))
    found = bootstrap_intervals({"few": values[:2], "one": values, "other": values + 1.0})
    assert found["other"] == pytest.approx(tuple(end + 1.0 for end in found["one"]))
    assert found["one"] == bootstrap_intervals({"other": values + 1.0, "one": values})["one"] == interval(values)


def test_batches_change_nothing_but_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=(2, 50))
    whole = interval(values)
    monkeypatch.setattr(statistics, "_NUMBERS", 50 * 64)
    assert interval(values) == pytest.approx(whole, abs=0.02)


def test_p_value_is_that_of_all_sign_changes() -> None:
    values, reference = np.array([[0.9, 0.4, 0.7, 0.1, 0.6]]), np.array([[0.5, 0.5, 0.2, 0.1, 0.2]])
    difference = (values - reference)[0]
    flipped = [np.mean(difference * signs) for signs in itertools.product([1, -1], repeat=5)]
    exact = np.mean(np.abs(flipped) >= abs(difference.mean()) - 1e-12)
    assert paired_p_value(values, reference) == pytest.approx(exact)
    assert paired_p_value(reference, values) == pytest.approx(exact)


def test_p_value_of_no_difference_is_one() -> None:
    values = np.random.default_rng(1).random((2, 30))
    assert paired_p_value(values, values) == 1.0
    with pytest.raises(ValueError, match=r"the same targets, got \{'model': 30, 'reference': 29\}"):
        paired_p_value(values, values[:, 1:])


def test_p_values_are_uniform_without_a_difference_and_small_with_one() -> None:
    random = np.random.default_rng(0)
    null = [paired_p_value(*random.normal(size=(2, 1, 12)), seed=trial) for trial in range(200)]
    assert 0.01 <= np.mean(np.array(null) < 0.05) <= 0.1
    better = random.normal(size=(1, 100))
    assert paired_p_value(better + 0.5 + random.normal(scale=0.1, size=(1, 100)), better) < 0.001


def test_p_values_are_corrected_by_holm() -> None:
    random = np.random.default_rng(0)
    reference = random.normal(size=(3, 60))
    values = {"reference": reference} | {
        name: reference + shift + random.normal(scale=0.5, size=(3, 60))
        for name, shift in {"far": 0.5, "near": 0.12, "same": 0.0}.items()
    }
    raw = sorted(paired_p_value(values[name], reference) for name in ("far", "near", "same"))
    holm = np.maximum.accumulate([min(1.0, factor * p) for factor, p in zip((3, 2, 1), raw)])
    found = p_values_against("reference", values)
    assert list(found) == ["far", "near", "same"]
    assert sorted(found.values()) == pytest.approx(list(holm))
    assert p_values_against("reference", {"reference": reference}) == {}
