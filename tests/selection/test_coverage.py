import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection import coverage as module
from adapt_inf.selection.coverage import (
    HIGH_TAIL,
    HIGHEST,
    LOW_TAIL,
    UNSTRATIFIED,
    highest_sample,
    stratify,
    uniform_sample,
)

values_of = st.lists(
    st.one_of(st.floats(-100, 100), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, -1e308])),
    max_size=60,
).map(lambda v: np.array(v, dtype=np.float64))


def coverage_sample(values, budget, rng, strata=50, tail=0.05):
    """Of one cluster."""
    return module.coverage_sample(values, np.array([len(values)]), np.array([budget]), rng, strata, tail)


def stratify_slowly(values, strata, tail):
    """One sample at a time, from the definition."""
    known = sorted(v for v in values if math.isfinite(v))
    if not known:
        return [strata] * len(values)
    out = math.floor(tail * len(known) + 1e-9)
    low, high = known[out], known[len(known) - 1 - out]
    codes = []
    for value in values:
        if not math.isfinite(value):
            codes.append(strata)
        elif value < low:
            codes.append(LOW_TAIL)
        elif value > high:
            codes.append(HIGH_TAIL)
        elif not high / 2 - low / 2 > 0:
            codes.append(0)
        else:
            codes.append(min(strata - 1, int((value / 2 - low / 2) / (high / 2 - low / 2) * strata)))
    return codes


@given(values_of, st.integers(1, 50), st.sampled_from([0.0, 0.05, 0.1, 0.49]))
@settings(max_examples=300)
def test_strata_agree_with_the_definition(values, strata, tail):
    assert stratify(values, strata, tail).tolist() == stratify_slowly(values.tolist(), strata, tail)


@pytest.mark.parametrize("n", [257, 1500, 5000])
@pytest.mark.parametrize("shape", ["as drawn", "ascending", "every step far out", "every step the same"])
def test_the_tails_of_many_samples_are_exact_in_any_order(n, shape):
    values = np.random.default_rng(n).exponential(size=n)
    step = n // 256  # the samples that are looked at first
    if shape == "ascending":
        values = np.sort(values)
    elif shape == "every step far out":
        values[::step] = np.where(np.arange(len(values[::step])) % 2, 1e3, -1e3)
    elif shape == "every step the same":
        values[::step] = 1.0
    assert stratify(values).tolist() == stratify_slowly(values.tolist(), 50, 0.05)


@given(values_of, st.integers(0, 80), st.integers(1, 20), st.sampled_from([0.0, 0.05, 0.2]), st.integers(0, 5))
@settings(max_examples=400)
def test_exactly_the_budget_no_duplicate_tails_last_equal_strata(values, budget, strata, tail, seed):
    draw = coverage_sample(values, budget, np.random.default_rng(seed), strata, tail)
    codes = stratify(values, strata, tail)
    assert len(draw.positions) == min(budget, len(values))
    assert (np.diff(draw.positions) > 0).all()
    assert np.array_equal(draw.strata, codes[draw.positions])
    taken_tail = np.isin(draw.strata, [LOW_TAIL, HIGH_TAIL]).any()
    inner = ~np.isin(codes, [LOW_TAIL, HIGH_TAIL])
    if taken_tail:
        assert np.isin(np.flatnonzero(inner), draw.positions).all()
    for group in (range(strata + 1), (LOW_TAIL, HIGH_TAIL)):
        counts = {g: int((draw.strata == g).sum()) for g in group}
        open_ = [counts[g] for g in group if counts[g] < (codes == g).sum()]
        if open_:  # a stratum with something left got as much as any other, but for a unit that cannot be divided
            assert max(counts.values()) - min(open_) <= 1


