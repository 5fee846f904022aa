"""OASIS against picking one sample after another with a least-squares fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adapt_inf.selection.scores import oasis, resolve
from adapt_inf.selection.scores.oasis import not_shared
from adapt_inf.sketching.store import SketchStore, spans, write_index, write_part

N, DIM, PART = 75, 24, 16


@pytest.fixture
def vectors(tmp_path: Path) -> SketchStore:
    rng = np.random.default_rng(8)
    rows = (rng.normal(size=(5, DIM))[rng.integers(0, 5, N)] + 0.4 * rng.normal(size=(N, DIM))).astype(np.float32)
    rows[9] = rows[2]  # the same direction
    rows[30] = 0
    for part, (start, stop) in enumerate(spans(N, PART)):
        write_part(tmp_path, part, rows[start:stop])
    write_index(tmp_path, {"gradient": DIM}, [stop - start for start, stop in spans(N, PART)], {})
    return SketchStore(tmp_path)


@pytest.fixture
def norms() -> np.ndarray:
    lengths = np.random.default_rng(2).exponential(size=N)
    lengths[30] = np.nan
    return lengths


def slow(vectors: SketchStore, norms: np.ndarray, batch: int) -> np.ndarray:
    found = np.full(N, np.nan)
    for start in range(0, N, batch):
        gradients = vectors.block(start, start + batch).astype(np.float64)
        gradients *= np.nan_to_num(norms[start : start + batch])[:, None]
        open_, picked = list(range(len(gradients))), np.zeros((0, DIM))
        while open_:
            left = []
            for at in open_:
                fit = np.linalg.lstsq(picked.T, gradients[at], rcond=None)[0] if len(picked) else np.zeros(0)
                left.append(((gradients[at] - picked.T @ fit) ** 2).sum())
            best = int(np.argmax(left))
            found[start + open_[best]] = left[best]
            picked = np.vstack([picked, gradients[open_.pop(best)]])
    found[np.isnan(norms)] = np.nan
    return found


@pytest.mark.parametrize("batch", [1, 8, 20])
@pytest.mark.parametrize("together", [1, 128])
def test_what_no_other_picked_before_spans(
    vectors: SketchStore, norms: np.ndarray, batch: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oasis, "_BATCHES", together)
    found = not_shared(vectors, norms, batch)
    np.testing.assert_allclose(found, slow(vectors, norms, batch), rtol=1e-3, atol=1e-5)
    assert np.isnan(found).tolist() == [at == 30 for at in range(N)]


def test_a_copy_adds_nothing(vectors: SketchStore, norms: np.ndarray) -> None:
    norms[[2, 9]] = 3.0, 2.0
    found = not_shared(vectors, norms)
    assert found[9] == 0
    assert found[2] > 0


def test_the_score_is_relative_to_all_candidates(vectors: SketchStore, norms: np.ndarray) -> None:
    (score,) = resolve(["oasis"])
    found = score.compute({"gradient": vectors, "grand": norms}, np.random.default_rng(0))
    known = found[np.isfinite(found)]
    assert len(known) == N - 1
    assert known.mean() == pytest.approx(0, abs=1e-9)
    assert known.std() == pytest.approx(1)
    same = score.compute({"gradient": vectors, "grand": np.zeros(N)}, np.random.default_rng(0))
    assert not same.any()
