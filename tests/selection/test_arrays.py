import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection.arrays import TopColumns, column_scaled_cosines, to_grid


@pytest.mark.parametrize("dim", [1, 2, 64, 2048])
def test_products_on_the_grid_are_exact_whole_numbers(dim):
    vectors = np.random.default_rng(dim).normal(size=(40, dim))
    vectors[1] = vectors[0]
    grid = to_grid(vectors)
    whole = grid.rows.astype(np.int64)
    assert np.array_equal(whole, grid.rows)
    assert np.abs(whole @ whole.T).max() <= 2**24
    assert np.array_equal((grid.rows @ grid.rows.T).astype(np.int64), whole @ whole.T)


def test_cosines_are_close_to_the_true_ones():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 512)) * rng.uniform(0.01, 100, size=(200, 1))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    grid = to_grid(vectors.astype(np.float32))
    cosines = column_scaled_cosines(grid, grid) * grid.inverse_norms[:, None]
    assert np.abs(cosines - unit @ unit.T).max() < 6e-4
    assert np.allclose(np.diag(cosines), 1, atol=1e-6)


def test_a_zero_row_is_similar_to_nothing():
    grid = to_grid(np.array([[0.0, 0.0], [1.0, 0.0]]))
    cosines = column_scaled_cosines(grid, grid) * grid.inverse_norms[:, None]
    assert np.allclose(cosines, [[0, 0], [0, 1]], atol=1e-6)


@given(st.integers(1, 50), st.integers(1, 60))
def test_the_grid_does_not_depend_on_the_chunk(n, chunk):
    vectors = np.random.default_rng(n).normal(size=(n, 33)).astype(np.float32)
    whole, parts = to_grid(vectors), to_grid(vectors, chunk)
    assert np.array_equal(whole.rows, parts.rows)
    assert np.array_equal(whole.inverse_norms, parts.inverse_norms)


@given(st.data(), st.integers(1, 6), st.integers(1, 20), st.integers(1, 5), st.integers(1, 20))
@settings(max_examples=200)
def test_top_columns_agree_with_a_sort(data, rows, columns, r, block):
    values = np.array(
        data.draw(
            st.lists(
                st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0]), min_size=columns, max_size=columns),
                min_size=rows,
                max_size=rows,
            )
        ),
        dtype=np.float32,
    )
    top = TopColumns.empty(rows, r)
    for start in range(0, columns, block):
        part = values[:, start : start + block].copy()
        if start // block % 2:  # by pairs, as they lie in order
            row, column = np.nonzero(part > -np.inf)
            top.merge_pairs(row, column + start, part[row, column])
        else:
            top.merge(part, np.arange(start, start + part.shape[1]))
    for row in range(rows):
        finite = [(-v, c) for c, v in enumerate(values[row].tolist()) if v > -np.inf]
        expected = [c for _, c in sorted(finite)][:r]
        assert top.columns[row].tolist() == expected + [-1] * (r - len(expected))
        assert top.values[row].tolist()[: len(expected)] == values[row, expected].tolist()
