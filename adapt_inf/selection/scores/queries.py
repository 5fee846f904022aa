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
_ROWS = 8192  # vectors in memory at a time

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
    """(n,) the highest cosine similarity of each vector to a query other than itself; nan for a vector of zeros.

    Args:
        vectors: n of them.
        queries: (q,) which of them are queries.
        change: of rows of vectors to what is compared, rows again; a row of zeros must stay one.
    """
    if change is None:
        change = _as_they_are
    targets = _unit(change(vectors.take(queries)))
    best = np.full(len(vectors), np.nan)
    for start in range(0, len(vectors), _ROWS):
        rows = _unit(change(vectors.block(start, start + _ROWS)))
        similarity = rows @ targets.T
        own = np.flatnonzero((queries >= start) & (queries < start + len(rows)))
        similarity[queries[own] - start, own] = -np.inf
        nearest = similarity.max(axis=1, initial=-np.inf)
        fine = np.isfinite(nearest) & rows.any(axis=1)
        best[start : start + len(rows)][fine] = nearest[fine]
    return best


def _as_they_are(rows: Rows) -> Rows:
    return rows


def _unit(rows: Rows) -> Rows:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit
