"""How close samples are to queries: a few samples of every skill, which stand for what the model is to be good at.

Representation-based selection asks for examples of the tasks at hand. Those of an evaluation suite must not choose what
is trained on, so each skill is stood for by training samples of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import BoolArray, FloatArray, IntArray
from adapt_inf.selection.scores.base import Vectors

PER_SKILL = 8
_ROWS, _QUERIES = 8192, 1024  # vectors, and queries that they are compared with, at a time

Rows = NDArray[np.float32]


def draw_queries(skill: IntArray, there: BoolArray, rng: np.random.Generator, per_skill: int = PER_SKILL) -> IntArray:
    """(q,) positions, ascending: `per_skill` samples of each skill, or all where it has fewer.

    Args:
        skill: (n,) number of each sample's skill.
        there: (n,) which samples have a vector.
    """
    order = rng.permutation(len(skill))
    order = order[there[order]]
    order = order[np.argsort(skill[order], kind="stable")]
    _, first, counts = np.unique(skill[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)
    return np.sort(order[place < per_skill])


def closeness(vectors: Vectors, queries: IntArray, change: Callable[[Rows], Rows] | None = None) -> FloatArray:
    """The highest cosine similarity of each vector to a query other than itself.

    Args:
        vectors: n of them.
        queries: (q,) which of them are queries.
        change: of rows of vectors to what is compared, rows again.

    Returns:
        (n,) nan for a vector of zeros; 0 for one that there is nothing to compare with.
    """
    if change is None:
        change = _as_they_are
    targets = _unit(change(vectors.take(queries)))
    best = np.full(len(vectors), np.nan)
    for start in range(0, len(vectors), _ROWS):
        block = vectors.block(start, start + _ROWS)
        there, rows = block.any(axis=1), _unit(change(block))
        nearest = np.full(len(rows), -np.inf, dtype=np.float32)
        for first in range(0, len(queries), _QUERIES):
            similarity = rows @ targets[first : first + _QUERIES].T
            asked = queries[first : first + _QUERIES]
            own = np.flatnonzero((asked >= start) & (asked < start + len(rows)))
            similarity[asked[own] - start, own] = -np.inf
            np.maximum(nearest, similarity.max(axis=1, initial=-np.inf), out=nearest)
        best[start : start + len(rows)][there] = np.where(np.isfinite(nearest), nearest, 0.0)[there]
    return best


def _as_they_are(rows: Rows) -> Rows:
    return rows


def _unit(rows: Rows) -> Rows:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
