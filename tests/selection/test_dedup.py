import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.selection.arrays import to_grid
from adapt_inf.selection.blocks import ArrayRows
from adapt_inf.selection.dedup import Pruned
from adapt_inf.selection.dedup import prune_redundant as prune_rows

KB = 2**10


def prune_redundant(sketches, keep, memory=2**30, eight_bit=None) -> Pruned:
    return prune_rows(ArrayRows(sketches), keep, memory, eight_bit)


def cosines_slowly(sketches):
    """All cosines at once, on the grid, with whole-number products."""
    grid = to_grid(sketches)
    products = (grid.rows.astype(np.int64) @ grid.rows.astype(np.int64).T).astype(np.float32)
    return products * grid.inverse_norms  # a row's order is that of its cosines


def prune_slowly(sketches, keep):
    """From the definition: measure everything again after every single removal."""
    grid = to_grid(sketches)
    table = cosines_slowly(sketches)
    kept = list(range(len(sketches)))
    while len(kept) > keep:
        redundancy = {}
        for place, x in enumerate(kept):
            before = kept[:place]
            top = max((float(table[x, y]) for y in before), default=-np.inf)
            redundancy[x] = round(top * float(grid.inverse_norms[x]), 4) if before else -np.inf
        kept.remove(max(kept, key=lambda x: (redundancy[x], x)))
    gone = sorted(set(range(len(sketches))) - set(kept))
    stands = [max((y for y in kept if y < x), key=lambda y: (table[x, y], -y), default=-1) for x in gone]
    return gone, stands


def sketches_of(seed, n, kind):
    rng = np.random.default_rng(seed)
    if kind == "few directions":  # many exact ties
        return rng.integers(-1, 2, (n, 3)).astype(np.float32)
    if kind == "identical":
        return np.tile(rng.normal(size=(1, 8)), (n, 1)).astype(np.float32)
    if kind == "chain":  # each sample is close to its neighbours only
        angle = np.arange(n) * 0.15
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)[rng.permutation(n)].astype(np.float32)
    return rng.normal(size=(n, 6)).astype(np.float16)


kinds = st.sampled_from(["few directions", "identical", "chain", "random"])


@given(
    st.integers(0, 1000),
    st.integers(1, 40),
    kinds,
    st.integers(0, 45),
    st.sampled_from([1, 200, 2 * KB, 2**30]),
    st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_agrees_with_measuring_again_after_every_removal(seed, n, kind, keep, memory, eight_bit):
    sketches = sketches_of(seed, n, kind)
    pruned = prune_redundant(sketches, keep, memory, eight_bit)
    gone, duplicate_of = prune_slowly(sketches, keep)
    assert pruned.positions.tolist() == gone
    assert pruned.duplicate_of.tolist() == duplicate_of


@given(st.integers(0, 100), kinds, st.sampled_from([700, KB, 2 * KB]), st.booleans())
@settings(max_examples=10, deadline=None)
def test_any_memory_gives_the_same(seed, kind, memory, eight_bit):
    sketches = sketches_of(seed, 60, kind)
    whole, parts = prune_redundant(sketches, 25), prune_redundant(sketches, 25, memory, eight_bit)
    assert np.array_equal(whole.positions, parts.positions)
    assert np.array_equal(whole.duplicate_of, parts.duplicate_of)
    assert np.array_equal(whole.similarity, parts.similarity)


def in_groups(n, dim, groups, noise, seed=3):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim))
    return (centres[rng.integers(0, groups, n)] + noise * rng.normal(size=(n, dim))).astype(np.float16)


@pytest.mark.parametrize("keep", [1, 300, 795])
@pytest.mark.parametrize("noise", [0.02, 0.4, 3.0])
def test_several_tiles_agree_with_the_definition(keep, noise):
    sketches = in_groups(800, 48, 40, noise)
    pruned = [
        prune_redundant(sketches, keep, memory, eight_bit)
        for memory, eight_bit in ((2**30, True), (2**30, False), (64 * KB, True), (100 * KB, False))
    ]
    gone, duplicate_of = prune_with_a_table(sketches, keep)
    for found in pruned:
        assert np.array_equal(found.positions, gone)
        assert np.array_equal(found.duplicate_of, duplicate_of)


def prune_with_a_table(sketches, keep):
    """As `prune_slowly`, fast enough for more than a thousand samples: redundancies stand in an array."""
    grid, table = to_grid(sketches), cosines_slowly(sketches)
    n = len(sketches)
    table[np.triu_indices(n)] = -np.inf
    kept = np.ones(n, dtype=bool)
    top = table.argmax(axis=1)
    redundancy = np.round(table[np.arange(n), top].astype(np.float64) * grid.inverse_norms, 4)
    redundancy[0] = -np.inf
    for _ in range(n - keep):
        x = n - 1 - int(np.where(kept, redundancy, -np.inf)[::-1].argmax())
        kept[x] = False
        table[:, x] = -np.inf
        for z in np.flatnonzero(kept & (top == x)):
            if z:
                top[z] = table[z].argmax()
                redundancy[z] = np.round(float(table[z, top[z]]) * float(grid.inverse_norms[z]), 4)
    gone = np.flatnonzero(~kept)
    return gone, table[gone].argmax(axis=1)


def test_copies_go_before_anything_else_and_the_first_of_them_stays():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(20, 64))
    sketches = np.concatenate([base, base[::-1]]).astype(np.float16)
    pruned = prune_redundant(sketches, 20)
    assert pruned.positions.tolist() == list(range(20, 40))
    assert pruned.duplicate_of.tolist() == list(range(19, -1, -1))
    assert np.allclose(pruned.similarity, 1)


def test_duplicate_of_is_kept_and_similarity_is_the_true_cosine():
    sketches = np.random.default_rng(1).normal(size=(80, 10))
    pruned = prune_redundant(sketches, 30)
    assert not set(pruned.duplicate_of) & set(pruned.positions)
    unit = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    assert np.allclose(pruned.similarity, (unit[pruned.positions] * unit[pruned.duplicate_of]).sum(axis=1))


def test_a_sample_whose_likeness_went_is_measured_against_what_stays():
    # c is like b, b is like a. Once b is gone, c is like nothing that stays, and d, like a, is more redundant.
    def at(degrees):
        return [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]

    sketches = np.array([at(0), at(20), at(42), at(-30)])
    assert prune_redundant(sketches, 2).positions.tolist() == [1, 3]


@pytest.mark.parametrize("keep", [5, 6, 100])
def test_nothing_goes_when_all_fit(keep):
    assert len(prune_redundant(np.eye(5), keep).positions) == 0


def test_a_budget_of_none_keeps_none():
    pruned = prune_redundant(np.eye(3), 0)
    assert pruned.positions.tolist() == [0, 1, 2]
    assert pruned.duplicate_of.tolist() == [-1, -1, -1]
    assert np.isnan(pruned.similarity).all()


def test_zero_sketches_are_redundant_to_nothing():
    sketches = np.array([[0.0, 0], [1, 0], [0, 0], [1, 0.1]])
    pruned = prune_redundant(sketches, 3)
    assert pruned.positions.tolist() == [3]


def test_five_thousand_samples_need_no_square_of_memory():
    rng = np.random.default_rng(0)
    sketches = rng.normal(size=(5000, 64)).astype(np.float16)
    tracemalloc.start()
    start = time.process_time()
    pruned = prune_redundant(sketches, 4000)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pruned.positions) == 1000
    assert peak < 30e6  # a square of float32 would be 100 MB
    assert seconds < 5
