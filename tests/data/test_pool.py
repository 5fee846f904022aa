"""Pool versions: cheap where nothing changed, complete where something did, the same for the same inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_drop import make_drop

from adapt_inf.config import Ingest, Params
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import Known, take_in
from adapt_inf.data.manifest import read_pool
from adapt_inf.data.pool import build_pool, create_base_pool, no_pruned
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import SampleStore, read_shard
from adapt_inf.errors import DropError, StageInputError
from adapt_inf.files import folder_digest, read_json

PARAMS = Params(ingest=Ingest(shard_samples=10))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base pool of three shards and a suite, and a round's ingest of two shards and a suite; nobody writes here."""
    folder = tmp_path_factory.mktemp("inputs")
    base, ingest = folder / "base", folder / "ingest"
    create_base_pool(base, make_drop(folder / "a", "first", train=30, eval=6), PARAMS)
    drop = read_drop(make_drop(folder / "b", "second", train=20, eval=4))
    take_in(drop, Known.of_pool(base), ingest, PARAMS.ingest, "r001")
    return base, ingest


def prune(*names: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": list(names),
            "cluster": np.arange(len(names), dtype=np.int32),
            "similarity": np.linspace(0.5, 0.9, len(names), dtype=np.float32),
            "duplicate_of": ["second/train-0000"] * len(names),
        }
    )


def first(*numbers: int) -> list[str]:
    return [f"first/train-{number:04d}" for number in numbers]


def live_samples(pool: Path) -> list[Sample]:
    rows = read_pool(pool)
    rows = rows[rows["live"]]
    return SampleStore(rows.assign(shard=str(pool / "shards") + "/" + rows["shard"])).samples(0, len(rows))


def inodes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in (folder / "shards").iterdir()}


def next_ingest(folder: Path, pool: Path, round_id: str) -> Path:
    """The ingest of a drop of ten that only this round brings."""
    drop = read_drop(make_drop(folder / f"drop-{round_id}", f"third-{round_id}", train=10, eval=0))
    take_in(drop, Known.of_pool(pool), folder / f"ingest-{round_id}", PARAMS.ingest, round_id)
    return folder / f"ingest-{round_id}"


def test_an_empty_base_pool(tmp_path: Path) -> None:
    summary = create_base_pool(tmp_path / "pool", None, PARAMS)
    assert summary == {"round": "base", "live": 0, "tombstones": 0, "pruned": 0, "drops": {}, "skills": {}}
    assert len(read_pool(tmp_path / "pool")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]


def test_a_base_pool_of_a_drop(inputs: tuple[Path, Path]) -> None:
    base, _ = inputs
    rows = read_pool(base)
    assert (len(rows), set(rows["round"]), set(rows["drop"])) == (30, {"base"}, {"first"})
    assert [file.name for file in sorted((base / "suites").iterdir())] == ["first.json", "first.parquet"]
    assert read_json(base / "pool.json")["drops"] == {"first": 30}
    assert {path.name for path in base.iterdir()} == {"manifest.parquet", "shards", "suites", "pool.json"}


def test_a_base_pool_of_a_bad_drop_is_not_made(tmp_path: Path) -> None:
    folder = make_drop(tmp_path / "a", "first")
    for picture in (folder / "images").iterdir():
        picture.write_bytes(b"broken")
    with pytest.raises(DropError):
        create_base_pool(tmp_path / "pool", folder, PARAMS)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_unchanged_shards_are_the_parents_and_the_ingests(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    build_pool(tmp_path / "pool", base, ingest, "r001", no_pruned())
    assert inodes(tmp_path / "pool") == inodes(base) | inodes(ingest)
    suites = tmp_path / "pool" / "suites"
    assert {path.name for path in suites.iterdir()} == {
        f"{d}.{s}" for d in ("first", "second") for s in ("json", "parquet")
    }
    assert (suites / "first.parquet").stat().st_ino == (base / "suites" / "first.parquet").stat().st_ino
    assert (suites / "second.parquet").stat().st_ino == (ingest / "suite.parquet").stat().st_ino


def test_rows_stand_in_the_order_in_which_they_came(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    build_pool(tmp_path / "pool", base, ingest, "r001", prune(*first(2, 7)))
    names = first(*range(30)) + [f"second/train-{number:04d}" for number in range(20)]
    assert read_pool(tmp_path / "pool")["sample_id"].tolist() == names


def test_the_summary_counts(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    summary = build_pool(tmp_path / "pool", base, ingest, "r001", prune(*first(0, 1, 2, 3)))
    assert summary == read_json(tmp_path / "pool" / "pool.json")
    assert (summary["round"], summary["live"], summary["tombstones"], summary["pruned"]) == ("r001", 46, 4, 4)
    assert summary["drops"] == {"first": 26, "second": 20}
    # Two in eight of the thirty compare pictures, sample 2 among them.
    assert summary["skills"]["first/same"] == 7 - 1
    assert sum(summary["skills"].values()) == summary["live"]


def test_a_tombstone_carries_its_reason(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    pruned = prune(*first(4), "second/train-0003")
    build_pool(tmp_path / "pool", base, ingest, "r001", pruned)
    rows = read_pool(tmp_path / "pool").set_index("sample_id")
    dead = rows.loc[pruned["sample_id"]]
    assert not dead["live"].any()
    assert dead["pruned_round"].tolist() == ["r001", "r001"]
    assert dead["pruned_cluster"].tolist() == [0, 1]
    assert dead["similarity"].tolist() == [np.float32(0.5), np.float32(0.9)]
    assert dead["duplicate_of"].tolist() == ["second/train-0000"] * 2
    assert rows.drop(pruned["sample_id"])["pruned_round"].isna().all()
    assert rows["live"].sum() == 48


@pytest.mark.parametrize(("dead", "linked"), [(5, True), (6, False)])
def test_a_shard_less_than_half_alive_is_rewritten(
    tmp_path: Path, inputs: tuple[Path, Path], dead: int, linked: bool
) -> None:
    base, ingest = inputs
    build_pool(tmp_path / "pool", base, ingest, "r001", prune(*first(*range(10, 10 + dead))))
    shards = inodes(tmp_path / "pool")
    assert ("first-00001.parquet" in shards) == linked
    assert ("first-00001.r001.parquet" in shards) == (not linked)
    others = {name: inode for name, inode in inodes(base).items() if name != "first-00001.parquet"}
    assert others.items() <= shards.items()


def test_live_samples_of_a_rewritten_shard_keep_ids_and_bytes(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    dead = first(10, 11, 13, 14, 15, 17, 18)
    build_pool(tmp_path / "pool", base, ingest, "r001", prune(*dead))
    before = {sample.sample_id: sample for sample in live_samples(base)}
    after = [sample for sample in live_samples(tmp_path / "pool") if sample.sample_id in before]
    assert [sample.sample_id for sample in after] == [name for name in before if name not in dead]
    assert all(sample == before[sample.sample_id] for sample in after)
    kept = read_shard(tmp_path / "pool" / "shards" / "first-00001.r001.parquet")
    assert [sample.sample_id for sample in kept] == first(12, 16, 19)


def test_the_tombstones_of_a_rewritten_shard_stay_without_bytes(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    dead = first(*range(10, 17))
    build_pool(tmp_path / "pool", base, ingest, "r001", prune(*dead))
    rows = read_pool(tmp_path / "pool").set_index("sample_id")
    assert rows.loc[dead, "shard"].isna().all()
    assert (rows.loc[dead, "row"] == -1).all()
    assert rows.loc[first(17, 18, 19), "row"].tolist() == [0, 1, 2]
    assert (
        rows.loc[dead, "content_hash"].tolist()
        == read_pool(base).set_index("sample_id").loc[dead, "content_hash"].tolist()
    )


def test_a_shard_with_nothing_alive_goes(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    build_pool(tmp_path / "pool", base, ingest, "r001", prune(*first(*range(20, 30))))
    assert {name for name in inodes(tmp_path / "pool") if name.startswith("first")} == {
        "first-00000.parquet",
        "first-00001.parquet",
    }
    assert len(read_pool(tmp_path / "pool")) == 50


def test_tombstones_stay_over_rounds_and_shards_are_rewritten_again(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    build_pool(one, base, ingest, "r001", prune(*first(*range(10, 16))))
    build_pool(two, one, next_ingest(tmp_path, one, "r002"), "r002", prune(*first(16, 17, 18)))
    build_pool(three, two, next_ingest(tmp_path, two, "r003"), "r003", no_pruned())
    rows = read_pool(three).set_index("sample_id")
    assert rows["pruned_round"].value_counts().to_dict() == {"r001": 6, "r002": 3}
    assert rows.loc[first(19), "shard"].tolist() == ["first-00001.r002.parquet"]
    assert inodes(two).items() <= inodes(three).items()
    assert [s.sample_id for s in live_samples(three)] == rows.index[rows["live"]].tolist()
    assert len(rows) == 30 + 20 + 10 + 10
    assert read_json(three / "pool.json")["pruned"] == 0


def test_a_tombstone_in_a_shard_still_linked_counts_as_dead_later(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    one, two = tmp_path / "one", tmp_path / "two"
    build_pool(one, base, ingest, "r001", prune(*first(*range(10, 15))))
    assert "first-00001.parquet" in inodes(one)
    build_pool(two, one, next_ingest(tmp_path, one, "r002"), "r002", prune(*first(15)))
    assert "first-00001.r002.parquet" in inodes(two)
    assert [s.sample_id for s in read_shard(two / "shards" / "first-00001.r002.parquet")] == first(16, 17, 18, 19)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15, deadline=None
)
@given(dead=st.sets(st.integers(0, 49), max_size=45), shuffle=st.randoms(use_true_random=False))
def test_the_pool_depends_on_its_inputs_alone(
    tmp_path: Path, inputs: tuple[Path, Path], dead: set[int], shuffle: object
) -> None:
    base, ingest = inputs
    names = [*first(*range(30)), *(f"second/train-{number:04d}" for number in range(20))]
    pruned = prune(*(names[number] for number in sorted(dead)))
    build_pool(tmp_path / "one", base, ingest, "r001", pruned)
    order = list(range(len(pruned)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    (tmp_path / "two" / "shards").mkdir(parents=True, exist_ok=True)
    (tmp_path / "two" / "shards" / "left-over.parquet").write_bytes(b"of a killed run")
    build_pool(tmp_path / "two", base, ingest, "r001", pruned.iloc[order])
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    alive = [name for number, name in enumerate(names) if number not in dead]
    assert [sample.sample_id for sample in live_samples(tmp_path / "one")] == alive


@pytest.mark.parametrize("names", [["first/none"], ["first/train-0001", "first/train-0001"]])
def test_what_is_not_in_the_pool_cannot_be_pruned(tmp_path: Path, inputs: tuple[Path, Path], names: list[str]) -> None:
    with pytest.raises(StageInputError, match="first/"):
        build_pool(tmp_path / "pool", *inputs, "r001", prune(*names))


def test_a_tombstone_cannot_be_pruned_again(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    base, ingest = inputs
    build_pool(tmp_path / "one", base, ingest, "r001", prune(*first(3)))
    with pytest.raises(StageInputError, match="first/train-0003"):
        build_pool(tmp_path / "two", tmp_path / "one", next_ingest(tmp_path, base, "r002"), "r002", prune(*first(3)))


def test_building_changes_no_input(tmp_path: Path, inputs: tuple[Path, Path]) -> None:
    before = [folder_digest(folder) for folder in inputs]
    build_pool(tmp_path / "pool", *inputs, "r001", prune(*first(*range(9))))
    assert [folder_digest(folder) for folder in inputs] == before
