"""Means, intervals and paired differences against a case worked by hand, and against scipy's own tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adapt_inf.comparison.statistics import Difference, Mean, difference_of, mean_of

VALUES = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=2, max_size=12)


def test_a_mean_by_hand() -> None:
    """Five values 1..5: mean 3, standard deviation sqrt(2.5), t(4) at 0.975 is 2.7764 in any table."""
    found = mean_of(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (found.mean, found.n) == (3.0, 5)
    assert found.half == pytest.approx(2.7764 * 2.5**0.5 / 5**0.5, abs=1e-4)


def test_a_difference_by_hand() -> None:
    """Gaps 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641; t(2) at 0.975 is 4.3027; p is 0.0742."""
    found = difference_of(np.array([5.0, 5.0, 5.0]), np.array([4.0, 3.0, 2.0]))
    assert found.mean == 2.0
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    assert found.p == pytest.approx(0.0742, abs=1e-4)
    assert not found.shown


@given(VALUES)
def test_intervals_are_those_of_scipy(values: list[float]) -> None:
    array = np.array(values)
    found = mean_of(array)
    if np.ptp(array) == 0:
        assert found.half == pytest.approx(0, abs=1e-12)
        return
    low, high = stats.t.interval(0.95, len(array) - 1, array.mean(), stats.sem(array))
    assert found.half == pytest.approx((high - low) / 2)


@given(VALUES, st.integers(0, 99))
def test_differences_are_those_of_the_paired_t_test(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).uniform(0, 1, len(values))
    found = difference_of(np.array(values), other)
    expected = stats.ttest_rel(values, other)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.shown == (found.p is not None and found.p < 0.05)


def test_one_value_has_no_interval() -> None:
    assert mean_of(np.array([0.5])) == Mean(0.5, None, 1)
    alone = difference_of(np.array([0.5]), np.array([0.25]))
    assert alone == Difference(0.25, None, None, None, 1)
    assert not alone.shown


def test_equal_pairs_differ_by_nothing_and_equal_gaps_by_just_that() -> None:
    same = np.array([0.1, 0.4, 0.7])
    assert difference_of(same, same) == Difference(0.0, 0.0, 0.0, None, 3)
    assert not difference_of(same, same).shown
    assert difference_of(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == Difference(1.0, 1.0, 1.0, None, 2)
    assert difference_of(np.array([1.0, 2.0]), np.array([0.0, 1.0])).shown
