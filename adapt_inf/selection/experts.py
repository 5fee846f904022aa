"""Which score selects in which cluster: the one that spreads a cluster's samples most, by the entropy of its histogram.

Some clusters at a time, all their scores at once, in memory that is used again, so that what is worked on stays in a
core's cache: some 10 ms for a score of a million samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import BoolArray, FloatArray, IntArray

SIGMAS = 4.0  # the histogram covers -4..+4 standard deviations
MIN_COVERAGE = 0.9  # a score may be chosen only where this share of a cluster has one
# A spread below this share of the values themselves is rounding, not signal: such a score is constant.
_ROUNDING = 1e-9
# Means of squares are not precise where values spread less than this share of their distance from zero, or less than
# this, or lie beyond: such clusters are standardised with more care.
_FAR, _TINY, _HUGE = 1e-3, 1e-100, 1e100
_TOGETHER = 2**17  # samples whose scores are gathered at a time, or a cluster's where it has more
_DECIMALS = 9  # of a bit


@dataclass(frozen=True)
class Experts:
    """The choice per cluster.

    Attributes:
        winner: (k,) index of the score chosen; -1 where no score may be chosen.
        entropies: (k, s) bits; nan where the score may not be chosen.
        margins: (k,) bits between the first and the second; nan with fewer than two scores to choose from.
        bins: (k,) bins of the cluster's histograms.
    """

    winner: IntArray
    entropies: FloatArray
    margins: FloatArray
    bins: IntArray


def histogram_bins(sizes: NDArray[np.integer], bins: int = 50) -> IntArray:
    """Bins per cluster: `bins`, but no more than one for four samples, and two at least.

    With fewer samples a bin, every score looks alike: entropy then measures the sample's size, not the score.
    """
    return np.clip(np.asarray(sizes, dtype=np.int64) // 4, 2, bins)


def histograms(values: FloatArray, sizes: IntArray, bins: IntArray, places: IntArray) -> IntArray:
    """How the scores of some clusters are spread: equal bins over -4..+4 sigma, for each score in each cluster.

    Values are standardised inside their cluster; those beyond the bins count nowhere. A constant lies in one bin.

    Args:
        values: (s, m) a row a score, cluster after cluster; not finite where a sample has none, which leaves it out.
            Used up.
        sizes: (k,) samples per cluster, which sum to m.
        bins: (k,) of its histograms.
        places: memory to work in, for s numbers of each sample of the largest cluster.

    Returns:
        (k, s, largest number of bins) counts; zeros where fewer than MIN_COVERAGE of a cluster's samples, or none, have
        the score.
    """
    k, rows = len(sizes), len(values)
    ends = np.cumsum(sizes).tolist()
    parts = [values[:, end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]
    low, high, total, square = np.zeros((4, k, rows))
    with np.errstate(over="ignore", invalid="ignore"):  # what that comes to is not used
        for cluster, part in enumerate(parts):
            if part.size:
                part.min(axis=1, out=low[cluster])
                part.max(axis=1, out=high[cluster])
                part.sum(axis=1, out=total[cluster])
                np.vecdot(part, part, out=square[cluster])
        mean = total / np.maximum(sizes, 1)[:, None]
        variance = square / np.maximum(sizes, 1)[:, None] - mean * mean
    half, largest = high / 2 - low / 2, np.maximum(-low, high)  # halves cannot overflow
    varies, scant = half > 0, np.zeros((k, rows), dtype=bool)
    precise = (half > np.maximum(_FAR * largest, _TINY)) & (largest < _HUGE) | (half == 0)  # and never with a nan
    for cluster in np.flatnonzero(~precise.all(axis=1)).tolist():
        mean[cluster], variance[cluster], varies[cluster], there = _bring_near(parts[cluster])
        scant[cluster] = there < MIN_COVERAGE * sizes[cluster]
    scale = (bins / (2 * SIGMAS))[:, None] / np.sqrt(np.where(varies, variance, np.inf))
    # A bin more on each side for what lies beyond, so that nothing need be picked out.
    first = np.arange(rows) * (bins + 2.0)[:, None]
    shift = first + (bins / 2 + 1)[:, None] - mean * scale
    counts = np.zeros((k, rows, int(bins.max(initial=0))), dtype=np.int64)
    columns = (array[:, :, None] for array in (scale, shift, first, first + (bins + 1.0)[:, None]))
    for part, own, found, by, to, least, most in zip(parts, bins.tolist(), counts, *columns, strict=True):
        part *= by
        part += to
        np.fmax(part, least, out=part)  # of nan and a number: the number
        np.minimum(part, most, out=part)
        place = places[: part.size]
        np.copyto(place.reshape(part.shape), part, casting="unsafe")
        found[:, :own] = np.bincount(place, minlength=rows * (own + 2)).reshape(rows, own + 2)[:, 1:-1]
    counts[scant] = 0
    return counts


def _bring_near(values: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray, IntArray]:
    """Count each row from its lowest value on, in a power of 2 as unit, in place: then squares fit, and lose nothing.

    Args:
        values: (s, m). What is not finite is nan afterwards.

    Returns:
        (s,) mean, variance, whether the values differ, and how many there are.
    """
    finite = np.isfinite(values)
    number = finite.sum(axis=1)
    low, high = np.where(finite, values, np.inf).min(axis=1), np.where(finite, values, -np.inf).max(axis=1)
    low[number == 0] = high[number == 0] = 0.0
    half = high / 2 - low / 2
    varies = half > _ROUNDING / 2 * np.maximum(-low, high)
    power = np.where(varies, -np.frexp(half)[1], 0)
    near = np.where(finite & varies[:, None], np.ldexp(values, power[:, None]) - np.ldexp(low, power)[:, None], 0.0)
    divisor = np.maximum(number, 1)
    mean = near.sum(axis=1) / divisor
    variance = np.vecdot(near, near) / divisor - mean * mean
    values[:] = np.where(finite, near, np.nan)
    return mean, variance, varies, number


def entropies(counts: NDArray[np.integer]) -> FloatArray:
    """Shannon entropy of histograms over the last axis, in bits; nan for one without a count."""
    total = counts.sum(axis=-1, keepdims=True)
    share = counts / np.maximum(total, 1)
    bits = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=-1)
    # The same counts in other bins add up in another order: rounding keeps such a tie a tie.
    return np.where(total[..., 0] > 0, np.round(bits, _DECIMALS) + 0.0, np.nan)


def choose_experts(scores: Sequence[FloatArray], order: IntArray, sizes: IntArray, bins: int = 50) -> Experts:
    """The score with the highest entropy in each cluster; of equals the earlier one.

    Args:
        scores: s arrays of (n,) float64, in the order that breaks ties; nan where a sample has none.
        order: (n,) positions of the samples of cluster 0, then of those of 1, ...
        sizes: (k,) samples per cluster.
        bins: most bins of a histogram; see `histogram_bins`.

    Maharana et al. 2025 (arXiv 2410.10636), section 3.2, with bins fixed in sigmas.
    """
    k = len(sizes)
    bins_of = histogram_bins(sizes, bins)
    counts = np.zeros((k, len(scores), bins), dtype=np.int64)
    ends, most = np.cumsum(sizes), len(scores) * int(sizes.max(initial=0))
    # The same memory for all: to get new pages from the system takes as long as the work that is done in them.
    work = np.empty(max(most, len(scores) * min(_TOGETHER, len(order))))
    places = np.empty(most, dtype=np.int64)
    start = 0
    while start < k:
        before = int(ends[start] - sizes[start])
        stop = max(start + 1, int(np.searchsorted(ends, before + _TOGETHER, side="right")))
        here = order[before : ends[stop - 1]]
        values = work[: len(scores) * len(here)].reshape(len(scores), len(here))
        for row, score in zip(values, scores, strict=True):
            score.take(here, out=row, mode="clip")  # the default mode takes a copy first
        found = histograms(values, sizes[start:stop], bins_of[start:stop], places)
        counts[start:stop, :, : found.shape[2]] = found
        start = stop
    bits = entropies(counts)
    ranked = np.where(np.isnan(bits), -np.inf, bits)
    winner = np.where(np.isneginf(ranked).all(axis=1), -1, ranked.argmax(axis=1))
    margins = np.full(k, np.nan)
    if len(scores) > 1:
        top = np.sort(ranked, axis=1)
        two = np.isfinite(top[:, -2])
        margins[two] = top[two, -1] - top[two, -2]
    return Experts(winner.astype(np.int64), bits, margins, bins_of)
