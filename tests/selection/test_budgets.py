from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapt_inf.selection.budgets import cluster_budgets, resolve_budget, water_fill

splits = st.sampled_from(["equal", "proportional", "density", "loss"])
sizes_of = st.lists(st.integers(0, 60), max_size=12)


def fill_one_by_one(capacities, total, order):
    """The slow version: hand out one unit at a time to whoever has least and room, in `order`."""
    shares = [0] * len(capacities)
    for _ in range(min(total, sum(capacities))):
        room = [i for i in order if shares[i] < capacities[i]]
        shares[min(room, key=lambda i: shares[i])] += 1
    return shares


def weighted_by_fractions(capacities, total, weights):
    """The slow version in exact fractions: full clusters are settled one at a time, the rest share by weight."""
    total = min(total, sum(capacities))
    exact = [Fraction(0)] * len(capacities)
    open_ = set(range(len(capacities)))
    left = Fraction(total)
    while open_:
        level = left / sum(weights[i] for i in open_)
        over = [i for i in open_ if level * weights[i] >= capacities[i]]
        if not over:
            for i in open_:
                exact[i] = level * weights[i]
            break
        for i in over:
            exact[i] = Fraction(capacities[i])
            left -= capacities[i]
            open_.remove(i)
    shares = [int(e) for e in exact]
    by_fraction = sorted(range(len(exact)), key=lambda i: (-(exact[i] - shares[i]), i))
    for i in by_fraction[: total - sum(shares)]:
        shares[i] += 1
    return shares


@given(sizes_of, st.integers(0, 800), st.randoms(use_true_random=False))
@settings(max_examples=300)
@example([], 5, None)
@example([0, 0], 5, None)
def test_equal_shares_agree_with_handing_out_one_by_one(capacities, total, random):
    order = list(range(len(capacities)))
    if random is not None:
        random.shuffle(order)
    assert water_fill(capacities, total, order=order).tolist() == fill_one_by_one(capacities, total, order)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=10), st.integers(0, 700))
@settings(max_examples=300)
def test_weighted_shares_agree_with_exact_fractions(pairs, total):
    capacities, weights = [c for c, _ in pairs], [w for _, w in pairs]
    shares = water_fill(capacities, total, weights)
    expected = weighted_by_fractions(capacities, total, [Fraction(w) for w in weights])
    assert shares.sum() == min(total, sum(capacities))
    # Equal fractions may differ in their last bit in floating point, and then in who gets a unit: one at most.
    assert np.abs(shares - expected).max(initial=0) <= 1
    assert (shares <= capacities).all()


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(1e-6, 1e6)), max_size=30), st.integers(0, 10**10))
def test_weighted_shares_sum_exactly_whatever_the_weights(pairs, total):
    capacities, weights = [c for c, _ in pairs], [w for _, w in pairs]
    shares = water_fill(capacities, total, weights)
    assert shares.sum() == min(total, sum(capacities))
    assert ((shares >= 0) & (shares <= capacities)).all()


@given(sizes_of, st.integers(0, 800), splits, st.integers(0, 40), st.data())
@settings(max_examples=300)
def test_cluster_budgets_are_exact_and_small_clusters_keep_their_equal_share(sizes, total, split, min_cluster, data):
    factors = data.draw(st.lists(st.floats(0, 2), min_size=len(sizes), max_size=len(sizes)))
    budgets = cluster_budgets(sizes, total, split, min_cluster, factors)
    assert budgets.sum() == min(total, sum(sizes))
    assert ((budgets >= 0) & (budgets <= sizes)).all()
    equal = cluster_budgets(sizes, total)
    small = np.array(sizes, dtype=int) < min_cluster
    assert (budgets[small] >= equal[small]).all()


def test_small_clusters_lose_nothing_while_large_ones_have_anything_to_give():
    assert cluster_budgets([5, 1000, 30, 1000], 200).tolist() == [5, 83, 30, 82]


def test_left_over_units_go_to_larger_clusters():
    assert cluster_budgets([10, 30, 20, 30], 2).tolist() == [0, 1, 0, 1]
    assert cluster_budgets([10, 30, 20, 30], 3).tolist() == [0, 1, 1, 1]


def test_proportional_follows_size_and_the_others_size_times_their_factor():
    assert cluster_budgets([100, 300, 600], 100, "proportional").tolist() == [10, 30, 60]
    assert cluster_budgets([100, 100], 60, "density", factors=[0.1, 0.5]).tolist() == [10, 50]
    assert cluster_budgets([100, 100], 60, "density", factors=[0.0, 0.0]).tolist() == [30, 30]
    assert cluster_budgets([100, 300], 60, "loss", factors=[3.0, 1.0]).tolist() == [30, 30]
    assert cluster_budgets([10, 1000], 100, "proportional", min_cluster=32).tolist() == [10, 90]


@pytest.mark.parametrize(
    ("budget", "candidates", "expected"),
    [
        (0.3, 10, 3),
        (0.25, 10, 2),
        (0.001, 10, 1),
        (1.0, 10, 10),
        (7, 10, 7),
        (70, 10, 10),
        (0, 10, 0),
        (0.0, 10, 0),
        (0.5, 0, 0),
        (1, 10, 1),
        (0.29, 100, 29),
    ],
)
def test_a_budget_is_a_count_or_a_fraction(budget, candidates, expected):
    assert resolve_budget(budget, candidates) == expected


@pytest.mark.parametrize("budget", [-1, -0.1, 1.5, 300.0])
def test_a_budget_that_is_neither_is_refused(budget):
    with pytest.raises(ValueError, match="a budget is"):
        resolve_budget(budget, 10)


def test_bad_shares_are_refused():
    with pytest.raises(ValueError, match="negative"):
        water_fill([1, -1], 1)
    with pytest.raises(ValueError, match="negative"):
        water_fill([1], -1)
    with pytest.raises(ValueError, match="positive"):
        water_fill([1, 1], 1, weights=[1, np.nan])
    for split in ("density", "loss"):
        with pytest.raises(ValueError, match=f"the {split} split needs a factor"):
            cluster_budgets([50, 50], 10, split)
