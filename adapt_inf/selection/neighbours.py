"""The most similar earlier samples of each sample, exactly, at the speed of 8-bit products where a processor has them.

A first product of rows in 8 bits bounds every cosine from above: with u = s c + e (c the codes, s their step, e what
rounding left), u v <= s s' c c' + |e| + |e'| + |e| |e'|. Only pairs whose bound reaches what is already known of a row,
or the floor below which nobody asks, are multiplied on the grid of `arrays`, where products are exact. So the result is
that of the grid, whatever the processor; 8 bits are about four times as fast as float32 (430 against 95 Gop/s on a core
of a Zen 4). Where nearly every pair is a near-copy the bound excludes little: such tiles are multiplied in float32.

Memory is three parts of the rows at three bytes a number (those that look, those looked at, and of these those that may
be found) and a few tiles, never n^2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapt_inf.selection.arrays import BoolArray, Float32Array, Grid, IntArray, TopColumns, to_grid
from adapt_inf.selection.blocks import Rows, cores, on_every_core, rows_within, spans

_ROWS, _COLUMNS = 512, 2048  # of a tile: a few MB, large enough for Python's share to be small
_DENSE = 1 / 64  # with more pairs of a tile than this to measure, all of it in float32 is faster
_LEAST = 64  # rows of a tile below which a thread of its own gains nothing
_PENDING = 4096  # pairs that wait to be measured together
_SLACK = 1e-5  # above every rounding in a bound
_CHUNK = 4096  # rows read at a time, where memory allows
_CACHED = 256  # rows encoded at a time: they stay in a core's cache


@dataclass(frozen=True)
class Coded:
    """Rows ready to be multiplied.

    Attributes:
        grid: (m, d) int16, whole numbers of `arrays.to_grid`.
        inverse_norms: (m,) float32, 1 / |grid row|, 0 for zeros.
        codes: (m, d) int8, of the unit row; empty (m, 0) where products are in float32.
        steps: (m,) float32, the unit row's value of one code.
        errors: (m,) float32, the L2 norm of what the codes leave out of the unit row.
    """

    grid: NDArray[np.int16]
    inverse_norms: Float32Array
    codes: NDArray[np.int8]
    steps: Float32Array
    errors: Float32Array

    @classmethod
    def empty(cls, rows: int, dim: int, eight_bit: bool) -> Coded:
        vectors = [np.empty(rows, dtype=np.float32) for _ in range(3)]
        # torch 2.13 leaves the product of single columns unset: with one number a row there is nothing to gain anyway.
        codes = np.empty((rows, dim if eight_bit and dim > 1 else 0), dtype=np.int8)
        return cls(np.empty((rows, dim), dtype=np.int16), vectors[0], codes, vectors[1], vectors[2])

    def __len__(self) -> int:
        return len(self.grid)

    def take(self, index: IntArray | slice) -> Coded:
        return Coded(*(array[index] for array in vars(self).values()))

    def fill(self, at: slice, vectors: NDArray[Any]) -> None:
        """Encode `vectors` into the rows `at`."""
        for part in spans(len(vectors), _CACHED):
            self.take(slice(at.start + part.start, at.start + part.stop))._fill(to_grid(vectors[part]))

    def _fill(self, exact: Grid) -> None:
        self.grid[:] = exact.rows
        self.inverse_norms[:] = exact.inverse_norms
        if self.codes.shape[1]:
            rows = exact.rows
            step = np.maximum(np.maximum(rows.max(axis=1), -rows.min(axis=1)) / 127, np.float32(1e-30))
            codes = rows / step[:, None]
            np.rint(codes, out=codes)
            self.codes[:] = codes
            codes *= step[:, None]
            rows -= codes
            self.steps[:] = step * exact.inverse_norms
            self.errors[:] = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * exact.inverse_norms


@cache
def eight_bit_pays() -> bool:
    """Whether this processor multiplies 8-bit numbers without error, and faster than float32.

    Without VNNI or AMX, sums of two products may be cut off at 16 bits: rows of extremes would show it. Which way is
    taken changes the time alone.
    """
    ones = torch.full((64, 512), 127, dtype=torch.int8)
    extremes = torch.cat([ones, -ones])
    if not torch.equal(torch._int_mm(extremes, extremes.T).double(), extremes.double() @ extremes.double().T):
        return False

    def seconds(product: Callable[[], object]) -> float:
        times = []
        for _ in repeat(None, 3):
            start = time.perf_counter()
            product()
            times.append(time.perf_counter() - start)
        return min(times)

    real = extremes.float()
    return seconds(lambda: torch._int_mm(extremes, extremes.T)) < seconds(lambda: real @ real.T)


class Parts:
    """Encoded rows of a cluster, in as few parts as memory allows; with one, everything is encoded once.

    Args:
        rows: the n samples, in their fixed order.
        memory: bytes for three parts and the encoding of more.
        eight_bit: whether to make 8-bit codes; where it pays when left out.
    """

    def __init__(self, rows: Rows, memory: int, eight_bit: bool | None = None) -> None:
        self.rows = rows
        self.eight_bit = eight_bit_pays() if eight_bit is None else eight_bit
        dim = rows.dim
        most, row_bytes, share = max(len(rows), 1), 3 * dim + 12, memory * 3 // 8  # the rest is for what is in work
        # All rows in one part are also those that look, so that two are the most there ever are.
        whole = rows_within(share // 2, row_bytes, most) == most
        self.size = most if whole else rows_within(share // 3, row_bytes, most)
        self._chunk = rows_within(memory // 2 // cores(), 20 * dim, _CHUNK)
        self._last: tuple[int, Coded] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, number: int) -> Coded:
        """Rows number * size onwards, at most `size` of them."""
        if self._last is None or self._last[0] != number:
            self._last = None  # before the next is made
            start = number * self.size
            self._last = number, self._encode(np.arange(start, min(start + self.size, len(self))))
        return self._last[1]

    def take(self, positions: IntArray) -> Coded:
        """Any rows, at most `size` of them."""
        if self.size >= len(self):
            whole = self.part(0)
            return whole if len(positions) == len(self) else whole.take(positions)
        return self._encode(positions)

    def _encode(self, positions: IntArray) -> Coded:
        coded = Coded.empty(len(positions), self.rows.dim, self.eight_bit)
        on_every_core(lambda at: coded.fill(at, self.rows.take(positions[at])), spans(len(positions), self._chunk))
        return coded


def most_similar_before(
    parts: Parts, positions: IntArray, allowed: BoolArray, count: int, floor: float = -2.0
) -> tuple[Float32Array, NDArray[np.int32]]:
    """The `count` most similar allowed samples before each of `positions`, of those with a cosine above `floor`.

    Args:
        parts: n samples.
        positions: (m,) ascending.
        allowed: (n,) which samples may be found.
        floor: cosines of at most this are of no interest.

    Returns:
        (m, count) cosines, descending, and (m, count) positions of the samples, the first of equals; -1 where there are
        no more.
    """
    cosines = np.empty((len(positions), count), dtype=np.float32)
    found = np.empty((len(positions), count), dtype=np.int32)
    for chunk in spans(len(positions), parts.size):
        left = parts.take(positions[chunk])
        top = TopColumns.empty(len(left), count)
        top.values[:] = _over_norm(np.full(len(left), floor), left)[:, None]
        last = int(positions[chunk][-1])
        for number in range(last // parts.size + 1):
            right, start = parts.part(number), number * parts.size
            here = np.flatnonzero(allowed[start : start + len(right)])
            if len(here) < len(right):
                right = right.take(here)
            here += start
            tile = min(_ROWS, max(_LEAST, -(-len(left) // cores())))
            searches = [
                _Search(left.take(at), positions[chunk][at], top.take(at), right, here) for at in spans(len(left), tile)
            ]
            on_every_core(_Search.run, searches)
        cosines[chunk] = top.values * left.inverse_norms[:, None]
        found[chunk] = top.columns
    return cosines, found


def _over_norm(cosines: NDArray[np.floating], left: Coded) -> Float32Array:
    """Cosines times the grid row's norm: what `TopColumns` compares. A zero row's are as they are."""
    norms = np.divide(1.0, left.inverse_norms, out=np.ones(len(left)), where=left.inverse_norms > 0)
    return (cosines * norms).astype(np.float32)


class _Search:
    """One tile of rows against the columns that may be found in one part, from left to right.

    Args:
        left: at most _ROWS rows.
        positions: theirs, ascending.
        top: what is known of them; it is brought up to date.
        right: the columns.
        places: their positions, ascending.
    """

    def __init__(self, left: Coded, positions: IntArray, top: TopColumns, right: Coded, places: IntArray) -> None:
        self._left, self._positions, self._top = left, positions, top
        self._right, self._places = right, places
        self._pending: list[tuple[IntArray, IntArray]] = []
        self._waiting = 0

    def run(self) -> None:
        torch.set_num_threads(1)  # the other cores have tiles of their own
        end = int(np.searchsorted(self._places, self._positions[-1]))  # what stands before the last row
        shape = len(self._left), min(_COLUMNS, end)
        self._room = torch.empty(shape, dtype=torch.int32), torch.empty(shape), torch.empty(shape, dtype=torch.bool)
        dense = None if self._left.codes.shape[1] else self._left.grid.astype(np.float32)
        for at in spans(end, _COLUMNS):
            right = self._right.take(at)
            pairs = self._candidates(right, at) if dense is None else None
            if pairs is None:
                self._measure_pending()
                self._measure_tile(self._left.grid.astype(np.float32) if dense is None else dense, right, at)
            elif len(pairs[0]):
                self._pending.append(pairs)
                self._waiting += len(pairs[0])
                if self._waiting >= _PENDING:
                    self._measure_pending()
        self._measure_pending()
        del self._room

    def _candidates(self, right: Coded, at: slice) -> tuple[IntArray, IntArray] | None:
        """Pairs (row of left, row of the part) whose cosine may matter, in order; None: too many to take one by one."""
        left = self._left
        known = self._top.values[:, -1] * np.where(left.inverse_norms > 0, left.inverse_norms, 1)
        other = float(right.errors.max(initial=0.0))
        least = known - left.errors - other * (1 + left.errors) - _SLACK
        # A zero row's cosines are all 0.
        limit = np.where(least <= 0, -np.inf, np.inf).astype(np.float32)
        np.divide(least, left.steps, out=limit, where=left.steps > 0)
        shape = (len(left), len(right))
        products, bounds, reached = (room.view(-1)[: shape[0] * shape[1]].view(shape) for room in self._room)
        torch._int_mm(torch.from_numpy(left.codes), torch.from_numpy(right.codes).T, out=products)
        bounds.copy_(products).mul_(torch.from_numpy(right.steps))
        np.greater_equal(bounds.numpy(), limit[:, None], out=reached.numpy())
        flat = np.flatnonzero(reached.numpy())
        if len(flat) > _DENSE * shape[0] * shape[1]:
            return None
        row, column = np.divmod(flat, shape[1])
        # Again with the column's own error, not the largest of all.
        error = left.errors[row] + right.errors[column] * (1 + left.errors[row]) + _SLACK
        use = bounds.numpy().ravel()[flat] * left.steps[row] + error >= known[row]
        column += at.start
        use &= self._places[column] < self._positions[row]
        return row[use], column[use]

    def _measure_pending(self) -> None:
        """Exact cosines of the pairs that wait."""
        if not self._pending:
            return
        row, column = (np.concatenate(side) for side in zip(*self._pending, strict=True))
        self._pending, self._waiting = [], 0
        order = np.argsort(row, kind="stable")  # within a row, columns rise
        row, column = row[order], column[order]
        values = np.empty(len(row), dtype=np.float32)
        for part in spans(len(row), 1024):
            a = self._left.grid[row[part]].astype(np.float32)
            b = self._right.grid[column[part]].astype(np.float32)
            values[part] = np.einsum("ij,ij->i", a, b)
        values *= self._right.inverse_norms[column]
        self._top.merge_pairs(row, self._places[column], values)

    def _measure_tile(self, left: Float32Array, right: Coded, at: slice) -> None:
        """Exact cosines of a whole tile."""
        other = torch.from_numpy(right.grid).float()
        values = (torch.from_numpy(left) @ other.T).numpy()
        values *= right.inverse_norms
        place = self._places[at]
        if place[-1] >= self._positions[0]:
            values[place[None, :] >= self._positions[:, None]] = -np.inf
        self._top.merge(values, place)
