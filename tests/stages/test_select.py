"""The select stage: exact, in candidate order, with every reason stored; every strategy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from selection_project import make_selection_round, put_faults, put_scores, with_params

from adapt_inf.data.manifest import candidates
from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.files import folder_digest, read_json, write_parquet
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.selection.coverage import HIGHEST
from adapt_inf.stages import cluster, select
from adapt_inf.stages.context import StageContext

SCORES = ["perplexity", "el2n", "image_grounding"]


@pytest.fixture
def ctx(tmp_path: Path) -> StageContext:
    ctx = make_selection_round(tmp_path, cluster={"k": 4}, select={"budget": 0.3})
    cluster.run(ctx)
    return ctx


def outcome(ctx: StageContext) -> tuple[pd.DataFrame, dict]:
    out = ctx.input("select")
    return pd.read_parquet(out / "selected.parquet"), read_json(out / "selectors.json")


def test_the_selection_is_exact_and_says_why(ctx: StageContext) -> None:
    report = select.run(ctx)
    selected, table = outcome(ctx)
    frame = candidates(ctx)
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet").set_index("sample_id")
    scores = pd.read_parquet(ctx.input("score") / "scores.parquet").set_index("sample_id")
    assert list(selected.columns) == ["sample_id", "cluster", "selector", "score", "stratum"]
    assert len(selected) == table["selected"] == table["budget"] == 42 == report["selected"]
    assert selected["sample_id"].is_unique
    assert selected["sample_id"].tolist() == [name for name in frame["sample_id"] if name in set(selected["sample_id"])]
    assert selected["cluster"].tolist() == assignments.loc[selected["sample_id"], "cluster"].tolist()
    expected = [
        scores.loc[name, score] for name, score in zip(selected["sample_id"], selected["selector"], strict=True)
    ]
    np.testing.assert_array_equal(selected["score"], expected)

    rows = table["clusters"]
    sizes = np.bincount(assignments["cluster"])
    assert [row["size"] for row in rows] == sizes.tolist()
    assert [row["budget"] for row in rows] == cluster_budgets(sizes, 42).tolist()
    assert [row["selected"] for row in rows] == np.bincount(selected["cluster"], minlength=len(rows)).tolist()
    for row in rows:
        assert list(row["entropies"]) == SCORES
        known = {name: bits for name, bits in row["entropies"].items() if bits is not None}
        assert row["selector"] == max(known, key=lambda name: known[name])
        assert set(selected.loc[selected["cluster"] == row["cluster"], "selector"]) <= {row["selector"]}
        assert row["entropies"]["el2n"] == 0
        ranked = sorted(known.values())
        assert row["margin"] == pytest.approx(ranked[-1] - ranked[-2])
    assert any(row["entropies"]["image_grounding"] is None for row in rows)


def test_budgets_by_loss_follow_the_loss_of_what_can_be_read(ctx: StageContext) -> None:
    frame = candidates(ctx)
    clusters = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"]
    faulty = frame["sample_id"][clusters.index % 9 == 0]
    put_faults(ctx, faulty.tolist())
    nll = np.where(clusters == 2, 3.0, 1.0)
    nll[frame["sample_id"].isin(faulty)] = np.nan
    table = pd.DataFrame({"sample_id": frame["sample_id"], "nll": nll})
    write_parquet(ctx.input("sketch") / "signals.parquet", table)
    select.run(with_params(ctx.project.root, select={"budget": 20, "split": "loss", "min_cluster": 0}))
    rows = outcome(ctx)[1]["clusters"]
    weights = np.array([row["size"] * (3.0 if row["cluster"] == 2 else 1.0) for row in rows])
    assert np.abs([row["budget"] for row in rows] - 20 * weights / weights.sum()).max() < 1


def test_skills_and_drops_add_up(ctx: StageContext) -> None:
    select.run(ctx)
    _, table = outcome(ctx)
    frame = candidates(ctx)
    assert {name: counts["candidates"] for name, counts in table["drops"].items()} == {"old": 80, "new": 60}
    for part in ("skills", "drops"):
        assert sum(counts["candidates"] for counts in table[part].values()) == len(frame)
        assert sum(counts["selected"] for counts in table[part].values()) == table["selected"]
    assert set(table["skills"]) == set(frame["drop"] + "/" + frame["skill"])


def test_the_same_seed_gives_the_same_bytes(ctx: StageContext) -> None:
    digests = []
    for seed in (5, 5, 6):
        changed = with_params(ctx.project.root, seed=seed, cluster={"k": 4}, select={"budget": 0.3})
        select.run(changed)
        digests.append(folder_digest(ctx.input("select")))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("strategy", "budget", "expected"),
    [
        ("sequential", 0.3, 42),
        ("sequential", 100, 60),
        ("random", 50, 50),
        ("cluster_random", 50, 50),
        ("full", 1, 140),
        ("perplexity", 50, 50),
        ("image_grounding", 0.5, 70),
        ("adapt_inf", 1, 1),
        ("adapt_inf", 10_000, 140),
        ("adapt_inf", 1.0, 140),
    ],
)
def test_every_strategy_is_exact(ctx: StageContext, strategy: str, budget: float, expected: int) -> None:
    changed = with_params(ctx.project.root, select={"strategy": strategy, "budget": budget})
    select.run(changed)
    selected, table = outcome(changed)
    assert len(selected) == table["budget"] == expected == sum(row["selected"] for row in table["clusters"])
    assert selected["sample_id"].is_unique
    assert table["strategy"] == strategy
    if strategy != "adapt_inf":
        assert {row["selector"] for row in table["clusters"]} == {strategy}
        assert all(row["entropies"]["perplexity"] is not None for row in table["clusters"])
    if strategy == "sequential":
        assert selected["sample_id"].str.startswith("new/").all()
    if strategy in ("sequential", "random", "cluster_random", "full"):
        assert set(selected["stratum"]) == {-3}
        column = pq.read_table(changed.input("select") / "selected.parquet")["score"]
        assert column.null_count == len(selected)
        assert str(column.type) == "double"


STRATEGIES = ["adapt_inf", "sequential", "random", "cluster_random", "full", "perplexity", "image_grounding"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_cannot_be_read_is_never_selected(ctx: StageContext, strategy: str) -> None:
    frame = candidates(ctx)
    table = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    # All of one cluster, so that it has nothing to give, and some of the others.
    faulty = frame["sample_id"][(table["cluster"] == 1) | (table.index % 7 == 0)].tolist()
    put_faults(ctx, faulty)
    left = 140 - len(faulty)
    changed = with_params(ctx.project.root, select={"strategy": strategy, "budget": 0.3})
    report = select.run(changed)
    selected, told = outcome(changed)
    assert not set(selected["sample_id"]) & set(faulty)
    new = int((frame["drop"] == "new")[~frame["sample_id"].isin(faulty)].sum())
    budget = int(0.3 * left)
    expected = {"full": left, "sequential": min(budget, new)}.get(strategy, budget)
    assert len(selected) == told["budget"] == expected
    assert (told["candidates"], told["unreadable"], report["unreadable"]) == (140, len(faulty), len(faulty))
    assert len(told["clusters"]) == table["cluster"].max() + 1
    assert [row["size"] for row in told["clusters"]][1] == 0
    assert sum(row["size"] for row in told["clusters"]) == left


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("split", ["equal", "proportional", "density", "loss"])
def test_a_round_that_cannot_be_read_at_all_selects_nothing(ctx: StageContext, strategy: str, split: str) -> None:
    put_faults(ctx, candidates(ctx)["sample_id"].tolist())
    changed = with_params(ctx.project.root, select={"strategy": strategy, "budget": 0.3, "split": split})
    assert select.run(changed)["selected"] == 0
    assert len(outcome(changed)[0]) == 0


def test_a_sketch_pass_that_names_no_faults_is_refused(ctx: StageContext) -> None:
    (ctx.input("sketch") / "faults.parquet").unlink()
    with pytest.raises(StageInputError, match=r"faults\.parquet: is not there"):
        select.run(ctx)


def test_a_score_that_is_no_expert_may_be_the_strategy(ctx: StageContext) -> None:
    changed = with_params(ctx.project.root, select={"strategy": "el2n", "scores": ["perplexity"], "budget": 20})
    select.run(changed)
    _, table = outcome(changed)
    assert {row["selector"] for row in table["clusters"]} == {"el2n"}
    assert list(table["clusters"][0]["entropies"]) == ["perplexity"]


def test_scores_that_say_nothing_still_give_the_budget(ctx: StageContext) -> None:
    sample_ids = candidates(ctx)["sample_id"]
    put_scores(ctx, sample_ids, {name: np.full(140, np.nan) for name in SCORES})
    select.run(ctx)
    selected, table = outcome(ctx)
    assert len(selected) == 42
    assert {row["selector"] for row in table["clusters"]} == {"uniform"}
    assert all(row["margin"] is None for row in table["clusters"])


def test_a_strategy_that_is_none_is_named(ctx: StageContext) -> None:
    with pytest.raises(ConfigError, match=r"select\.strategy"):
        select.run(with_params(ctx.project.root, select={"strategy": "best"}))
    assert not ctx.project.output(ctx.round, "select").exists()


def test_inputs_of_other_samples_are_refused(ctx: StageContext) -> None:
    with pytest.raises(StageInputError, match="no score grand"):
        select.run(with_params(ctx.project.root, select={"scores": ["grand"]}))
    path = ctx.input("cluster") / "assignments.parquet"
    write_parquet(path, pd.read_parquet(path).iloc[::-1])
    with pytest.raises(StageInputError, match="not the round's candidates"):
        select.run(ctx)


def test_a_score_that_takes_the_highest(ctx: StageContext) -> None:
    frame = candidates(ctx)
    values = np.random.default_rng(1).normal(size=len(frame))
    put_scores(ctx, frame["sample_id"], {"perplexity": values, "visnec": values})
    ctx = with_params(ctx.project.root, select={"budget": 0.3, "scores": ["perplexity"], "strategy": "visnec"})
    select.run(ctx)
    selected, table = outcome(ctx)
    assert (selected["stratum"] == HIGHEST).all()
    assert set(selected["selector"]) == {"visnec"}
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    for row in table["clusters"]:
        inside = (assignments["cluster"] == row["cluster"]).to_numpy()
        taken = frame["sample_id"].isin(selected["sample_id"]).to_numpy()
        assert row["selected"] == row["budget"] == (inside & taken).sum()
        assert not row["selected"] or values[inside & taken].min() > values[inside & ~taken].max(initial=-np.inf)
