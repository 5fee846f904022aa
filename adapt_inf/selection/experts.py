"""Which score selects in which cluster: the one that spreads a cluster's samples most, by the entropy of its histogram.

A cluster at a time, all its scores at once, so that what is worked on stays in a core's cache: some 20 ms for a score
of a million samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import FloatArray, IntArray

SIGMAS = 4.0  # the histogram covers -4..+4 standard deviations
MIN_COVERAGE = 0.9  # a score may be chosen only where this share of a cluster has one
# A spread below this share of the values themselves is rounding, not signal: such a score is constant.
_ROUNDING = 1e-9
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


def histogram_entropies(values: FloatArray, bins: int) -> FloatArray:
    """Entropy of several scores in one cluster, in bits.

    Values are standardised inside the cluster and counted in `bins` equal bins over -4..+4 sigma, both ends included;
    the few beyond count nowhere. A constant score has entropy 0.

    Args:
        values: (s, m) a row a score; not finite where a sample has none, which leaves it out.
        bins: of each histogram.

    Returns:
        (s,) bits; nan where fewer than MIN_COVERAGE of the samples, or none, have the score.
    """
    rows, size = values.shape
    if size == 0:
        return np.full(rows, np.nan)
    finite = np.isfinite(values)
    whole = bool(finite.all())
    counts = np.full(rows, size) if whole else finite.sum(axis=1)
    low = (values if whole else np.where(finite, values, np.inf)).min(axis=1)
    high = (values if whole else np.where(finite, values, -np.inf)).max(axis=1)
    low[counts == 0] = high[counts == 0] = 0.0
    # Mapped to 0..1, a cluster's values are the same in every unit, and constants are exact. Halves cannot overflow.
    width = high / 2 - low / 2
    varies = width > _ROUNDING * np.maximum(np.abs(low), np.abs(high)) / 2
    width[~varies] = 1.0
    unit = values / 2
    unit -= (low / 2)[:, None]
    unit /= width[:, None]
    if not whole:
        unit[~finite] = 0.0
    divisor = np.maximum(counts, 1)
    unit -= (unit.sum(axis=1) / divisor)[:, None]
    if not whole:
        unit[~finite] = 0.0
    sigma = np.sqrt(np.einsum("ij,ij->i", unit, unit) / divisor)
    sigma[sigma == 0] = 1.0
    unit *= (bins / (2 * SIGMAS * sigma))[:, None]
    unit += bins / 2
    inside = (unit >= 0) & (unit <= bins)
    if not whole:
        inside &= finite
    place = np.minimum(unit, bins - 1, out=unit) + (np.arange(rows) * bins)[:, None]
    table = np.bincount(place[inside].astype(np.int64), minlength=rows * bins).reshape(rows, bins)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    entropy = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=1)
    # The same counts in other bins add up in another order: rounding keeps such a tie a tie.
    entropy = np.round(entropy, _DECIMALS) + 0.0
    entropy[~varies] = 0.0
    entropy[(counts < MIN_COVERAGE * size) | (counts == 0)] = np.nan
    return entropy


def choose_experts(scores: Sequence[FloatArray], groups: Sequence[IntArray], bins: int = 50) -> Experts:
    """The score with the highest entropy in each cluster; of equals the earlier one.

    Args:
        scores: s arrays of (n,), in the order that breaks ties; nan where a sample has none.
        groups: k arrays, the positions of each cluster's samples.
        bins: most bins of a histogram; see `histogram_bins`.

    Maharana et al. 2025 (arXiv 2410.10636), section 3.2, with bins fixed in sigmas.
    """
    k = len(groups)
    bins_of = histogram_bins(np.array([len(group) for group in groups], dtype=np.int64), bins)
    entropies = np.empty((k, len(scores)))
    for cluster, group in enumerate(groups):
        entropies[cluster] = histogram_entropies(np.stack([score[group] for score in scores]), int(bins_of[cluster]))
    ranked = np.where(np.isnan(entropies), -np.inf, entropies)
    winner = np.where(np.isneginf(ranked).all(axis=1), -1, ranked.argmax(axis=1))
    margins = np.full(k, np.nan)
    if len(scores) > 1:
        top = np.sort(ranked, axis=1)
        two = np.isfinite(top[:, -2])
        margins[two] = top[two, -1] - top[two, -2]
    return Experts(winner.astype(np.int64), entropies, margins, bins_of)
