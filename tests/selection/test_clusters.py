import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection.clusters import (
    assign,
    choose_k,
    fit_centroids,
    k_grid,
    renumber,
    simplified_silhouette,
    subsample,
)


def skills(k, each, dim=32, noise=0.15, seed=0):
    """(k * each, dim) unit rows around k directions, and which direction."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, dim))
    label = np.repeat(np.arange(k), each)
    rows = centres[label] + noise * np.sqrt(dim / 32) * rng.normal(size=(k * each, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), label


def test_k_means_finds_planted_skills_and_is_deterministic():
    rows, truth = skills(6, 60)
    centroids = fit_centroids(rows, 12, seed=3)
    assert np.array_equal(centroids, fit_centroids(rows, 12, seed=3))
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    label, similarity = assign(rows, centroids)
    purity = sum(np.bincount(truth[label == c]).max(initial=0) for c in range(12)) / len(rows)
    assert purity > 0.95
    assert np.allclose(similarity, (rows * centroids[label]).sum(axis=1), atol=1e-3)


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 60), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_assignment_is_that_of_a_full_table_whatever_the_block(n, k, block, seed):
    rng = np.random.default_rng(seed)
    rows, centroids = (rng.normal(size=(m, 16)).astype(np.float32) for m in (n, k))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, centroids)]
    table = unit[0] @ unit[1].T
    label, similarity = assign(rows, centroids, block)
    assert np.array_equal(label, assign(rows, centroids)[0])
    assert (table[np.arange(n), label] > table.max(axis=1) - 2e-3).all()
    assert np.abs(similarity - table.max(axis=1)).max() < 1e-3


def test_equal_sketches_share_a_cluster():
    rows = np.tile(skills(3, 1)[0], (40, 1))
    label, _ = assign(rows, fit_centroids(rows, 10, seed=0), block=7)
    for direction in range(3):
        assert len(set(label[direction::3])) == 1
    new, old = renumber(label, 10)
    assert sorted(set(new)) == list(range(len(old)))
    assert len(old) <= 3


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_fewer_samples_than_clusters(n):
    rows = skills(n, 1)[0]
    centroids = fit_centroids(rows, 8, seed=0)
    assert len(centroids) == n
    assert sorted(assign(rows, centroids)[0]) == list(range(n))


def test_zero_sketches_are_assigned_too():
    rows = np.zeros((5, 8), dtype=np.float32)
    rows[0, 0] = 1
    label, similarity = assign(rows, fit_centroids(rows, 2, seed=0))
    assert len(set(label[1:])) == 1
    assert np.isfinite(similarity).all()


def silhouette_slowly(rows, centroids):
    total = 0.0
    for row in rows.astype(np.float64):
        distances = sorted(1 - row @ c for c in centroids.astype(np.float64))
        total += (distances[1] - distances[0]) / max(distances[1], distances[0])
    return total / len(rows)


def test_silhouette_agrees_with_the_formula():
    rows, _ = skills(4, 30)
    centroids = fit_centroids(rows, 5, seed=1)
    assert simplified_silhouette(rows, centroids) == pytest.approx(silhouette_slowly(rows, centroids), abs=5e-3)
    assert simplified_silhouette(rows, centroids[:1]) == 0
    assert simplified_silhouette(rows, np.repeat(centroids[:1], 2, axis=0)) == pytest.approx(0, abs=1e-6)


def test_auto_finds_the_number_of_planted_skills():
    rows, _ = skills(8, 80)
    k, curve = choose_k(rows, [2, 4, 8, 16, 32], seed=0)
    assert k == 8
    assert [point[0] for point in curve] == [2, 4, 8, 16, 32]
    assert choose_k(rows, [2, 4, 8, 16, 32], seed=0) == (k, curve)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_auto_with_a_handful_of_equal_samples(n):
    rows = np.tile(skills(1, 1)[0], (n, 1))
    k, curve = choose_k(rows, k_grid(n), seed=0)
    assert k == k_grid(n)[0]
    assert all(np.isfinite(value) for _, value in curve)


def test_the_grid_grows_with_the_pool():
    assert k_grid(1) == k_grid(3) == [1]
    assert k_grid(4) == [2]
    assert k_grid(6000) == [19, 27, 39, 55, 77]
    assert k_grid(1_000_000) == [250, 354, 500, 707, 1000]
    for n in range(1, 3000):
        grid = k_grid(n)
        assert grid == sorted(set(grid))
        assert grid[0] >= 1
        assert grid[-1] <= max(1, n // 2)


def test_subsamples_are_seeded_and_hold_no_duplicate():
    rows = subsample(1000, 100, seed=1)
    assert np.array_equal(rows, subsample(1000, 100, seed=1))
    assert not np.array_equal(rows, subsample(1000, 100, seed=2))
    assert (np.diff(rows) > 0).all()
    assert subsample(5, 100, seed=1).tolist() == [0, 1, 2, 3, 4]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_renumbering_is_by_size_and_leaves_no_gap(label):
    new, old = renumber(np.array(label), 10)
    sizes = np.bincount(new)
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()
    assert np.array_equal(old[new], label)
