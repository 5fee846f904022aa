"""Permanent pruning inside one cluster: what is most like a sample that stays goes first, until the budget is met.

Samples stand in a fixed order (selected this round first, then by id). The redundancy of x is its highest cosine
similarity to a sample before it that is still kept; in each step the most redundant sample goes. When y goes, only
those samples lose redundancy whose most similar earlier sample was y, and what is known of them remains an upper bound:
they are measured again, many at a time, only when they come to the top. Cost: n^2 d multiply-adds for the first pass,
about as much again in the worst of the usual cases; memory O(n d + block^2), never n^2.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import (
    BoolArray,
    FloatArray,
    Grid,
    IntArray,
    TopColumns,
    column_scaled_cosines,
    most_similar,
    to_grid,
)

# Redundancies that agree to four decimals are equal: the grid of `to_grid` resolves no more. Of equals the later one
# goes.
DECIMALS = 4
_SOURCES = 8  # earlier samples remembered of each: most samples then need no second measurement
_AGAIN = 256  # samples measured again at once: enough rows for a fast product, few enough to waste little
_TILE = 512  # rows and columns of a block at which it stays in a core's cache


@dataclass(frozen=True)
class Pruned:
    """What goes, by position in the fixed order.

    Attributes:
        positions: (m,) ascending.
        duplicate_of: (m,) the kept sample that each is most similar to, the earliest of equals; -1 where none is kept.
        similarity: (m,) cosine to it; nan where none is kept.
    """

    positions: IntArray
    duplicate_of: IntArray
    similarity: FloatArray


def prune_redundant(sketches: NDArray[Any], keep: int, block: int = 4096) -> Pruned:
    """Choose what goes from one cluster so that exactly min(keep, n) samples stay.

    The first sample of the order stays whenever any does. The result does not depend on `block`.

    Args:
        sketches: (n, d) in the fixed order; directions count, lengths do not.
        keep: how many stay.
        block: most rows and columns of one block of similarities.
    """
    n = len(sketches)
    if keep >= n:
        return Pruned(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if keep == 0:
        return Pruned(np.arange(n), np.full(n, -1), np.full(n, np.nan))
    block = min(block, _TILE)
    grid = to_grid(sketches)
    kept = _remove(grid, n - keep, block)
    stays, goes = np.flatnonzero(kept), np.flatnonzero(~kept)
    duplicate_of = stays[most_similar(grid.take(goes), grid.take(stays), block)]
    return Pruned(goes, duplicate_of, _cosines(sketches, goes, duplicate_of))


def _remove(grid: Grid, count: int, block: int) -> BoolArray:
    """Which samples stay after `count` removals, each of the most redundant sample at that moment.

    A sample's redundancy is known as long as one of the earlier samples that it is most similar to is kept.
    """
    n = len(grid)
    kept = np.ones(n, dtype=bool)
    values, sources = _measure(grid, np.arange(n), kept, block)
    current = values[:, 0].copy()
    # Nothing stands before the first sample: it goes last, so it is never in the heap.
    heap = [(-value, -position) for position, value in enumerate(current.tolist()) if position]
    heapq.heapify(heap)
    while count:
        value, negative = heap[0]
        position = -negative
        if not kept[position] or -value != current[position]:
            heapq.heappop(heap)  # gone, or in the heap again with a smaller value
            continue
        alive = np.flatnonzero(kept[sources[position]])
        if len(alive) == 0:
            lost = np.flatnonzero(kept & ~kept[sources].any(axis=1))
            lost = np.sort(lost[np.lexsort((-lost, -current[lost]))[:_AGAIN]])
            values[lost], sources[lost] = _measure(grid, lost, kept, block)
            changed = lost
        elif -value == values[position, alive[0]]:
            heapq.heappop(heap)
            kept[position] = False
            count -= 1
            continue
        else:
            values[position, 0] = values[position, alive[0]]
            sources[position, 0] = sources[position, alive[0]]
            changed = np.array([position])
        current[changed] = values[changed, 0]
        for again in changed.tolist():
            heapq.heappush(heap, (-float(current[again]), -again))
    return kept


def _measure(grid: Grid, rows: IntArray, kept: BoolArray, block: int) -> tuple[FloatArray, IntArray]:
    """Redundancy of `rows` against what is kept: the _SOURCES largest cosines to kept samples before each.

    Args:
        rows: (m,) ascending positions.

    Returns:
        (m, _SOURCES) rounded cosines, descending, and where they come from. A row with fewer kept samples before it
        repeats its first, the first sample of all has -inf and itself.
    """
    values = np.empty((len(rows), _SOURCES))
    sources = np.empty((len(rows), _SOURCES), dtype=np.int64)
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        left = grid.take(part)
        top = TopColumns.empty(len(part), _SOURCES)
        for begin in range(0, int(part[-1]), block):
            stop = min(begin + block, int(part[-1]))
            cosines = column_scaled_cosines(left, grid.take(slice(begin, stop)))
            cosines[:, ~kept[begin:stop]] = -np.inf
            if stop > part[0]:
                cosines[np.arange(begin, stop)[None, :] >= part[:, None]] = -np.inf
            top.merge(cosines, begin)
        none = top.columns < 0
        scaled = np.where(none, 0, top.values).astype(np.float64) * left.inverse_norms[:, None]
        scaled = np.round(scaled, DECIMALS)
        values[start : start + block] = np.where(none, scaled[:, :1], scaled)
        sources[start : start + block] = np.where(none, top.columns[:, :1], top.columns)
    if len(rows) and rows[0] == 0:
        values[0], sources[0] = -np.inf, 0
    return values, sources


def _cosines(sketches: NDArray[Any], left: IntArray, right: IntArray, chunk: int = 4096) -> FloatArray:
    """Cosines of pairs of rows, in float64 from the sketches themselves; 0 where a row is zero."""
    cosines = np.zeros(len(left))
    for start in range(0, len(left), chunk):
        a = sketches[left[start : start + chunk]].astype(np.float64)
        b = sketches[right[start : start + chunk]].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        dots = np.einsum("ij,ij->i", a, b)
        np.divide(dots, norms, out=cosines[start : start + chunk], where=norms > 0)
    return np.clip(cosines, -1.0, 1.0)
