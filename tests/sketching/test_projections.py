"""CountSketch against a slow version written from its definition, and the properties that it is used for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt_inf.sketching.projections import CountSketch

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    value = state & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def slow_sketch(vector: list[float], dim: int, seed: int) -> list[float]:
    gamma = 0x9E3779B97F4A7C15
    key = splitmix(seed + gamma)
    out = [0.0] * dim
    for index, value in enumerate(vector):
        hashed = splitmix(key + (index + 1) * gamma)
        out[(hashed >> 32) % dim] += -value if hashed & 1 else value
    return out


@pytest.mark.parametrize(("dim", "seed"), [(16, 0), (7, 3), (64, 12345)])
def test_is_the_sum_of_signed_coordinates_in_python_integers(dim: int, seed: int) -> None:
    vectors = torch.randn(3, 200, generator=torch.Generator().manual_seed(seed))
    ours = CountSketch(200, dim, seed)(vectors)
    slow = [slow_sketch(row.tolist(), dim, seed) for row in vectors]
    np.testing.assert_allclose(ours.numpy(), slow, rtol=1e-5, atol=1e-5)


def test_blocks_in_any_split_give_the_whole() -> None:
    vectors = torch.randn(4, 1000, generator=torch.Generator().manual_seed(1))
    whole = CountSketch(1000, 64, 5)(vectors)
    sketch = CountSketch(1000, 64, 5, table_bytes=0)  # places hashed block by block, as for a wide layer
    accumulator = sketch.accumulator(4)
    for start, stop in [(700, 1000), (0, 1), (1, 700)]:
        sketch.add(accumulator, start, vectors[:, start:stop])
    torch.testing.assert_close(sketch.finish(accumulator), whole)


def test_places_and_signs_are_even() -> None:
    places = CountSketch(200_000, 100, 0).places(0, 200_000)
    counts = torch.bincount(places, minlength=200).float()
    assert len(counts) == 200
    # 1,000 expected in each, standard deviation 32: six of them would be a one in a million fault over 200 places
    assert (counts - 1000).abs().max() < 6 * 32
    # neighbours do not share a sign more often than chance: 200,000 draws, standard deviation .0011
    negative = places >= 100
    assert abs((negative[1:] == negative[:-1]).float().mean().item() - 0.5) < 0.006


def test_seeds_give_other_sketches_and_one_seed_the_same() -> None:
    vectors = torch.ones(1, 500)
    same = [CountSketch(500, 32, 9)(vectors) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], CountSketch(500, 32, 10)(vectors))


def test_keeps_cosines_of_vectors_that_are_sparse_and_skewed() -> None:
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(8, 20_000, generator=generator) ** 3
    vectors = centres.repeat(8, 1) + torch.randn(64, 20_000, generator=generator) * 3
    exact = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(vectors).T
    short = torch.nn.functional.normalize(CountSketch(20_000, 2048, 0)(vectors))
    error = (short @ short.T - exact).abs()
    # the standard deviation of a cosine is about sqrt((1 + cos^2) / dim), at most .031 at 2048
    assert error.max() < 5 * 0.031
    assert torch.corrcoef(torch.stack([exact.flatten(), (short @ short.T).flatten()]))[0, 1] > 0.99


def test_norm_is_unbiased_over_seeds() -> None:
    vector = torch.randn(1, 3000, generator=torch.Generator().manual_seed(3))
    squares = torch.stack([CountSketch(3000, 128, seed)(vector).square().sum() for seed in range(200)])
    # each has relative standard deviation sqrt(2 / 128) = .125; the mean of 200 has .009
    assert abs(squares.mean() / vector.square().sum() - 1) < 5 * 0.009
