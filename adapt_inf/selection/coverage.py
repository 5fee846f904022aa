"""Coverage-centric sampling: an equal share from every level of difficulty in a cluster, exactly as many as asked for.

Zheng et al. 2023 (arXiv 2210.15809), with what the released code of Adapt-infinity misses: the budget is met exactly,
the tails are used last instead of lost, and ties need no luck. Without a sort of the scores (two order statistics and
one radix sort of stratum numbers): about 10 ms for 100,000 samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import FloatArray, IntArray
from adapt_inf.selection.budgets import water_fill

LOW_TAIL = -1
HIGH_TAIL = -2
UNSTRATIFIED = -3  # drawn uniformly, with no score


@dataclass(frozen=True)
class Draw:
    """What was drawn.

    Attributes:
        positions: (m,) ascending.
        strata: (m,) 0..strata-1 by rising score, `strata` without a score, LOW_TAIL, HIGH_TAIL, or UNSTRATIFIED.
    """

    positions: IntArray
    strata: NDArray[np.int32]


def stratify(values: FloatArray, strata: int = 50, tail: float = 0.05) -> NDArray[np.int32]:
    """The stratum of every sample.

    On each side the outer floor(tail * n) samples are the tails; between the innermost values of the rest lie `strata`
    strata of equal width. Samples with equal scores are never torn apart: a tail is smaller where its boundary value
    repeats, and a constant score has no tails and one stratum. Samples without a score (nan or infinite) are stratum
    `strata`.

    Args:
        values: (n,) scores.

    Returns:
        (n,) LOW_TAIL, HIGH_TAIL or 0..strata.
    """
    finite = np.isfinite(values)
    whole = bool(finite.all())
    known = values if whole else values[finite]
    n = len(known)
    if n == 0:
        return np.full(len(values), strata, dtype=np.int32)
    out = int(tail * n + 1e-9)  # 1e-9: 0.07 * 100 is 7
    inner = np.partition(known, (out, n - 1 - out))
    low, high = inner[out], inner[n - 1 - out]
    # Halves keep the width finite for any two finite scores.
    width = high / 2 - low / 2
    inside = np.zeros(n, dtype=np.int32)
    if width > 0:
        place = np.minimum(np.maximum(known, low), high)
        place /= 2
        place -= low / 2
        place /= width
        place *= strata
        inside = np.minimum(place.astype(np.int32), strata - 1)
    inside[known < low] = LOW_TAIL
    inside[known > high] = HIGH_TAIL
    if whole:
        return inside
    codes = np.full(len(values), strata, dtype=np.int32)
    codes[finite] = inside
    return codes


def coverage_sample(
    values: FloatArray, budget: int, rng: np.random.Generator, strata: int = 50, tail: float = 0.05
) -> Draw:
    """Draw exactly min(budget, n) samples: equal shares from the strata, uniformly and without replacement inside each.

    A stratum with too few hands its share on to the others (water-filling); units that cannot be divided go to strata
    drawn at random, so that a small budget does not gather at one end. The tails come last, in equal parts.

    Args:
        values: (n,) the selector's score; nan where a sample has none.
        budget: how many.
        rng: the draws use this generator and nothing else.
        strata, tail: see `stratify`.
    """
    n = len(values)
    budget = min(budget, n)
    codes = stratify(values, strata, tail)
    groups = codes + 2  # high tail 0, low tail 1, strata from 2, without a score last
    sizes = np.bincount(groups, minlength=strata + 3)
    shares = np.zeros(strata + 3, dtype=np.int64)
    shares[2:] = water_fill(sizes[2:], budget, order=rng.permutation(strata + 1))
    left = budget - int(shares.sum())
    if left:
        shares[:2] = water_fill(sizes[:2], left, order=rng.permutation(2))
    positions = _draw(groups, sizes, shares, rng)
    return Draw(positions, codes[positions])


def _draw(groups: NDArray[np.int32], sizes: IntArray, shares: IntArray, rng: np.random.Generator) -> IntArray:
    """The first `shares[g]` members of every group g in a random order of everything; ascending positions."""
    shuffled = rng.permutation(len(groups))
    # A stable sort of 16 bits is a radix sort.
    keys = groups.astype(np.int16)[shuffled] if len(sizes) < 2**15 else groups[shuffled]
    by_group = np.argsort(keys, kind="stable")
    starts = np.cumsum(sizes) - sizes
    # Places first_g .. first_g + shares_g of every group, written out.
    ends = np.cumsum(shares)
    taken = np.arange(int(ends[-1])) + np.repeat(starts - (ends - shares), shares)
    chosen = np.zeros(len(groups), dtype=bool)
    chosen[shuffled[by_group[taken]]] = True
    return np.flatnonzero(chosen)


def uniform_sample(n: int, budget: int, rng: np.random.Generator) -> Draw:
    """min(budget, n) of n positions, uniformly and without replacement."""
    positions = np.sort(rng.permutation(n)[:budget])
    return Draw(positions, np.full(len(positions), UNSTRATIFIED, dtype=np.int32))
