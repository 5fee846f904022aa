"""Manifests keep their types through files, and candidates stand in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt_inf.config import Params
from adapt_inf.data.manifest import (
    MANIFEST,
    SCHEMA,
    candidates,
    empty_manifest,
    manifest_frame,
    read_manifest,
    read_pool,
    write_manifest,
)
from adapt_inf.files import file_digest
from adapt_inf.project import Project
from adapt_inf.stages.context import StageContext


def row(name: str, **more: Any) -> dict[str, Any]:
    drop = name.split("/")[0]
    known = {"sample_id": name, "drop": drop, "skill": "s", "round": "r001", "shard": f"{drop}-00000.parquet"}
    return {**known, "row": 0, "n_images": 1, "content_hash": name, "image_hashes": ["h"], **more}


tombstone = st.fixed_dictionaries(
    {
        "live": st.just(False),
        "pruned_round": st.sampled_from(["r001", "r002"]),
        "pruned_cluster": st.integers(0, 99),
        "similarity": st.floats(-1, 1, width=32),
        "duplicate_of": st.just("d/0"),
        "shard": st.sampled_from([None, "d-00000.parquet"]),
    }
)
rows: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.one_of(st.just({}), st.just({"image_hashes": []}), tombstone), max_size=6
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
@given(more=rows)
def test_a_manifest_comes_back_with_its_types(tmp_path: Path, more: list[dict[str, Any]]) -> None:
    frame = manifest_frame([row(f"d/{number}", **values) for number, values in enumerate(more)])
    write_manifest(tmp_path / "one.parquet", frame)
    again = read_manifest(tmp_path / "one.parquet")
    pd.testing.assert_frame_equal(again, frame)
    assert again.dtypes.equals(empty_manifest().dtypes)
    write_manifest(tmp_path / "two.parquet", again)
    assert file_digest(tmp_path / "one.parquet") == file_digest(tmp_path / "two.parquet")


def test_an_empty_manifest_has_every_column() -> None:
    assert list(empty_manifest()) == SCHEMA.names
    assert len(empty_manifest()) == 0


def test_types_are_the_documented_ones() -> None:
    types = manifest_frame([row("d/0")]).dtypes.astype(str)
    assert types[["row", "n_images", "live", "pruned_cluster", "similarity"]].tolist() == [
        "int32",
        "int16",
        "bool",
        "Int32",
        "float32",
    ]


def test_candidates_are_the_live_pool_then_the_new(tmp_path: Path) -> None:
    project = Project(tmp_path)
    pool, ingest = project.output("base", "pool"), project.output("r001", "ingest")
    write_manifest(pool / MANIFEST, manifest_frame([row("b/2"), row("a/1", live=False, shard=None), row("a/0")]))
    write_manifest(ingest / MANIFEST, manifest_frame([row("c/1"), row("c/0")]))
    frame = candidates(StageContext(project, "r001", Params(round="r001")))
    assert frame["sample_id"].tolist() == ["b/2", "a/0", "c/1", "c/0"]
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame["shard"].iloc[0] == str(pool / "shards" / "b-00000.parquet")
    assert frame["shard"].iloc[2] == str(ingest / "shards" / "c-00000.parquet")
    assert len(read_pool(pool)) == 3