@given(
    st.lists(values_of, max_size=6), st.lists(st.integers(0, 40), min_size=6, max_size=6), st.integers(0, 3), st.data()
)
@settings(max_examples=200)
def test_every_cluster_gives_its_budget_by_its_own_strata(clusters, budgets, seed, data):
    scored = np.array(data.draw(st.lists(st.booleans(), min_size=len(clusters), max_size=len(clusters))), dtype=bool)
    sizes = np.array([len(values) for values in clusters], dtype=np.int64)
    values = np.concatenate([np.empty(0), *clusters])
    rng = np.random.default_rng(seed)
    draw = module.coverage_sample(values, sizes, np.array(budgets[: len(sizes)], dtype=int), rng, 7, 0.1, scored)
    assert (np.diff(draw.positions) > 0).all()
    for cluster, stop in enumerate(np.cumsum(sizes)):
        start = stop - sizes[cluster]
        here = (start <= draw.positions) & (draw.positions < stop)
        assert here.sum() == min(budgets[cluster], sizes[cluster])
        codes = stratify(clusters[cluster], 7, 0.1) if scored[cluster] else np.full(sizes[cluster], UNSTRATIFIED)
        assert np.array_equal(draw.strata[here], codes[draw.positions[here] - start])
        inner = [(code, (codes == code).sum(), (draw.strata[here] == code).sum()) for code in range(8)]
        most = max(taken for _, _, taken in inner)
        assert all(taken == size or taken >= most - 1 for _, size, taken in inner)


@given(values_of, st.integers(0, 80), st.integers(0, 3))
def test_the_same_seed_draws_the_same(values, budget, seed):
    first, second = (coverage_sample(values, budget, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first.positions, second.positions)


@pytest.mark.parametrize("values", [np.full(1000, 0.3), np.full(1000, np.nan)], ids=["constant", "no sample has one"])
def test_without_differences_the_draw_is_uniform(values):
    rng = np.random.default_rng(0)
    times = np.zeros(1000)
    for _ in range(200):
        times[coverage_sample(values, 250, rng).positions] += 1
    assert times.min() > 20
    assert times.max() < 85


def test_a_small_budget_does_not_gather_at_one_end():
    values = np.linspace(0, 1, 1000)
    rng = np.random.default_rng(0)
    means = [values[coverage_sample(values, 5, rng).positions].mean() for _ in range(200)]
    assert abs(np.mean(means) - 0.5) < 0.03


def test_samples_without_a_score_get_one_share():
    values = np.concatenate([np.linspace(0, 1, 1000), np.full(100, np.nan)])
    draw = coverage_sample(values, 510, np.random.default_rng(0), strata=50)
    assert (draw.strata == 50).sum() == 10


def test_every_stratum_member_is_as_likely():
    values = np.array([0.0] * 5 + [1.0] * 5)
    rng = np.random.default_rng(1)
    times = np.zeros(10)
    for _ in range(2000):
        times[coverage_sample(values, 4, rng, strata=2, tail=0).positions] += 1
    assert np.abs(times / 2000 - 0.4).max() < 0.05


@given(st.lists(st.lists(st.sampled_from([0.5, 1.0, 2.0, np.nan]), max_size=12), min_size=1, max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_the_highest_of_each_cluster_and_of_equals_any(clusters, data):
    sizes = np.array([len(cluster) for cluster in clusters])
    budgets = np.array([data.draw(st.integers(0, size + 2)) for size in sizes])
    values = np.array([value for cluster in clusters for value in cluster], dtype=float)
    draw = highest_sample(values, sizes, budgets, np.random.default_rng(0))
    assert (np.diff(draw.positions) > 0).all()
    assert (draw.strata == HIGHEST).all()
    for end, size, budget in zip(np.cumsum(sizes), sizes, budgets, strict=True):
        inside = np.arange(end - size, end)
        taken = np.isin(inside, draw.positions)
        assert taken.sum() == min(size, budget)
        ranked = np.nan_to_num(values[inside], nan=-np.inf)
        assert not taken.any() or taken.all() or ranked[taken].min() >= ranked[~taken].max()


def test_equal_values_are_drawn_with_the_same_chance():
    counts = np.zeros(4)
    for seed in range(400):
        counts[highest_sample(np.ones(4), np.array([4]), np.array([1]), np.random.default_rng(seed)).positions] += 1
    assert counts.min() > 60


def test_uniform_sampling_is_exact():
    draw = uniform_sample(10, 4, np.random.default_rng(0))
    assert len(set(draw.positions.tolist())) == 4
    assert (draw.strata == UNSTRATIFIED).all()
    assert uniform_sample(3, 9, np.random.default_rng(0)).positions.tolist() == [0, 1, 2]
    assert len(uniform_sample(3, 0, np.random.default_rng(0)).positions) == 0


def test_a_hundred_thousand_samples_take_milliseconds():
    values = np.random.default_rng(0).normal(size=100_000)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        coverage_sample(values, 25_000, np.random.default_rng(1))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1  # about 0.006 on an idle core
