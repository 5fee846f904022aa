"""Rows by the block: how many fit in the memory that a stage may use, and every core at work on its own block.

Blocks run on threads: what takes time inside one (matrix products, comparisons, FAISS) lets go of Python's lock, and
threads share the tables that a fork would copy. No result may depend on how rows are cut into blocks; that is what
`arrays` is for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import IntArray

T = TypeVar("T")
MB = 2**20


class Rows(Protocol):
    """Vectors that need not be in memory, such as `sketching.store.SketchStore`."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def take(self, rows: IntArray) -> NDArray[Any]:
        """`rows`, in that order: (len(rows), dim) of any float type."""
        ...


class ArrayRows:
    """An (n, d) array as `Rows`."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def dim(self) -> int:
        return int(self._array.shape[1])

    def __len__(self) -> int:
        return len(self._array)

    def take(self, rows: IntArray) -> NDArray[Any]:
        return self._array[rows]


class SomeRows:
    """`rows` of others, in that order, as `Rows`."""

    def __init__(self, source: Rows, rows: IntArray) -> None:
        self._source, self._rows = source, rows

    @property
    def dim(self) -> int:
        return self._source.dim

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: IntArray) -> NDArray[Any]:
        return self._source.take(self._rows[rows])


_most_cores: int | None = None


def limit_cores(count: int) -> None:
    """Let this process use at most `count` cores from now on: others like it have the rest."""
    global _most_cores
    _most_cores = count


def cores() -> int:
    """The cores that this process may use."""
    there = len(os.sched_getaffinity(0))
    return there if _most_cores is None else min(there, _most_cores)


def rows_within(memory: int, bytes_a_row: int, most: int) -> int:
    """Rows of a block that takes at most `memory` bytes: one at least, `most` at most."""
    return max(1, min(most, memory // bytes_a_row))


def spans(n: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover 0 .. n."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def on_every_core(work: Callable[[T], object], items: Iterable[T], threads: int | None = None) -> None:
    """Call `work` on each item, one thread a core; the first error is raised when those at work have ended.

    Args:
        work: must not depend on the order in which items are taken.
        items: one after the other.
        threads: how many; the cores of this process when left out.
    """
    items = list(items)
    threads = min(threads or cores(), len(items))
    if threads <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, item) for item in items]:
            try:
                done.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def half(rows: Rows, positions: IntArray, out: NDArray[np.float16], block: int) -> None:
    """Fill `out`, (len(positions), dim) float16, with rows; lossless where they come from a store of float16."""
    for part in spans(len(positions), block):
        out[part] = rows.take(positions[part])
