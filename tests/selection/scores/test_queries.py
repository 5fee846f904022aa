"""Scores that ask how close a sample is to queries, against loops over all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection.scores import queries, resolve
from adapt_inf.selection.scores.crds_w import whitening
from adapt_inf.selection.scores.queries import closeness, draw_queries
from adapt_inf.sketching.store import SketchStore, spans, write_index, write_part

N, DIM, PART = 90, 12, 16


@pytest.fixture
def vectors(tmp_path: Path) -> SketchStore:
    """Hidden states in a narrow cone, as those of language models are; three samples cannot be read."""
    rng = np.random.default_rng(3)
    rows = (4.0 + rng.normal(size=(N, DIM)) * np.linspace(2.0, 0.2, DIM)).astype(np.float32)
    rows[[5, 40, 77]] = 0
    for part, (start, stop) in enumerate(spans(N, PART)):
        write_part(tmp_path, part, rows[start:stop], "hidden")
    write_index(tmp_path, {"hidden": DIM}, [stop - start for start, stop in spans(N, PART)], {})
    return SketchStore(tmp_path, "hidden")


def slow_closeness(rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return np.array(
        [max(unit[i] @ unit[j] for j in asked if j != i) if rows[i].any() else np.nan for i in range(len(rows))]
    )


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 5), st.integers(0, 9), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_as_many_queries_of_every_skill(skills: list[int], each: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    skill, there = np.array(skills, dtype=np.int64), rng.random(len(skills)) < share
    found = draw_queries(skill, there, rng, each)
    assert (np.diff(found) > 0).all()
    assert there[found].all()
    for number in range(7):
        assert (skill[found] == number).sum() == min(each, int((there & (skill == number)).sum()))


@pytest.mark.parametrize(("rows", "at_once"), [(1, 1), (7, 2), (8192, 1024)])
def test_the_closest_query_that_is_not_the_sample_itself(
    vectors: SketchStore, rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_ROWS", rows)
    monkeypatch.setattr(queries, "_QUERIES", at_once)
    asked = np.array([0, 3, 33, 34, 89])
    np.testing.assert_allclose(closeness(vectors, asked), slow_closeness(vectors.all(), asked), rtol=1e-5)


def test_where_there_is_nothing_to_compare_with_it_is_zero(vectors: SketchStore) -> None:
    found = closeness(vectors, np.array([7]))
    assert np.flatnonzero(np.isnan(found)).tolist() == [5, 40, 77]
    assert np.flatnonzero(found == 0).tolist() == [7]
    same = whitening(vectors, np.array([5, 5, 5]))
    assert same(vectors.all()).shape == (N, 0)
    assert np.nansum(np.abs(closeness(vectors, np.array([1, 7]), same))) == 0


def test_whitening_spreads_what_lies_in_a_cone(vectors: SketchStore) -> None:
    there = np.flatnonzero(vectors.all().any(axis=1))
    change = whitening(vectors, there)
    white = change(vectors.all())
    assert white.shape == (N, DIM // 2)
    np.testing.assert_allclose(white[there].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white[there].T, bias=True), np.eye(DIM // 2), atol=1e-3)
    assert not white[[5, 40, 77]].any()
    centred = vectors.take(there).astype(np.float64)
    centred -= centred.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    same = centred @ axes[: DIM // 2].T
    same /= same.std(axis=0)
    np.testing.assert_allclose(white[there] @ white[there].T, same @ same.T, rtol=2e-3, atol=2e-3)  # signs are free


@pytest.mark.parametrize("name", ["rds_plus", "crds_w"])
def test_the_scores_are_closeness_to_queries_of_every_skill(vectors: SketchStore, name: str) -> None:
    (score,) = resolve([name])
    rows = vectors.all()
    signals = {"hidden": vectors, "skill": np.arange(N) % 4, "nll": np.where(rows.any(axis=1), 1.0, np.nan)}
    found = score.compute(signals, np.random.default_rng(1))
    assert np.isnan(found).tolist() == [not row.any() for row in rows]
    rng = np.random.default_rng(1)
    asked = draw_queries(signals["skill"], rows.any(axis=1), rng)
    assert len(asked) == 4 * queries.PER_SKILL
    seen = rows if name == "rds_plus" else whitening(vectors, np.flatnonzero(rows.any(axis=1)))(rows)
    np.testing.assert_allclose(found, slow_closeness(seen, asked), rtol=1e-4, atol=1e-5)
    again = score.compute(signals, np.random.default_rng(1))
    np.testing.assert_array_equal(found, again)
