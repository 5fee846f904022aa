"""Array types of the selection, and cosines that come out the same for every block size, thread count and BLAS.

A matrix product in floating point depends, in its last bits, on the shape of its blocks; a tie decided by those bits
makes two runs differ. Here unit vectors are first rounded to a grid of whole numbers (steps of about 1/4070 at 2048
dimensions). Then every product and partial sum is a whole number below 2^24, which float32 holds exactly, so the order
of summation no longer matters, at the speed of an ordinary float32 product. The cost: a cosine is off by about 1e-4
(standard deviation), far less than the sketches' own noise of about 2e-2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_EXACT = 1 << 24  # float32 holds every whole number up to here


@dataclass(frozen=True)
class Grid:
    """Unit vectors as whole numbers.

    Attributes:
        rows: (n, d) float32, whole numbers.
        inverse_norms: (n,) float32, 1 / |row|; 0 for a zero row, whose cosine with anything is 0.
    """

    rows: Float32Array
    inverse_norms: Float32Array

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[Any] | slice) -> Grid:
        return Grid(self.rows[index], self.inverse_norms[index])


def to_grid(vectors: NDArray[Any], chunk: int = 256) -> Grid:
    """Round the directions of `vectors` to the grid on which cosines are exact.

    Args:
        vectors: (n, d) any float type; rows need not be normalised. d < 16 million.
        chunk: rows held in float64 at a time, few enough for a core's cache; the result does not depend on it.

    The grid has S steps per unit with (S + sqrt(d) / 2)^2 <= 2^24: by Cauchy-Schwarz no partial sum of a product of two
    rounded unit vectors is then larger.
    """
    n, dim = vectors.shape
    steps = int(math.sqrt(_EXACT)) - math.ceil(math.sqrt(dim) / 2)
    rows = np.empty((n, dim), dtype=np.float32)
    inverse = np.zeros(n, dtype=np.float32)
    for start in range(0, n, chunk):
        part = vectors[start : start + chunk].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]
        np.divide(part, norms, out=part, where=norms > 0)
        part *= steps
        np.rint(part, out=part)
        rows[start : start + chunk] = part
        squares = np.einsum("ij,ij->i", part, part)
        np.divide(1.0, np.sqrt(squares), out=inverse[start : start + chunk], where=squares > 0, casting="unsafe")
    return Grid(rows, inverse)


def column_scaled_cosines(left: Grid, right: Grid) -> Float32Array:
    """(n_left, n_right) cosines times the left row's norm: the order within a row is that of the cosines.

    Multiply what is kept of a row by `left.inverse_norms` to get cosines; that saves a pass over the whole block.
    """
    block = left.rows @ right.rows.T
    block *= right.inverse_norms
    return block


@dataclass(frozen=True)
class TopColumns:
    """The largest values of every row of a matrix that is seen block by block, from left to right; the first of equals.

    Attributes:
        values: (n, r) float32, descending; -inf where a row has had fewer than r finite values.
        columns: (n, r) their columns; -1 there.
    """

    values: Float32Array
    columns: IntArray

    @classmethod
    def empty(cls, rows: int, r: int) -> TopColumns:
        return cls(np.full((rows, r), -np.inf, dtype=np.float32), np.full((rows, r), -1, dtype=np.int64))

    def take(self, at: slice) -> TopColumns:
        """Some of the rows, not a copy of them."""
        return TopColumns(self.values[at], self.columns[at])

    def merge(self, block: Float32Array, columns: IntArray) -> None:
        """Take in `columns`, which rise and lie right of all those before; `block` is used up."""
        r = self.values.shape[1]
        every = np.arange(len(block))
        for _ in range(min(r, block.shape[1])):
            column = block.argmax(axis=1)
            value = block[every, column]
            rows = np.flatnonzero(value > self.values[:, -1])
            if len(rows) == 0:
                return
            self._insert(rows, value[rows], columns[column[rows]])
            if r > 1:
                block[every, column] = -np.inf

    def merge_pairs(self, rows: IntArray, columns: IntArray, values: Float32Array) -> None:
        """Take in single values; `rows` rise, and within a row `columns` rise and lie right of all those before."""
        r = self.values.shape[1]
        better = values > self.values[rows, -1]
        where, number = np.unique(rows[better], return_inverse=True)
        owner = np.concatenate((np.repeat(np.arange(len(where)), r), number))
        value = np.concatenate((self.values[where].ravel(), values[better]))
        column = np.concatenate((self.columns[where].ravel(), columns[better]))
        order = np.lexsort((np.arange(len(owner)), -value, owner))  # of equals the first; what was there comes first
        sizes = np.bincount(owner, minlength=len(where))
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = order[rank < r]
        self.values[where] = value[first].reshape(-1, r)
        self.columns[where] = column[first].reshape(-1, r)

    def _insert(self, rows: IntArray, value: Float32Array, column: IntArray) -> None:
        """Put one value into each of `rows`, behind those that are as large and came before; the last falls out."""
        values = np.concatenate((self.values[rows], value[:, None]), axis=1)
        columns = np.concatenate((self.columns[rows], column[:, None]), axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :-1]
        self.values[rows] = np.take_along_axis(values, order, axis=1)
        self.columns[rows] = np.take_along_axis(columns, order, axis=1)
