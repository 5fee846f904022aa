"""CRDS-W: as RDS+, on representations of which the directions that all have in common are taken out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals, Vectors
from adapt_inf.selection.scores.queries import Rows, closeness, draw_queries

COMPONENTS = 256  # that stay, but at most half of them: the last ones are noise, which whitening would raise
_SAMPLE = 65_536  # vectors whose covariance is taken
_SMALLEST = 1e-7  # of the largest variance; what spreads less is rounding


class CRDSW:
    """`rds_plus` on whitened hidden states: centred, their principal components scaled to the same spread.

    Hidden states of language models lie in a narrow cone, where everything is similar to everything; whitening spreads
    them out, and drops the components that hold least. Shu et al. 2026 (arXiv 2602.13773), with the hidden states and
    queries of `rds_plus`.
    """

    name = "crds_w"
    needs = ("nll", "skill", "hidden")
    draw = "highest"

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) in -1..1; nan for a sample without a vector."""
        hidden, there = signals["hidden"], np.isfinite(signals["nll"])
        queries = draw_queries(signals["skill"], there, rng)
        known = np.flatnonzero(there)
        return closeness(hidden, queries, whitening(hidden, np.sort(rng.permutation(known)[:_SAMPLE])))


def whitening(vectors: Vectors, rows: NDArray[np.int64], components: int = COMPONENTS) -> Callable[[Rows], Rows]:
    """The map that gives `rows` mean zero and, in each of their first principal components, variance one.

    Args:
        vectors: of length d.
        rows: which of them it is learnt from.
        components: that stay, at most d / 2.

    Returns:
        A function of (m, d) rows to (m, components) rows; zeros stay zeros. No components where the rows do not differ.
    """
    mean, covariance = np.zeros(vectors.dim), np.zeros((vectors.dim, vectors.dim))
    for some in np.array_split(rows, max(1, -(-len(rows) // 8192))):
        part = vectors.take(some).astype(np.float64)
        mean += part.sum(axis=0)
        covariance += part.T @ part
    mean /= max(1, len(rows))
    covariance = covariance / max(1, len(rows)) - np.outer(mean, mean)
    variance, axes = np.linalg.eigh(covariance)  # rising
    most = max(1, min(components, vectors.dim // 2))
    kept = np.flatnonzero(variance > _SMALLEST * max(variance[-1], 0.0))[::-1][:most]
    scaled = (axes[:, kept] / np.sqrt(variance[kept])).astype(np.float32)
    centre = mean.astype(np.float32)

    def change(found: Rows) -> Rows:
        changed: Rows = (found - centre) @ scaled
        changed[~found.any(axis=1)] = 0.0
        return changed

    return change
