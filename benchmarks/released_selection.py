"""Selection the way the released code of the paper does it, rebuilt from its description, to measure against.

Rebuilt are its three steps over clusters, with their loops where it has loops: budgets (clusters by size, those below
an equal share hand theirs on, shares rounded up), the choice of the score with the highest entropy (50 bins over four
raw standard deviations on each side, one pass over the cluster's samples for each bin of each score), and
coverage-centric sampling (5% cut off on both sides, 50 strata from the top down, for each a pass in Python over the
cluster's samples, draws by `random.sample`, what a stratum lacks spread over those left). Left out is what does not
choose: reading and writing JSON, printing ten samples of each cluster, progress bars. What it computes wrongly (see
docs/method.md) stays wrong, so it does not return exactly the budget: only its cost is compared.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BINS = STRATA = 50
CUT = 0.05


def select_as_released(scores: Mapping[str, Array], cluster: NDArray[np.int64], budget: int, seed: int) -> list[int]:
    """Positions of the samples selected.

    Args:
        scores: by name, (n,) each, without nan.
        cluster: (n,) numbers from 0.
        budget: how many are asked for.
        seed: of the draws.
    """
    draw = random.Random(seed)
    members = [np.where(cluster == number)[0] for number in range(int(cluster.max()) + 1)]
    budgets = cluster_budgets([len(rows) for rows in members], budget)
    selected: list[int] = []
    for rows, share in zip(members, budgets, strict=True):
        entropies = [entropy(values[rows]) for values in scores.values()]
        best = list(scores.values())[int(np.argmax(entropies))][rows]
        selected.extend(rows[coverage(best, share, draw)].tolist())
    return selected


def cluster_budgets(sizes: list[int], budget: int) -> list[int]:
    """Equal shares, smallest cluster first; what one lacks is spread over those after it, rounded up."""
    k = len(sizes)
    if min(sizes) * k >= budget:
        return [math.ceil(budget / k)] * k
    share, shares = math.ceil(budget / k), [0] * k
    for place, number in enumerate(np.argsort(sizes).tolist()):
        shares[number] = min(sizes[number], share)
        if sizes[number] < share and place + 1 < k:
            share += math.ceil((share - sizes[number]) / (k - place - 1))
    return shares


def entropy(values: Array) -> float:
    """Of standardised values, in bits, over bins whose width is that of the raw values."""
    deviation = float(np.std(values))
    with np.errstate(invalid="ignore"):  # a constant score gives nan there, and so it does here
        standard = (values - np.mean(values)) / deviation
    edges = np.linspace(-4 * deviation, 4 * deviation, BINS)
    counts = np.zeros(BINS)
    for bin_ in range(1, BINS):
        counts[bin_] = np.sum((standard > edges[bin_ - 1]) & (standard <= edges[bin_]))
    share = np.nan_to_num(counts / max(np.sum(counts), 1))
    share = np.where(share == 0, np.finfo(float).eps, share)
    return float(-np.sum(share * np.log2(share)))


def coverage(values: Array, budget: int, draw: random.Random) -> list[int]:
    """Positions drawn from 50 strata between the 5% and the 95% quantile."""
    ascending = np.sort(values)
    low, right = ascending[int(len(values) * CUT)], ascending[int(len(values) * (1 - CUT))]
    width = (right - low) / STRATA
    left_over, share = budget, math.ceil(budget / STRATA)
    chosen: list[int] = []
    for stratum in range(STRATA):
        left = right - width
        inside = [place for place, value in enumerate(values) if left < value <= right]
        if len(inside) < share:
            chosen.extend(inside)
            left_over -= len(inside)
            if stratum + 1 < STRATA:
                share = max(0, math.ceil(left_over / (STRATA - stratum - 1)))
        else:
            chosen.extend(draw.sample(inside, share))
            left_over -= share
        right = left
    return chosen
