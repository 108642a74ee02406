"""Intervals cover what they say, by simulation and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from bench.analysis.intervals import (
    _trigamma_inverse,
    floored,
    mean_interval,
    moderated,
    score_interval,
    sum_of_variances,
    t_interval,
)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_95_percent_interval_covers_95_percent(n: int) -> None:
    seeds = np.random.default_rng(n).normal(0.6, 0.02, size=(20_000, n))
    low, high = mean_interval(seeds.mean(axis=1), seeds.std(axis=1, ddof=1), n)
    assert ((low <= 0.6) & (high >= 0.6)).mean() == pytest.approx(0.95, abs=0.005)


def test_the_interval_by_hand() -> None:
    """Seeds 0.5, 0.6, 0.7: sd 0.1, t of two degrees of freedom 4.303."""
    low, high = mean_interval(0.6, 0.1, 3)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half))


def test_no_interval_below_three_seeds_or_without_spread() -> None:
    assert np.isnan(mean_interval(0.6, 0.1, 2)).all()
    assert np.isnan(mean_interval(0.6, math.nan, 1)).all()
    assert np.isnan(mean_interval(0.313, 0.0, 3)).all()  # not 31.3 [31.3, 31.3]
    assert np.isnan(t_interval(0.6, 0.01, math.nan)).all()


def test_an_interval_of_a_sum_covers_too() -> None:
    """Two units, of three and five seeds. One has nearly all the spread: the worst case, 93.4 %."""
    rng = np.random.default_rng(0)
    few, more = rng.normal(0.5, 0.03, (20_000, 3)), rng.normal(0.8, 0.01, (20_000, 5))
    variance = np.stack([few.var(axis=1, ddof=1) / 3, more.var(axis=1, ddof=1) / 5], axis=1) / 4
    total, freedom = sum_of_variances(variance, np.array([2.0, 4.0]))
    low, high = t_interval((few.mean(axis=1) + more.mean(axis=1)) / 2, total, freedom)
    assert ((low <= 0.65) & (high >= 0.65)).mean() == pytest.approx(0.95, abs=0.02)


def test_a_score_of_one_group_is_its_mean() -> None:
    values = [0.51, 0.55, 0.53, 0.58]
    expected = mean_interval(np.mean(values), np.std(values, ddof=1), 4)
    assert score_interval(lambda mean: mean, values) == pytest.approx(expected)
    assert np.isnan(score_interval(lambda a, b: a - b, values, values[:2])).all()


def test_the_interval_of_a_score_covers() -> None:
    """A score that is curved, of three groups, as DD-Ranking's."""

    def score(x: float, y: float, z: float) -> float:
        return math.exp(x - y) - 0.5 * z

    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        x, y, z = rng.normal(0.6, 0.02, 5), rng.normal(0.5, 0.03, 5), rng.normal(0.9, 0.01, 5)
        low, high = score_interval(score, x.tolist(), y.tolist(), z.tolist())
        hits += low <= score(0.6, 0.5, 0.9) <= high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


# --- moderated variances ------------------------------------------------------------------------------------


@given(st.floats(0.001, 1e3))
def test_the_inverse_of_trigamma(y: float) -> None:
    assert special.polygamma(1, _trigamma_inverse(np.array(y))) == pytest.approx(y, rel=1e-6)


def test_equal_spreads_are_pooled_and_different_ones_stay_apart() -> None:
    freedom = np.full(6, 4.0)
    pooled, degrees = moderated(np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95]), freedom)
    assert pooled == pytest.approx(np.ones(6))
    assert degrees == pytest.approx(np.full(6, 24.0))
    apart, degrees = moderated(np.array([0.01, 0.02, 0.01, 1.0, 4.0, 9.0]), freedom)
    assert (np.diff(apart[[0, 3, 4, 5]]) > 0).all()
    assert apart[0] < 0.05 < 3 < apart[5]
    assert ((degrees > 4) & (degrees < 24)).all()


def test_a_single_seed_gets_what_the_others_have_in_common() -> None:
    found, _ = moderated(np.array([1.0, 1.0, math.nan]), np.array([2.0, 2.0, 0.0]))
    assert found == pytest.approx(np.ones(3))
    found, degrees = moderated(np.array([4.0, math.nan]), np.array([2.0, 0.0]))
    assert found == pytest.approx([4.0, 4.0])
    assert degrees == pytest.approx([2.0, 2.0])


def test_a_variance_of_zero_is_not_certainty() -> None:
    assert floored(np.array([0.0, 1.0, 2.0])).tolist() == [0.0015, 1.0, 2.0]
    assert floored(np.zeros(2)).tolist() == [0.0, 0.0]


def test_moderated_variances_of_the_model_give_students_t() -> None:
    """Variances drawn from the model that the moderation assumes: its p is under 0.05 in 5 % of cases."""
    rng = np.random.default_rng(0)
    true = 4 / rng.chisquare(4, (300, 40))
    sampled = true * rng.chisquare(2, true.shape) / 2
    variance, freedom = moderated(sampled, np.full(40, 2.0))
    p = 2 * stats.t.sf(np.abs(rng.normal(0, np.sqrt(true)) / np.sqrt(variance)), freedom)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.01)
