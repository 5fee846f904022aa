import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt_inf.config import Select
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.selection.coverage import HIGHEST, UNSTRATIFIED
from adapt_inf.selection.strategies import NO_EXPERT, Candidates, select

SCORES = ["perplexity", "el2n", "image_grounding"]
STRATEGIES = ["adapt_inf", "sequential", "random", "cluster_random", "full", *SCORES]


def candidates_of(n, k, seed, adversarial="none"):
    rng = np.random.default_rng(seed)
    cluster = (
        np.concatenate([np.arange(min(k, n)), rng.integers(0, min(k, n), n - min(k, n))]) if n else np.empty(0, int)
    )
    cluster = rng.permutation(cluster)
    grounding = rng.normal(size=n)
    grounding[rng.random(n) < 0.2] = np.nan
    scores = {"perplexity": rng.normal(size=n), "el2n": rng.exponential(size=n), "image_grounding": grounding}
    if adversarial == "constant":
        scores = {name: np.full(n, 0.1) for name in scores}
    if adversarial == "all nan":
        scores = {name: np.full(n, np.nan) for name in scores}
    if adversarial == "no grounding":
        scores["image_grounding"] = np.full(n, np.nan)
    similarity, is_new = rng.uniform(0, 1, n).astype(np.float32), rng.random(n) < 0.3
    return Candidates(cluster, similarity, is_new, scores, min(k, n), rng.exponential(size=n))


@given(
    st.integers(1, 300),
    st.integers(1, 20),
    st.sampled_from(STRATEGIES),
    st.one_of(st.integers(1, 400), st.floats(0.001, 1.0)),
    st.sampled_from(["equal", "proportional", "density", "loss"]),
    st.sampled_from(["none", "constant", "all nan", "no grounding"]),
    st.integers(0, 3),
)
@settings(max_examples=400, deadline=None)
def test_exactly_the_budget_and_no_duplicate(n, k, strategy, budget, split, adversarial, seed):
    candidates = candidates_of(n, k, seed, adversarial)
    params = Select(strategy=strategy, budget=budget, split=split, scores=SCORES)
    found = select(candidates, params, seed)
    total = min(n, budget if isinstance(budget, int) else max(1, math.floor(budget * n + 1e-9)))
    expected = {"full": n, "sequential": min(total, int(candidates.is_new.sum()))}.get(strategy, total)
    assert len(found.positions) == found.budget == found.budgets.sum() == expected
    assert (np.diff(found.positions) > 0).all()
    assert np.array_equal(
        np.bincount(candidates.cluster[found.positions], minlength=candidates.clusters), found.budgets
    )
    again = select(candidates, params, seed)
    assert np.array_equal(found.positions, again.positions)
    assert np.array_equal(found.stratum, again.stratum)


@given(st.integers(1, 400), st.integers(1, 6), st.sampled_from(["none", "constant", "no grounding"]))
@settings(max_examples=100, deadline=None)
def test_the_selector_is_the_expert_with_the_highest_entropy_in_its_table(n, k, adversarial):
    candidates = candidates_of(n, k, n, adversarial)
    found = select(candidates, Select(budget=0.5, scores=SCORES), 0)
    for cluster, selector in enumerate(found.selectors):
        row = found.experts.entropies[cluster]
        assert SCORES[int(np.nanargmax(row))] == selector
    scores = np.array([candidates.scores[found.selectors[candidates.cluster[p]]][p] for p in found.positions])
    assert np.array_equal(found.score, scores, equal_nan=True)


def test_budgets_are_those_of_the_split():
    candidates = candidates_of(500, 7, 0)
    found = select(candidates, Select(budget=100, scores=SCORES), 0)
    assert np.array_equal(found.budgets, cluster_budgets(candidates.sizes, 100))


def test_without_any_score_a_cluster_is_drawn_uniformly():
    found = select(candidates_of(50, 2, 0, "all nan"), Select(budget=10, scores=SCORES), 0)
    assert found.selectors == [NO_EXPERT, NO_EXPERT]
    assert (found.stratum == UNSTRATIFIED).all()
    assert np.isnan(found.score).all()


def test_a_score_that_takes_the_highest_does_so_in_each_cluster_and_leaves_the_others_as_they_were():
    candidates = candidates_of(300, 6, 4)
    params = Select(budget=90, scores=SCORES)
    plain = select(candidates, params, 0)
    taking = plain.selectors[0]
    found = select(replace(candidates, highest=frozenset([taking])), params, 0)
    assert found.selectors == plain.selectors
    assert np.array_equal(found.budgets, plain.budgets)
    for cluster, selector in enumerate(plain.selectors):
        inside = np.flatnonzero(candidates.cluster == cluster)
        chosen = np.isin(inside, found.positions)
        mine = candidates.cluster[found.positions] == cluster
        if selector == taking:
            values = np.nan_to_num(candidates.scores[taking][inside], nan=-np.inf)
            assert values[chosen].min() >= values[~chosen].max()
            assert (found.stratum[mine] == HIGHEST).all()
        else:
            assert not (found.stratum[mine] == HIGHEST).any()
    assert np.array_equal(
        found.score,
        [candidates.scores[plain.selectors[candidates.cluster[p]]][p] for p in found.positions],
        equal_nan=True,
    )


def test_sequential_takes_only_the_new_drop():
    candidates = candidates_of(300, 5, 1)
    found = select(candidates, Select(strategy="sequential", budget=0.2, scores=SCORES), 0)
    assert candidates.is_new[found.positions].all()
    assert found.budget == 60


def test_a_score_that_is_no_expert_may_be_the_strategy():
    candidates = candidates_of(100, 3, 2)
    found = select(candidates, Select(strategy="el2n", budget=30, scores=["perplexity"]), 0)
    assert found.selectors == ["el2n"] * 3
    assert np.array_equal(found.score, candidates.scores["el2n"][found.positions])
    assert found.experts.entropies.shape == (3, 1)


def test_a_cluster_draws_the_same_whatever_the_others_hold():
    candidates = candidates_of(400, 4, 3)
    params = Select(budget=1.0, strategy="cluster_random", scores=SCORES)
    half = replace(candidates, is_new=~candidates.is_new)
    assert np.array_equal(select(candidates, params, 0).positions, select(half, params, 0).positions)


def test_seeds_differ():
    candidates = candidates_of(400, 4, 3)
    for strategy in ("adapt_inf", "random", "cluster_random", "sequential"):
        params = Select(budget=50, strategy=strategy, scores=SCORES)
        assert not np.array_equal(select(candidates, params, 0).positions, select(candidates, params, 1).positions)


def test_an_unknown_strategy_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"no strategy best; there are adapt_inf, sequential, .*perplexity"):
        select(candidates_of(10, 1, 0), Select(strategy="best", scores=SCORES), 0)
