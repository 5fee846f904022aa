"""The cluster stage: assignments in candidate order, the curve of k, and pools of every awkward size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from selection_project import DIM, make_selection_round, put_faults, put_sketches, with_params

from adapt_inf.data.manifest import candidates
from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.files import folder_digest, read_array, read_json, write_parquet
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages import cluster


def test_clusters_are_the_skills_in_candidate_order(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path, cluster={"k": 6})
    report = cluster.run(ctx)
    out = ctx.input("cluster")
    frame, table = candidates(ctx), pd.read_parquet(out / "assignments.parquet")
    assert table["sample_id"].tolist() == frame["sample_id"].tolist()
    assert table.dtypes.astype(str).to_dict()["cluster"] == "int32"
    purity = table.groupby("cluster").apply(lambda rows: frame.loc[rows.index, "skill"].value_counts().max())
    assert purity.sum() / len(frame) > 0.95
    sizes = np.bincount(table["cluster"])
    assert (np.diff(sizes) <= 0).all()
    assert report["clusters"] == len(sizes)

    centroids = read_array(out / "centroids.npy")
    assert centroids.shape == (len(sizes), DIM)
    assert centroids.dtype == np.float32
    cosines = SketchStore(ctx.input("sketch")).all() @ centroids.T
    assert (cosines.argmax(axis=1) == table["cluster"]).mean() > 0.99
    np.testing.assert_allclose(table["similarity"], cosines[np.arange(len(frame)), table["cluster"]], atol=2e-3)
    assert read_json(out / "curve.json") == {"k": 6, "chosen_by": "given", "clusters": len(sizes), "curve": []}


def test_auto_stores_the_whole_curve_and_chooses_its_top(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path, old=300, new=100)
    cluster.run(ctx)
    curve = read_json(ctx.input("cluster") / "curve.json")
    assert curve["chosen_by"] == "silhouette"
    assert [point["k"] for point in curve["curve"]] == [5, 7, 10, 14, 20]
    assert curve["k"] == max(curve["curve"], key=lambda point: point["silhouette"])["k"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path)
    cluster.run(ctx)
    first = folder_digest(ctx.input("cluster"))
    cluster.run(ctx)
    assert folder_digest(ctx.input("cluster")) == first


@pytest.mark.parametrize("k", ["auto", 7])
def test_any_memory_gives_the_same_bytes(tmp_path: Path, k: int | str) -> None:
    ctx = make_selection_round(tmp_path, old=9000, new=500, cluster={"k": k})
    wide = np.random.default_rng(0).normal(size=(9500, 64)).astype(np.float32)
    put_sketches(ctx, candidates(ctx)["sample_id"], wide)
    digests = set()
    for memory in (1024, 1):  # 1 MB: blocks of a few hundred rows, and a subsample that lies in a file
        changed = with_params(tmp_path, cluster={"k": k}, memory_mb=memory)
        cluster.run(changed)
        digests.add(folder_digest(changed.input("cluster")))
    assert len(digests) == 1
    assert not [file for file in changed.project.work(changed.round).rglob("*") if file.is_file()]


def test_hidden_states_cluster_where_they_are_asked_for(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path, cluster={"k": 2, "features": "hidden"})
    with pytest.raises(StageInputError, match="has no hidden features"):
        cluster.run(ctx)
    frame = candidates(ctx)
    hidden = np.eye(3, dtype=np.float32)[(frame["drop"] == "new").to_numpy(dtype=int)]
    put_sketches(ctx, frame["sample_id"], SketchStore(ctx.input("sketch")).all(), hidden)
    assert cluster.run(ctx)["features"] == "hidden"
    table = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    assert ((table["cluster"] == 0) == (frame["drop"] == "old")).all()


def test_what_cannot_be_read_is_assigned_but_trains_no_centroid(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path, cluster={"k": 6})
    frame, sketches = candidates(ctx), SketchStore(ctx.input("sketch")).all()
    faulty = np.arange(0, 140, 3)
    sketches[faulty] = 0
    put_sketches(ctx, frame["sample_id"], sketches)
    put_faults(ctx, frame["sample_id"].iloc[faulty].tolist())
    report = cluster.run(ctx)
    assert (report["samples"], report["unreadable"], report["trained_on"]) == (140, len(faulty), 140 - len(faulty))
    table = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    assert (table["similarity"].iloc[faulty] == 0).all()
    assert np.allclose(np.linalg.norm(read_array(ctx.input("cluster") / "centroids.npy"), axis=1), 1, atol=1e-5)

    put_faults(ctx, frame["sample_id"].tolist())
    put_sketches(ctx, frame["sample_id"], np.zeros_like(sketches))
    put_faults(ctx, frame["sample_id"].tolist())
    assert cluster.run(ctx)["clusters"] == 1


def test_faults_that_are_not_there_or_of_other_samples_are_refused(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path)
    put_faults(ctx, ["no candidate"])
    with pytest.raises(StageInputError, match=r"faults\.parquet: its samples are not the round's candidates"):
        cluster.run(ctx)
    (ctx.input("sketch") / "faults.parquet").unlink()
    with pytest.raises(StageInputError, match=r"faults\.parquet: is not there"):
        cluster.run(ctx)


@pytest.mark.parametrize("k", ["auto", 1, 7])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_handful_of_samples(tmp_path: Path, n: int, k: int | str) -> None:
    ctx = make_selection_round(tmp_path, old=0, new=n, cluster={"k": k})
    cluster.run(ctx)
    table = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    assert sorted(set(table["cluster"])) == list(range(table["cluster"].max() + 1))
    assert len(table) == n


@pytest.mark.parametrize("k", ["auto", 5])
def test_identical_sketches_are_one_cluster(tmp_path: Path, k: int | str) -> None:
    ctx = make_selection_round(tmp_path, cluster={"k": k})
    put_sketches(ctx, candidates(ctx)["sample_id"], np.ones((140, DIM), dtype=np.float32))
    cluster.run(ctx)
    assert set(pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"]) == {0}
    assert read_json(ctx.input("cluster") / "curve.json")["clusters"] == 1


def test_no_cluster_at_all_is_refused(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path)
    with pytest.raises(ConfigError, match=r"cluster\.k"):
        cluster.run(with_params(tmp_path, cluster={"k": 0}))
    assert not ctx.project.output(ctx.round, "cluster").exists()


def test_signals_of_other_samples_are_refused(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path)
    write_parquet(ctx.input("sketch") / "signals.parquet", pd.DataFrame({"sample_id": ["one"]}))
    with pytest.raises(StageInputError, match="1 samples for 140 sketches"):
        cluster.run(ctx)
