"""Splitting a count over clusters or strata by water-filling: what one cannot use of its share goes to the others.

The level of the water is found in one sort, so a million strata cost what sorting them costs. The sum is always exact;
the few units that whole numbers leave over go out one each in a stated order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adapt_inf.selection.arrays import FloatArray, IntArray

Split = Literal["equal", "proportional", "density", "loss"]


def resolve_budget(budget: int | float, candidates: int) -> int:
    """`select.budget` as a count: a whole number is one already, a float is a fraction, rounded down but never to 0.

    Returns:
        A count of at most `candidates`.

    Raises:
        ValueError: a negative budget or a fraction above 1.
    """
    if budget < 0 or (isinstance(budget, float) and budget > 1):
        raise ValueError(f"a budget is a count (a whole number) or a fraction up to 1.0, not {budget!r}")
    if isinstance(budget, float):
        # 1e-9 undoes binary fractions: 0.3 * 10 must be 3, not 2.
        count = max(1, math.floor(budget * candidates + 1e-9)) if budget > 0 else 0
        return min(count, candidates)
    return min(budget, candidates)


def water_fill(
    capacities: ArrayLike,
    total: int,
    weights: ArrayLike | None = None,
    order: Sequence[int] | NDArray[Any] | None = None,
) -> IntArray:
    """Shares min(capacity_i, level * weight_i), with the level that makes them sum to `total`, in whole numbers.

    Args:
        capacities: (k,) whole numbers >= 0, the most that each can take.
        total: what to split.
        weights: (k,) positive relative shares; equal when left out.
        order: (k,) a permutation of 0..k-1, who gets a left-over unit first (with weights: first among equal
            fractions); by index when left out.

    Returns:
        (k,) whole numbers that sum to exactly min(total, sum of capacities), none above its capacity.

    Raises:
        ValueError: a negative capacity or total, or a weight that is not positive and finite.
    """
    caps = np.asarray(capacities, dtype=np.int64)
    k = len(caps)
    if total < 0 or (caps < 0).any():
        raise ValueError("capacities and the total must not be negative")
    total = min(int(total), int(caps.sum()))
    first_to_last = np.arange(k) if order is None else np.asarray(order, dtype=np.int64)
    if weights is None:
        return fill_rows(caps[None], np.array([total]), first_to_last[None])[0]
    factor = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(factor).all() and (factor > 0).all()):
        raise ValueError("weights must be positive and finite")
    shares, fractions = _weighted_floor(caps, total, factor)
    places = np.empty(k, dtype=np.int64)
    places[first_to_last] = np.arange(k)
    left = total - int(shares.sum())
    while left > 0:  # once, but for floating-point rounding of a weighted level
        room = np.flatnonzero(shares < caps)
        first = room[np.lexsort((places[room], -fractions[room]))][:left]
        shares[first] += 1
        left -= len(first)
    return shares


def fill_rows(capacities: IntArray, totals: IntArray, orders: IntArray) -> IntArray:
    """Equal shares, each row on its own, in whole-number arithmetic: `water_fill` without weights, m times at once.

    Args:
        capacities: (m, k) whole numbers >= 0.
        totals: (m,) what to split in each row, none above the sum of its capacities.
        orders: (m, k) permutations of 0..k-1.

    Returns:
        (m, k) whole numbers; row i sums to totals[i].
    """
    k = capacities.shape[1]
    if k == 0:
        return capacities.copy()
    ascending = np.sort(capacities, axis=1)
    # below[i]: what is spent when the i smallest are full; the rest share what is left.
    below = np.cumsum(ascending, axis=1) - ascending
    fits = below + ascending * (k - np.arange(k)) <= totals[:, None]  # the i-th can be filled with all at its level
    full = np.minimum(fits.sum(axis=1), k - 1)  # where the last one fits, its level is just that which fills it
    spent = np.take_along_axis(below, full[:, None], axis=1)[:, 0]
    shares = np.minimum(capacities, ((totals - spent) // (k - full))[:, None])
    # What cannot be divided goes to the first that have room.
    room = np.take_along_axis(capacities > shares, orders, axis=1)
    gets = room & (np.cumsum(room, axis=1) <= (totals - shares.sum(axis=1))[:, None])
    np.put_along_axis(shares, orders, np.take_along_axis(shares, orders, axis=1) + gets, axis=1)
    return shares


def _weighted_floor(caps: IntArray, total: int, weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Weighted shares rounded down, and the fractions lost by it (0 where a share is full)."""
    k = len(caps)
    order = np.argsort(caps / weights, kind="stable")
    below = np.concatenate(([0.0], np.cumsum(caps[order], dtype=np.float64)))
    weight_left = np.concatenate((np.cumsum(weights[order][::-1])[::-1], [0.0]))
    fits = below[:-1] + (caps / weights)[order] * weight_left[:-1] <= total
    full = k if fits.all() else int(np.argmin(fits))
    if full == k:
        return caps.copy(), np.zeros(k)
    level = (total - below[full]) / weight_left[full]
    exact = np.minimum(caps, level * weights)
    shares = np.floor(exact).astype(np.int64)
    return shares, exact - shares


def cluster_budgets(
    sizes: ArrayLike,
    total: int,
    split: Split = "equal",
    min_cluster: int = 0,
    factors: ArrayLike | None = None,
) -> IntArray:
    """How many samples each cluster may give, summing to exactly min(total, sum of sizes).

    `equal`: the same for every cluster, as far as it has them. `proportional`: by size. `density`: by size times how
    widely it is spread, so a dense cluster, whose samples say the same, gives fewer. `loss`: by size times mean loss,
    so what the model knows and has not forgotten gives fewer. Whatever the split, a cluster under `min_cluster` first
    gets its equal share, all of it unless the budget is short: none of the others may starve a rare skill.

    Args:
        sizes: (k,) samples per cluster.
        total: the budget.
        factors: (k,) >= 0, what the size is multiplied by: for `density` the mean of 1 - cosine to the centroid, for
            `loss` the mean nll of the answers. The others have none.

    Raises:
        ValueError: no factors for a split that needs them.

    Left-over units go to larger clusters first, then by number.
    """
    caps = np.asarray(sizes, dtype=np.int64)
    order = np.argsort(-caps, kind="stable")
    equal = water_fill(caps, total, order=order)
    if split == "equal":
        return equal
    small = caps < min_cluster
    shares = np.where(small, equal, 0)
    rest = np.flatnonzero(~small & (caps > 0))
    weights = caps[rest].astype(np.float64)
    if split != "proportional":
        if factors is None:
            raise ValueError(f"the {split} split needs a factor for each cluster")
        # 1e-3 is above the rounding of a cosine: a cluster of identical samples has no spread, but some share.
        weights = weights * np.maximum(np.asarray(factors, dtype=np.float64)[rest], 1e-3)
    places = np.empty(len(caps), dtype=np.int64)
    places[order] = np.arange(len(caps))
    shares[rest] = water_fill(caps[rest], total - int(shares.sum()), weights, np.argsort(places[rest]))
    if int(shares.sum()) < min(total, int(caps.sum())):  # the large are full: what is left goes to the small again
        shares += water_fill(caps - shares, min(total, int(caps.sum())) - int(shares.sum()), order=order)
    return shares
