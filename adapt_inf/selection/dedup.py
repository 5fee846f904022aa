"""Permanent pruning inside one cluster: what is most like a sample that stays goes first, until the budget is met.

Samples stand in a fixed order (selected this round first, then by id). The redundancy of x is its highest cosine
similarity to a sample before it that is still kept; in each step the most redundant sample goes. As samples go,
redundancies only fall, so pairs less alike than the last to go never matter: a look at a few hundred rows says where
that floor should lie, one pass over all pairs (see `neighbours`) finds what lies above it, and if it lay too high, what
is left is measured again under a lower one. The outcome is that of the definition, whatever the floor, the memory and
the processor. Cost: n^2 d multiply-adds in 8 bits, and the few pairs above the floor in full.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import BoolArray, FloatArray, IntArray
from adapt_inf.selection.blocks import Rows, rows_within, spans
from adapt_inf.selection.neighbours import Parts, most_similar_before

# Redundancies that agree to four decimals are equal: the grid of `to_grid` resolves no more. Of equals the later one
# goes.
STEPS = 10_000
_SOURCES = 8  # earlier samples remembered of each: most samples then need no second measurement
_AGAIN = 256  # samples measured again at once: enough rows for a fast product, few enough to waste little
_LOOK = 256  # samples by which the floor is chosen
_NONE = -2 * STEPS  # below every redundancy


@dataclass(frozen=True)
class Pruned:
    """What goes, by position in the fixed order.

    Attributes:
        positions: (m,) ascending.
        duplicate_of: (m,) the most similar of the kept samples before each, the earliest of equals; -1 where none is
            kept.
        similarity: (m,) cosine to it; nan where none is kept.
    """

    positions: IntArray
    duplicate_of: IntArray
    similarity: FloatArray


def prune_redundant(rows: Rows, keep: int, memory: int = 2**30, eight_bit: bool | None = None) -> Pruned:
    """Choose what goes from one cluster so that exactly min(keep, n) samples stay.

    The first sample of the order stays whenever any does. Neither `memory` nor `eight_bit` changes the result.

    Args:
        rows: n samples in the fixed order; directions count, lengths do not.
        keep: how many stay.
        memory: bytes of working arrays, beyond some hundred for each sample.
        eight_bit: how products are bounded, see `neighbours`; as is faster when left out.
    """
    n = len(rows)
    if keep >= n:
        return Pruned(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if keep == 0:
        return Pruned(np.arange(n), np.full(n, -1), np.full(n, np.nan))
    cluster = _Cluster(Parts(rows, memory, eight_bit))
    cluster.remove(n - keep)
    goes = np.flatnonzero(~cluster.kept)
    duplicate_of = cluster.stands_for(goes)
    return Pruned(goes, duplicate_of, _cosines(rows, goes, duplicate_of, rows_within(memory // 4, 40 * rows.dim, 4096)))


class _Cluster:
    """Who is kept, and what is known of each sample's redundancy.

    Attributes:
        kept: (n,).
        steps: (n, _SOURCES) redundancy from each source in steps of 1e-4, descending; _NONE where there is none.
        sources: (n, _SOURCES) the most similar samples before each that were kept when it was measured; -1 where there
            are no more above the floor.
    """

    def __init__(self, parts: Parts) -> None:
        n = len(parts)
        self._parts = parts
        self.kept: BoolArray = np.ones(n, dtype=bool)
        self.steps = np.full((n, _SOURCES), _NONE, dtype=np.int16)
        self.sources = np.full((n, _SOURCES), -1, dtype=np.int32)

    def remove(self, count: int) -> None:
        """Remove `count` samples, each the most redundant one at that moment."""
        surplus = 1.25  # of samples that start above the floor: some fall below it as others go
        while count:
            rows = np.flatnonzero(self.kept)
            floor = self._floor(rows, surplus * count / len(rows) + 0.03)
            self._measure(rows, floor)
            count -= self._remove_above(floor, count)
            surplus *= 2

    def _floor(self, rows: IntArray, share: float) -> int:
        """The redundancy that about `share` of `rows` have at least; _NONE where that is nearly all."""
        if share > 0.9:
            return _NONE
        look = rows[np.arange(min(_LOOK, len(rows))) * len(rows) // min(_LOOK, len(rows))]
        cosines, _ = most_similar_before(self._parts, look, self.kept, 1)
        return int(np.sort(_in_steps(cosines[:, 0]))[::-1][int(share * len(look))])

    def _measure(self, rows: IntArray, floor: int) -> None:
        """Look again for the sources of `rows` (ascending), of those with a redundancy of at least `floor`."""
        least = (floor - 0.6) / STEPS  # a little below what rounds to the floor
        for part in spans(len(rows), self._parts.size):
            cosines, found = most_similar_before(self._parts, rows[part], self.kept, _SOURCES, least)
            self.sources[rows[part]] = found
            self.steps[rows[part]] = np.where(found < 0, _NONE, _in_steps(cosines))

    def _remove_above(self, floor: int, count: int) -> int:
        """Remove up to `count` samples with a redundancy of at least `floor`; how many there were."""
        current = self.steps[:, 0].copy()
        # Nothing stands before the first sample, so it has no source and never goes.
        above = np.flatnonzero(self.kept & (current >= max(floor, _NONE + 1)))
        heap = list(zip((-current[above].astype(np.int64)).tolist(), (-above).tolist(), strict=True))
        heapq.heapify(heap)
        removed = 0
        while removed < count and heap:
            known, position = -heap[0][0], -heap[0][1]
            if not self.kept[position] or known != current[position]:
                heapq.heappop(heap)  # gone, or in the heap again with less
                continue
            most, sure = self._redundancy(position)
            if most == known and sure:
                heapq.heappop(heap)
                self.kept[position] = False
                removed += 1
                continue
            if most == known:
                changed = self._lost(current)
                self._measure(changed, floor)
                current[changed] = self.steps[changed, 0]
            else:
                changed, current[position] = np.array([position]), most
            for again in changed.tolist():
                if current[again] >= max(floor, _NONE + 1):
                    heapq.heappush(heap, (-int(current[again]), -again))
        return removed

    def _redundancy(self, position: int) -> tuple[int, bool]:
        """What the first source that is kept says, and True: that is sure.

        Where more than _SOURCES were above the floor and those known all went: what the last of them said, since no
        other says more, and False.
        """
        steps, sources = self.steps[position].tolist(), self.sources[position].tolist()
        for step, source in zip(steps, sources, strict=True):
            if source < 0:
                return _NONE, True
            if self.kept[source]:
                return step, True
        return steps[-1], False

    def _lost(self, current: NDArray[np.int16]) -> IntArray:
        """The most redundant samples of which `_redundancy` is not sure any more, ascending."""
        lost = np.flatnonzero(self.kept & (self.sources[:, -1] >= 0) & ~self.kept[self.sources].any(axis=1))
        return np.sort(lost[np.lexsort((-lost, -current[lost]))[:_AGAIN]])

    def stands_for(self, gone: IntArray) -> IntArray:
        """The most similar kept sample before each of `gone`."""
        sources = self.sources[gone]
        stays = (sources >= 0) & self.kept[sources]
        found = sources[np.arange(len(gone)), stays.argmax(axis=1)].astype(np.int64)
        unknown = ~stays.any(axis=1)
        if unknown.any():
            found[unknown] = most_similar_before(self._parts, gone[unknown], self.kept, 1)[1][:, 0]
        return found


def _in_steps(cosines: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.rint(cosines.astype(np.float64) * STEPS).astype(np.int16)


def _cosines(rows: Rows, left: IntArray, right: IntArray, chunk: int) -> FloatArray:
    """Cosines of pairs of rows, in float64 from the samples themselves; 0 where a row is zero."""
    cosines = np.zeros(len(left))
    for part in spans(len(left), chunk):
        a: NDArray[Any] = rows.take(left[part]).astype(np.float64)
        b: NDArray[Any] = rows.take(right[part]).astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        dots = np.einsum("ij,ij->i", a, b)
        np.divide(dots, norms, out=cosines[part], where=norms > 0)
    return np.clip(cosines, -1.0, 1.0)
