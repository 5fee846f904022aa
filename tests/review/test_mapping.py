"""The map: clusters lie as far apart as their centroids where a plane can show it, samples by their own cluster."""

from __future__ import annotations

import numpy as np
import pytest

from adapt_inf.review.mapping import lay_out, place, sketch_map
from adapt_inf.review.svg import COLOURS
from adapt_inf.review.tables import Review


def apart(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows[None], axis=2)


def test_distances_that_a_plane_can_hold_are_kept() -> None:
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(7)], axis=1).astype(np.float32)
    places = lay_out(circle)
    assert apart(places) == pytest.approx(apart(circle), abs=1e-4)
    assert (lay_out(circle) == places).all()


@pytest.mark.parametrize("k", [1, 2, 40])
def test_near_centroids_lie_nearer_than_far_ones(k: int) -> None:
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((k, 64)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    twin = centroids[:1] + 0.01 * rng.standard_normal((1, 64)).astype(np.float32)
    both = np.concatenate([centroids, twin / np.linalg.norm(twin)])
    places = lay_out(both)
    assert np.isfinite(places).all()
    to_twin = apart(places)[-1]
    assert to_twin[:-1].argmin() == 0


def test_equal_centroids_meet() -> None:
    same = np.tile(np.eye(1, 8, dtype=np.float32), (3, 1))
    assert apart(lay_out(same)).max() == pytest.approx(0, abs=1e-6)


def test_a_sample_lies_by_the_cluster_that_it_is_like() -> None:
    centroids = np.eye(3, 16, dtype=np.float32)
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    between = (centroids[0] + centroids[1])[None] / np.sqrt(2, dtype=np.float32)
    found = place(np.concatenate([centroids, between]), centroids, places)
    assert found[:3] == pytest.approx(places, abs=1e-3)
    assert found[3] == pytest.approx([0.5, 0.0], abs=1e-3)


def test_the_caption_says_where_clusters_share_a_colour(real: Review) -> None:
    picture = sketch_map(real)
    assert picture is not None
    assert len(real.clusters) <= len(COLOURS)
    assert "colours serve" not in picture.how
    many = Review(real.project, real.round)
    samples = real.samples.copy()
    samples["cluster"] = np.arange(len(samples)) % 83
    many.__dict__["samples"] = samples
    picture = sketch_map(many)
    assert picture is not None
    assert f"{len(COLOURS)} colours serve 83 clusters" in picture.how
