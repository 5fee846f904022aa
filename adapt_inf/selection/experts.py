"""Which score selects in which cluster: the one that spreads a cluster's samples most, by the entropy of its histogram.

One pass over the samples per score, all clusters at once: about 0.1 s per score for a million samples.
"""

from __future__ import annotations

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


def histogram_entropies(values: FloatArray, cluster: NDArray[np.integer], bins: IntArray) -> FloatArray:
    """Entropy of one score in every cluster, in bits.

    Values are standardised inside the cluster and counted in `bins[c]` equal bins over -4..+4 sigma, both ends
    included; the few beyond count nowhere. A constant score has entropy 0.

    Args:
        values: (n,) scores; not finite where a sample has none, which leaves it out.
        cluster: (n,) numbers 0..k-1.
        bins: (k,) bins per cluster.

    Returns:
        (k,) bits; nan where fewer than MIN_COVERAGE of a cluster's samples, or none, have the score.
    """
    k = len(bins)
    finite = np.isfinite(values)
    sizes = np.bincount(cluster, minlength=k)
    group = cluster[finite]
    known = values[finite]
    counts = np.bincount(group, minlength=k)

    low = np.full(k, np.inf)
    high = np.full(k, -np.inf)
    np.minimum.at(low, group, known)
    np.maximum.at(high, group, known)
    seen = counts > 0
    low[~seen] = high[~seen] = 0.0
    # Mapped to 0..1, a cluster's values are the same in every unit, and constants are exact. Halves cannot overflow.
    width = high / 2 - low / 2
    varies = width > _ROUNDING * np.maximum(np.abs(low), np.abs(high)) / 2
    width[~varies] = 1.0
    unit = (known / 2 - low[group] / 2) / width[group]

    divisor = np.maximum(counts, 1)
    centred = unit - (np.bincount(group, unit, minlength=k) / divisor)[group]
    sigma = np.sqrt(np.bincount(group, centred * centred, minlength=k) / divisor)
    sigma[sigma == 0] = 1.0
    place = (centred / sigma[group] + SIGMAS) / (2 * SIGMAS)
    within = (place >= 0) & (place <= 1)
    width_in_bins = bins[group[within]]
    bin_of = np.minimum((place[within] * width_in_bins).astype(np.int64), width_in_bins - 1)

    stride = int(bins.max(initial=1))
    table = np.bincount(group[within] * stride + bin_of, minlength=k * stride).reshape(k, stride)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    entropy = -np.sum(share * np.log2(share, out=np.zeros_like(share), where=share > 0), axis=1)
    # The same counts in other bins add up in another order: rounding keeps such a tie a tie.
    entropy = np.round(entropy, _DECIMALS) + 0.0
    entropy[~varies] = 0.0
    entropy[(counts < MIN_COVERAGE * sizes) | ~seen] = np.nan
    return entropy


def choose_experts(scores: FloatArray, cluster: NDArray[np.integer], k: int, bins: int = 50) -> Experts:
    """The score with the highest entropy in each cluster; of equals the earlier one.

    Args:
        scores: (n, s) a column a score, in the order that breaks ties; nan where a sample has none.
        cluster: (n,) numbers 0..k-1.
        k: number of clusters.
        bins: most bins of a histogram; see `histogram_bins`.

    Maharana et al. 2025 (arXiv 2410.10636), section 3.2, with bins fixed in sigmas.
    """
    sizes = np.bincount(cluster, minlength=k)
    bins_of = histogram_bins(sizes, bins)
    entropies = np.empty((k, scores.shape[1]))
    for column in range(scores.shape[1]):
        entropies[:, column] = histogram_entropies(scores[:, column], cluster, bins_of)
    ranked = np.where(np.isnan(entropies), -np.inf, entropies)
    winner = np.where(np.isneginf(ranked).all(axis=1), -1, ranked.argmax(axis=1))
    margins = np.full(k, np.nan)
    if scores.shape[1] > 1:
        top = np.sort(ranked, axis=1)
        two = np.isfinite(top[:, -2])
        margins[two] = top[two, -1] - top[two, -2]
    return Experts(winner.astype(np.int64), entropies, margins, bins_of)
