"""The prune stage: the pool within its cap, the most redundant gone, each tombstone naming what stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selection_project import make_selection_round, put_sketches, with_params

from adapt_inf.data.manifest import candidates, read_pool
from adapt_inf.errors import StageInputError
from adapt_inf.files import folder_digest, read_json, write_parquet
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages import cluster, prune, select
from adapt_inf.stages.context import StageContext

KNOBS = {"cluster": {"k": 4}, "select": {"budget": 40}}


def make(root: Path, cap: int | None, **more: int) -> StageContext:
    ctx = make_selection_round(root, prune={"pool_cap": cap}, **KNOBS, **more)
    cluster.run(ctx)
    select.run(ctx)
    return ctx


@pytest.mark.parametrize("cap", [None, 140, 100_000])
def test_nothing_goes_where_all_fit(tmp_path: Path, cap: int | None) -> None:
    ctx = make(tmp_path, cap)
    assert prune.run(ctx) == {"candidates": 140, "pruned": 0, "live": 140}
    pool = read_pool(ctx.project.output(ctx.round, "pool"))
    assert pool.loc[pool["live"], "sample_id"].tolist() == candidates(ctx)["sample_id"].tolist()
    assert (~pool["live"]).sum() == 1  # the parent's


def test_the_cap_is_met_by_equal_shares_and_tombstones_say_why(tmp_path: Path) -> None:
    ctx = make(tmp_path, 90)
    report = prune.run(ctx)
    assert report == {"candidates": 140, "pruned": 50, "live": 90}
    frame = candidates(ctx)
    pool = read_pool(ctx.project.output(ctx.round, "pool")).set_index("sample_id")
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet").set_index("sample_id")["cluster"]
    live = pool.index[pool["live"]]
    sizes = np.bincount(assignments)
    kept = np.bincount(assignments.loc[live], minlength=len(sizes))
    assert kept.tolist() == cluster_budgets(sizes, 90).tolist()
    assert read_json(ctx.project.output(ctx.round, "pool") / "pool.json")["pruned"] == 50

    gone = pool[pool["pruned_round"] == ctx.round]
    rows = pd.Series(frame.index, index=frame["sample_id"])
    sketches = SketchStore(ctx.input("sketch")).all()
    selected = set(pd.read_parquet(ctx.input("select") / "selected.parquet")["sample_id"])
    for name, tomb in gone.iterrows():
        assert tomb["pruned_cluster"] == assignments[name] == assignments[tomb["duplicate_of"]]
        assert pool.loc[tomb["duplicate_of"], "live"]
        place = (name not in selected, name)
        others = [
            other
            for other in live
            if assignments[other] == assignments[name] and (other not in selected, other) < place
        ]
        unit = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
        cosines = unit[rows[others]] @ unit[rows[name]]
        assert tomb["similarity"] == pytest.approx(cosines.max(), abs=1e-3)
        assert tomb["similarity"] == pytest.approx(unit[rows[tomb["duplicate_of"]]] @ unit[rows[name]], abs=1e-5)


def test_copies_go_first_and_the_selected_one_stays(tmp_path: Path) -> None:
    ctx = make(tmp_path, 128, copies=12)
    frame = candidates(ctx)
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"]
    largest = assignments == 0
    copied = [row for row in range(12) if largest[row]]
    assert len(copied) >= 4, "the largest cluster gives all that goes"
    prune.run(ctx)
    selected = set(pd.read_parquet(ctx.input("select") / "selected.parquet")["sample_id"])
    pool = read_pool(ctx.project.output(ctx.round, "pool")).set_index("sample_id")
    for row in copied:
        pair = frame["sample_id"].iloc[[row, 80 + row]].tolist()
        stays = min(pair, key=lambda name: (name not in selected, name))
        (goes,) = set(pair) - {stays}
        assert pool.loc[stays, "live"] or pool.loc[stays, "similarity"] < 0.999
        assert not pool.loc[goes, "live"]


def test_a_cap_below_the_number_of_clusters_keeps_some_clusters_empty(tmp_path: Path) -> None:
    ctx = make(tmp_path, 2)
    assert prune.run(ctx)["live"] == 2
    pool = read_pool(ctx.project.output(ctx.round, "pool"))
    gone = pool[pool["pruned_round"] == ctx.round]
    without = gone[gone["duplicate_of"].isna()]
    assert len(without) > 0
    assert without["similarity"].isna().all()
    assert gone.loc[gone["duplicate_of"].notna(), "similarity"].notna().all()


def test_any_memory_and_a_second_run_give_the_same_bytes(tmp_path: Path) -> None:
    ctx = make(tmp_path, 70)
    digests = set()
    for memory in (1024, 1024, 1, 2):
        prune.run(with_params(tmp_path, prune={"pool_cap": 70}, memory_mb=memory, **KNOBS))
        digests.add(folder_digest(ctx.project.output(ctx.round, "pool")))
    assert len(digests) == 1


@pytest.mark.parametrize("cap", [90, 132, 136])
def test_what_cannot_be_read_goes_first_and_takes_no_clusters_share(tmp_path: Path, cap: int) -> None:
    ctx = make(tmp_path, cap)
    names, sketches = candidates(ctx)["sample_id"], SketchStore(ctx.input("sketch")).all()
    faulty = np.arange(3, 140, 20)  # 7 of 140
    sketches[faulty] = 0
    put_sketches(ctx, names, sketches)
    write_parquet(ctx.input("sketch") / "faults.parquet", pd.DataFrame({"sample_id": names[faulty], "fault": "long"}))
    cluster.run(ctx)
    prune.run(ctx)
    pool = read_pool(ctx.project.output(ctx.round, "pool")).set_index("sample_id")
    assert pool["live"].sum() == cap
    stays = pool.loc[names.iloc[faulty], "live"]
    assert stays.sum() == max(0, cap - 133)
    assert stays.sort_index().tolist() == sorted(stays, reverse=True)  # by id
    gone = pool.loc[stays.index[~stays]]
    assert (gone["pruned_round"] == ctx.round).all()
    assert gone[["similarity", "duplicate_of"]].isna().all(axis=None)
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet").set_index("sample_id")["cluster"]
    legible = names.drop(faulty)
    sizes = np.bincount(assignments.loc[legible])
    kept = np.bincount(assignments.loc[[name for name in legible if pool.loc[name, "live"]]], minlength=len(sizes))
    assert kept.tolist() == cluster_budgets(sizes, cap).tolist()


def test_hidden_states_decide_where_they_are_asked_for(tmp_path: Path) -> None:
    ctx = make(tmp_path, 120)
    with_hidden = with_params(tmp_path, prune={"pool_cap": 120, "features": "hidden"}, **KNOBS)
    with pytest.raises(StageInputError, match="has no hidden features"):
        prune.run(with_hidden)
    frame, sketches = candidates(ctx), SketchStore(ctx.input("sketch")).all()
    cluster_of = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"]
    members = np.flatnonzero(cluster_of == 0)
    hidden = np.eye(140, dtype=np.float32)
    hidden[members[1::2]] = hidden[members[0]]  # half of the largest cluster says the same
    put_sketches(ctx, frame["sample_id"], sketches, hidden)
    prune.run(with_hidden)
    pool = read_pool(ctx.project.output(ctx.round, "pool")).set_index("sample_id")
    gone = pool[pool["pruned_round"] == ctx.round]
    assert len(gone) == 20
    assert set(gone.index) <= set(frame["sample_id"].iloc[[members[0], *members[1::2]]])
    assert np.allclose(gone["similarity"], 1)


def test_clusters_of_other_samples_are_refused(tmp_path: Path) -> None:
    ctx = make(tmp_path, 90)
    path = ctx.input("cluster") / "assignments.parquet"
    write_parquet(path, pd.read_parquet(path).iloc[::-1])
    with pytest.raises(StageInputError, match="not the round's candidates"):
        prune.run(ctx)
    assert not ctx.project.output(ctx.round, "pool").exists()
