"""OASIS: the samples that move the weights most, in directions that others of their batch do not move them in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import FloatArray
from adapt_inf.selection.scores.base import Signals, Vectors

BATCH = 64
_BATCHES = 128  # in memory at a time
_ROUNDING = 1e-5  # of a squared length: less than this that is left of it is nothing


class OASIS:
    """How informative a sample is beside all candidates, less what its batch has already; the highest are taken.

    Lee et al. 2025 (arXiv 2506.02011): informativeness is the squared norm of the gradient; in a batch of candidates
    that follow each other, the most informative is picked, what it has in common with the others taken off them, and so
    on; what is left is put in relation to that of all samples. There the overlap is a sum over sets of picked samples
    and their similarities, cut off, and the relation one to a running mean, as samples stream by. Here the overlap is
    the part of a gradient that lies in the span of those picked before, which counts every overlap once, and mean and
    spread are those of all candidates.
    """

    name = "oasis"
    needs = ("grand", "gradient")
    draw = "highest"

    def compute(self, signals: Signals, rng: np.random.Generator) -> FloatArray:
        """(n,) standard deviations above the mean."""
        new = not_shared(signals["gradient"], signals["grand"])
        known = np.isfinite(new)
        spread = new[known].std() if known.any() else 0.0
        relative: FloatArray = (new - new[known].mean()) / spread if spread > 0 else np.where(known, 0.0, np.nan)
        return relative


def not_shared(vectors: Vectors, norms: FloatArray, batch: int = BATCH) -> FloatArray:
    """The squared length of each gradient outside the span of those of its batch that were picked before it.

    The longest remainder is picked first, then the longest that is left, and so on: a Cholesky factorisation with
    pivots of each batch's products, many batches side by side.

    Args:
        vectors: n directions.
        norms: (n,) lengths; nan where a sample has no gradient.
        batch: samples in a row that share one.

    Returns:
        (n,) nan where `norms` is.
    """
    n, found = len(norms), np.full(len(norms), np.nan)
    for start in range(0, n, batch * _BATCHES):
        stop = min(n, start + batch * _BATCHES)
        length = np.nan_to_num(norms[start:stop])
        rows = vectors.block(start, stop) * length[:, None].astype(np.float32)
        whole = -(-len(rows) // batch)
        filled = np.zeros((whole * batch, rows.shape[1]), dtype=np.float32)
        filled[: len(rows)] = rows
        parts = filled.reshape(whole, batch, -1)
        gram = (parts @ parts.transpose(0, 2, 1)).astype(np.float64)
        found[start:stop] = _remainders(gram).reshape(-1)[: len(rows)]
    found[~np.isfinite(norms)] = np.nan
    return found


def _remainders(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b, m) what was left of each when it was picked, of (b, m, m) products, which are used up."""
    count, size, _ = gram.shape
    each = np.arange(count)
    left = np.diagonal(gram, axis1=1, axis2=2).copy()
    least = _ROUNDING * left
    result, open_ = np.zeros_like(left), np.ones_like(left, dtype=bool)
    for _ in range(size):
        pick = np.where(open_, left, -np.inf).argmax(axis=1)
        own = np.where(left[each, pick] > least[each, pick], left[each, pick], 0.0)
        result[each, pick] = own
        open_[each, pick] = False
        column = gram[each, :, pick]
        share = np.divide(column, own[:, None], out=np.zeros_like(column), where=own[:, None] > 0)
        gram -= share[:, :, None] * column[:, None, :]
        left = np.diagonal(gram, axis1=1, axis2=2)
    return result
