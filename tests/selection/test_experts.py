import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection import experts as module
from adapt_inf.selection.experts import histogram_bins


def in_order(cluster, k):
    """Positions cluster after cluster, and the clusters' sizes."""
    return np.argsort(cluster, kind="stable"), np.bincount(cluster, minlength=k)


def histogram_entropies(values, cluster, bins):
    """Of one score in every cluster."""
    order, sizes = in_order(cluster, len(bins))
    places = np.empty(len(values), dtype=np.int64)
    return module.entropies(module.histograms(values[order][None], sizes, bins, places))[:, 0]


def choose_experts(scores, cluster, k):
    """Of (n, s) scores."""
    return module.choose_experts(list(np.ascontiguousarray(scores.T)), *in_order(cluster, k))


def entropy_slowly(values, bins):
    """numpy's own histogram of the standardised values, in bits."""
    known = values[np.isfinite(values)]
    if len(known) == 0 or len(known) < 0.9 * len(values):
        return math.nan
    if known.max() - known.min() <= 1e-9 * np.abs(known).max():
        return 0.0
    standard = (known - known.mean()) / known.std()
    counts, _ = np.histogram(standard, bins=bins, range=(-4, 4))
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_entropies_agree_with_numpys_histogram(seed, k, n):
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, k, n)
    values = [rng.normal(3, 2, n), rng.exponential(1e-3, n), rng.standard_t(2, n) * 1e5][seed % 3]
    values[rng.random(n) < rng.choice([0, 0.05, 0.3])] = np.nan
    bins = histogram_bins(np.bincount(cluster, minlength=k))
    found = histogram_entropies(values, cluster, bins)
    for c in range(k):
        expected = entropy_slowly(values[cluster == c], int(bins[c]))
        assert math.isnan(found[c]) if math.isnan(expected) else found[c] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-6, 0.1, 100.0, 1e300])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_entropy_does_not_depend_on_the_unit(scale, shift):
    values = np.random.default_rng(0).normal(size=5000) + shift
    cluster, bins = np.zeros(5000, dtype=int), np.array([50])
    assert histogram_entropies(values * scale, cluster, bins) == pytest.approx(
        histogram_entropies(values, cluster, bins), abs=1e-3
    )


def test_a_gaussian_has_about_the_entropy_of_its_bins():
    values = np.random.default_rng(0).normal(size=200_000)
    entropy = histogram_entropies(values, np.zeros(len(values), dtype=int), np.array([50]))[0]
    assert entropy == pytest.approx(0.5 * math.log2(2 * math.pi * math.e) - math.log2(8 / 50), abs=0.01)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e300, 1e-300])
def test_a_constant_has_no_entropy(value):
    entropy = histogram_entropies(np.full(1001, value), np.zeros(1001, dtype=int), np.array([50]))[0]
    assert entropy == 0.0
    assert math.copysign(1, entropy) == 1


def test_rounding_noise_is_constant():
    values = 0.1 + np.random.default_rng(0).normal(size=500) * 1e-15
    assert histogram_entropies(values, np.zeros(500, dtype=int), np.array([50]))[0] == 0.0


def test_a_score_that_few_samples_have_never_wins():
    rng = np.random.default_rng(0)
    scores = np.stack([np.full(200, 0.5), rng.normal(size=200)], axis=1)
    scores[:19, 1] = np.nan
    assert choose_experts(scores, np.zeros(200, dtype=int), 1).winner.tolist() == [1]  # 90.5% have it
    scores[:21, 1] = np.nan
    experts = choose_experts(scores, np.zeros(200, dtype=int), 1)
    assert experts.winner.tolist() == [0]
    assert math.isnan(experts.entropies[0, 1])
    assert math.isnan(experts.margins[0])


def test_exactly_nine_tenths_is_enough():
    values = np.random.default_rng(0).normal(size=10)
    values[0] = np.nan
    assert np.isfinite(histogram_entropies(values, np.zeros(10, dtype=int), np.array([2])))[0]


def test_with_no_score_at_all_nobody_wins():
    experts = choose_experts(np.full((40, 2), np.nan), np.zeros(40, dtype=int), 1)
    assert experts.winner.tolist() == [-1]


def test_ties_go_to_the_earlier_score_and_the_margin_is_the_distance_to_the_second():
    values = np.random.default_rng(0).normal(size=100)
    experts = choose_experts(np.stack([values * 0, values, values * 7], axis=1), np.zeros(100, dtype=int), 1)
    assert experts.winner.tolist() == [1]
    assert experts.margins[0] == pytest.approx(0, abs=1e-12)
    assert choose_experts(np.zeros((100, 3)), np.zeros(100, dtype=int), 1).winner.tolist() == [0]


@given(st.integers(0, 1000), st.integers(30, 300))
@settings(max_examples=50, deadline=None)
def test_a_mirrored_score_ties_with_its_original(seed, n):
    values = np.random.default_rng(seed).exponential(size=n)
    for scores in ([values, -values], [-values, values]):
        experts = choose_experts(np.stack(scores, axis=1), np.zeros(n, dtype=int), 1)
        assert experts.margins.tolist() == [0.0]
        assert experts.winner.tolist() == [0]


def test_bins_shrink_with_the_cluster():
    assert histogram_bins(np.array([0, 1, 7, 8, 40, 199, 200, 10_000])).tolist() == [2, 2, 2, 2, 10, 49, 50, 50]


def test_empty_clusters_and_no_samples_are_no_trouble():
    experts = choose_experts(np.zeros((3, 1)), np.array([0, 2, 2]), 4)
    assert experts.winner.tolist() == [0, -1, 0, -1]
    assert choose_experts(np.empty((0, 2)), np.empty(0, dtype=int), 0).winner.tolist() == []
