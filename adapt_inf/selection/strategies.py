"""What to train on: the method of Adapt-infinity, and the strategies that it is compared with at the same budget.

| strategy | which samples |
|---|---|
| adapt_inf | a budget per cluster; inside, coverage sampling on the cluster's own expert, or the highest by it |
| a score's name | the same, with that score as the expert of every cluster |
| cluster_random | the same budgets; inside, uniform |
| random | uniform over all candidates |
| sequential | uniform over the new drop only: no replay |
| full | all candidates, whatever the budget |

The draws of a round share a generator, seeded by the round's seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adapt_inf.config import Select
from adapt_inf.selection.arrays import BoolArray, FloatArray, IntArray
from adapt_inf.selection.budgets import cluster_budgets, resolve_budget
from adapt_inf.selection.coverage import UNSTRATIFIED, coverage_sample, highest_sample, uniform_sample, united
from adapt_inf.selection.experts import Experts, choose_experts

OVER_ALL = ("sequential", "random", "full")  # they ask for neither clusters nor scores
WITHOUT_EXPERTS = (*OVER_ALL, "cluster_random")
ADAPT_INF = "adapt_inf"
NO_EXPERT = "uniform"  # the selector of a cluster in which no score may be chosen

_IN_CLUSTERS, _OVER_ALL = 0, 1  # what a generator is for


@dataclass(frozen=True)
class Candidates:
    """What a strategy may know of n candidates in k clusters, all in candidate order.

    Attributes:
        cluster: (n,) numbers 0..clusters-1.
        similarity: (n,) cosine to the own centroid.
        is_new: (n,) whether the sample came with this round's drop.
        scores: by name, (n,) each: those of `select.scores` and, where it is one more, the strategy's; nan where a
            sample has none.
        clusters: k. Some may be empty.
        loss: (n,) mean nll of the answer's tokens under the model as it is, in nats.
        highest: names of the scores whose highest values are taken, in the place of coverage sampling.
    """

    cluster: IntArray
    similarity: NDArray[np.floating]
    is_new: BoolArray
    scores: Mapping[str, FloatArray]
    clusters: int
    loss: FloatArray
    highest: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.cluster)

    @cached_property
    def sizes(self) -> IntArray:
        return np.bincount(self.cluster, minlength=self.clusters)

    def by_cluster(self) -> IntArray:
        """(n,) positions: those of cluster 0 ascending, then those of 1, ..."""
        # A stable sort of 16 bits is a radix sort.
        keys = self.cluster.astype(np.uint16) if self.clusters <= 2**16 else self.cluster
        return np.argsort(keys, kind="stable")


@dataclass(frozen=True)
class Selection:
    """The samples selected, and per cluster why.

    Attributes:
        positions: (m,) positions of candidates, ascending, no two equal.
        score: (m,) the selector's score of each; nan where the selector is none or the sample has none.
        stratum: (m,) see `coverage.Draw`.
        budget: T, which is m.
        budgets: (k,) samples that each cluster was to give, and gave; they sum to T.
        selectors: (k,) name of the score that selected, NO_EXPERT, or the strategy where it uses no scores.
        experts: entropies of all scores in all clusters, whatever the strategy.
    """

    positions: IntArray
    score: FloatArray
    stratum: NDArray[np.int32]
    budget: int
    budgets: IntArray
    selectors: list[str]
    experts: Experts


def is_strategy(name: str, scores: Iterable[str]) -> bool:
    """Whether `select` takes this name, given the names of the scores that it gets."""
    return name == ADAPT_INF or name in WITHOUT_EXPERTS or name in scores


def select(candidates: Candidates, params: Select, seed: int) -> Selection:
    """Choose min(T, n) samples; T is `select.budget` of all candidates (`sequential`: at most the drop; `full`: all).

    Raises:
        ValueError: a strategy that is neither listed above nor the name of a score that is given, or a budget that is
            none.
    """
    strategy = params.strategy
    if not is_strategy(strategy, candidates.scores):
        names = [ADAPT_INF, *WITHOUT_EXPERTS, *candidates.scores]
        raise ValueError(f"there is no strategy {strategy}; there are {', '.join(names)}")
    n, k = len(candidates), candidates.clusters
    budget = resolve_budget(params.budget, n)
    order, sizes = candidates.by_cluster(), candidates.sizes
    experts = choose_experts([candidates.scores[name] for name in params.scores], order, sizes, params.bins)

    if strategy in OVER_ALL:
        positions = draw_over_all(candidates.is_new, strategy, budget, seed)
        budgets = np.bincount(candidates.cluster[positions], minlength=k)
        nothing = np.full(len(positions), np.nan), np.full(len(positions), UNSTRATIFIED, dtype=np.int32)
        return Selection(positions, *nothing, len(positions), budgets, [strategy] * k, experts)

    budgets = _budgets(candidates, budget, params)
    if strategy == ADAPT_INF:
        chosen = [params.scores[score] if score >= 0 else None for score in experts.winner]
        selectors = [name or NO_EXPERT for name in chosen]
    else:
        chosen = [None if strategy == "cluster_random" else strategy] * k
        selectors = [strategy] * k
    value, stop = np.full(n, np.nan), 0
    for size, name in zip(sizes.tolist(), chosen, strict=True):
        start, stop = stop, stop + size
        if name is not None:
            candidates.scores[name].take(order[start:stop], out=value[start:stop], mode="clip")
    scored = np.array([name is not None for name in chosen], dtype=bool)
    rng = np.random.default_rng([seed, _IN_CLUSTERS])
    top = np.array([name in candidates.highest for name in chosen], dtype=bool)
    draw = coverage_sample(value, sizes, np.where(top, 0, budgets), rng, params.strata, params.tail, scored)
    if top.any():
        draw = united(draw, highest_sample(value, sizes, np.where(top, budgets, 0), rng))

    drawn = np.full(n, -1, dtype=np.int32)
    drawn[order[draw.positions]] = np.arange(budget)
    positions = np.flatnonzero(drawn >= 0)
    at = drawn[positions]
    return Selection(positions, value[draw.positions][at], draw.strata[at], budget, budgets, selectors, experts)


def draw_over_all(is_new: BoolArray, strategy: str, budget: int, seed: int) -> IntArray:
    """The samples that a strategy of OVER_ALL chooses.

    Args:
        is_new: (n,) whether a candidate came with this round's drop.
        strategy: `random`, `sequential` or `full`, which takes all n whatever the budget.
        budget: at most n.

    Returns:
        (m,) positions, ascending.
    """
    pool = np.flatnonzero(is_new) if strategy == "sequential" else np.arange(len(is_new))
    rng = np.random.default_rng([seed, _OVER_ALL])
    return pool[uniform_sample(len(pool), len(pool) if strategy == "full" else budget, rng).positions]


def _budgets(candidates: Candidates, budget: int, params: Select) -> IntArray:
    by_split = {"density": 1.0 - candidates.similarity, "loss": candidates.loss}
    factors = None
    if (values := by_split.get(params.split)) is not None:
        sums = np.bincount(candidates.cluster, values, minlength=candidates.clusters)
        factors = np.maximum(sums / np.maximum(candidates.sizes, 1), 0.0)
    return cluster_budgets(candidates.sizes, budget, params.split, params.min_cluster, factors)
