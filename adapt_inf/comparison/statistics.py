"""Means over seeds and differences between two strategies at the same seeds, with 95% intervals by Student's t.

Values are taken for draws from a normal distribution, which few seeds can neither show nor refute; intervals of several
figures and strategies are not corrected for their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from adapt_inf.selection.arrays import FloatArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean of n values; `half` is half the width of its interval, None for a single value."""

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean of n paired differences; `low`, `high` and `p` are None for a single pair, `p` also where all are equal.

    `p` is that of the two-sided paired t-test.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def mean_of(values: FloatArray) -> Mean:
    """The mean of (n,) values, n at least 1: mean ± t(n - 1) x std / sqrt(n)."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Mean(mean, None, n)
    return Mean(mean, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * _standard_error(values), n)


def difference_of(values: FloatArray, baseline: FloatArray) -> Difference:
    """What (n,) values are above (n,) others with which they are paired, n at least 1."""
    gaps = np.asarray(values) - np.asarray(baseline)
    found = mean_of(gaps)
    if found.half is None:
        return Difference(found.mean, None, None, None, found.n)
    error = _standard_error(gaps)
    p = 2 * float(stdtr(found.n - 1, -abs(found.mean) / error)) if error > 0 else None
    return Difference(found.mean, found.mean - found.half, found.mean + found.half, p, found.n)


def _standard_error(values: FloatArray) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
