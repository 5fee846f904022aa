"""Earlier neighbours: exactly those of a whole table of cosines, whichever way products are bounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection.arrays import to_grid
from adapt_inf.selection.blocks import ArrayRows
from adapt_inf.selection.neighbours import Coded, Parts, eight_bit_pays, most_similar_before


def rows_of(seed, n, dim, kind):
    rng = np.random.default_rng(seed)
    if kind == "heavy":  # one large number in each row: the step of its codes is coarse
        rows = 0.05 * rng.normal(size=(n, dim))
        rows[np.arange(n), rng.integers(0, dim, n)] = 1
    elif kind == "copies":
        rows = np.repeat(rng.normal(size=(n // 4 + 1, dim)), 4, axis=0)[:n]
        rows[rng.random(n) < 0.1] = 0
    else:
        rows = rng.normal(size=(n, dim)) + rng.normal(size=dim)
    return rows.astype(np.float16)


@given(
    st.integers(0, 1000),
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from(["heavy", "copies", "plain"]),
    st.integers(1, 5),
    st.sampled_from([-2.0, 0.0, 0.3, 0.9]),
    st.sampled_from([1, 3000, 2**30]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_finds_what_a_whole_table_shows(seed, n, dim, kind, count, floor, memory, eight_bit):
    rng = np.random.default_rng([seed, 1])
    sketches, allowed = rows_of(seed, n, dim, kind), rng.random(n) < 0.8
    positions = np.flatnonzero(rng.random(n) < 0.7)
    parts = Parts(ArrayRows(sketches), memory, eight_bit)
    cosines, found = most_similar_before(parts, positions, allowed, count, floor)
    grid = to_grid(sketches)
    whole = grid.rows.astype(np.int64)
    table = (whole @ whole.T).astype(np.float32) * grid.inverse_norms
    for row, x in enumerate(positions):
        cosine = table[x].astype(np.float64) * grid.inverse_norms[x]
        clearly = [y for y in range(x) if allowed[y] and cosine[y] > floor + 1e-6]
        barely = [y for y in range(x) if allowed[y] and cosine[y] > floor - 1e-6]
        got = [y for y in found[row].tolist() if y >= 0]
        expected = [sorted(some, key=lambda y: (-table[x, y], y))[:count] for some in (clearly, barely)]
        assert got in expected
        assert np.allclose(cosines[row, : len(got)], cosine[got], atol=1e-6)


@pytest.mark.parametrize("kind", ["heavy", "copies", "plain"])
def test_codes_leave_out_no_more_than_they_say(kind):
    sketches = rows_of(0, 200, 64, kind)
    coded = Coded.empty(200, 64, True)
    coded.fill(slice(0, 200), sketches)
    grid = to_grid(sketches)
    unit = grid.rows * grid.inverse_norms[:, None]
    left_out = np.linalg.norm(unit - coded.codes * coded.steps[:, None], axis=1)
    assert (left_out <= coded.errors + 1e-6).all()
    assert coded.errors[:50].max() < 0.2


def test_which_product_pays_is_asked_once():
    assert eight_bit_pays() is eight_bit_pays()
