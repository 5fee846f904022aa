"""A pool version written out is a drop that holds the same samples, in either form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from make_drop import make_drop

from adapt_inf.checkout import checkout
from adapt_inf.config import Params
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import Known, take_in
from adapt_inf.data.manifest import MANIFEST, read_manifest
from adapt_inf.data.pool import build_pool, create_base_pool, no_pruned
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.lineage import Round, write_round
from adapt_inf.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A base pool, and r001's with a second drop, two of its samples pruned, and both suites."""
    project = Project(tmp_path_factory.mktemp("checkout") / "garden")
    first, second = (
        make_drop(project.drop(name), name, train=40, eval=8, seed=seed, form=form)
        for seed, (name, form) in enumerate((("first", "llava"), ("second", "messages")))
    )
    create_base_pool(project.output("base", "pool"), first, Params())
    ingest = project.output("r001", "ingest")
    take_in(read_drop(second), Known(), ingest, Params().ingest, "r001")
    gone = ["first/train-0003", "second/train-0004"]
    pruned = (
        no_pruned().reindex(range(2)).assign(sample_id=gone, cluster=0, similarity=1.0, duplicate_of="first/train-0001")
    )
    build_pool(project.output("r001", "pool"), project.output("base", "pool"), ingest, "r001", pruned)
    write_round(project, Round("r001", "base", "second", "adapt_inf", status="finished"))
    return project


def contents(pool: Path) -> pd.DataFrame:
    frame = read_manifest(pool / MANIFEST)
    frame = frame[frame["live"]]
    return pd.DataFrame({"content": frame["content_hash"], "skill": frame["skill"]}).sort_values(
        "content", ignore_index=True
    )


@pytest.mark.parametrize("form", ["parquet", "llava"])
def test_what_comes_out_goes_in_again_the_same(project: Project, tmp_path: Path, form: str) -> None:
    assert checkout(project, "r001", tmp_path / "out", form) == 78
    again = create_base_pool(tmp_path / "pool", tmp_path / "out", Params())
    assert again["live"] == 78
    before = contents(project.output("r001", "pool"))
    pd.testing.assert_frame_equal(contents(tmp_path / "pool"), before)
    suites = [project.output("r001", "pool") / "suites" / f"{name}.json" for name in ("first", "second")]
    hashes = read_json(tmp_path / "pool" / "suites" / "pool-r001.json")
    for key, values in hashes.items():
        assert sorted(values) == sorted(value for path in suites for value in read_json(path)[key])


def test_ingest_sets_nothing_aside(project: Project, tmp_path: Path) -> None:
    checkout(project, "r001", tmp_path / "out", "llava")
    report = take_in(read_drop(tmp_path / "out"), Known(), tmp_path / "ingest", Params().ingest, "r001")
    assert (report["train"], report["eval"], report["rejected"]) == (78, 16, 0)
    assert report["drop"] == "pool-r001"


def test_parquet_is_plain(project: Project, tmp_path: Path) -> None:
    checkout(project, "base", tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "train-00000.parquet").to_pylist()
    assert len(rows) == 40
    assert rows[0]["id"] == "first/train-0000"
    assert rows[0]["images"][0]["bytes"].startswith(b"\x89PNG")
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]


def test_llava_is_a_list_beside_pictures(project: Project, tmp_path: Path) -> None:
    checkout(project, "base", tmp_path / "out", "llava")
    rows = json.loads((tmp_path / "out" / "train.json").read_text(encoding="utf-8"))
    assert rows[0]["conversations"][0] == {"from": "human", "value": "<image>\nWhat colour is the square?"}
    assert (tmp_path / "out" / rows[0]["image"]).read_bytes().startswith(b"\x89PNG")
    assert [len(row["image"]) for row in rows if isinstance(row.get("image"), list)] == [2] * 10
    assert "image" not in rows[4]


def test_the_same_pool_comes_out_the_same(project: Project, tmp_path: Path) -> None:
    for name in ("one", "two"):
        checkout(project, "r001", tmp_path / name)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")


def test_what_stands_in_the_way_is_named(project: Project, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(AdaptInfError, match=r"full is not empty\."):
        checkout(project, "r001", tmp_path / "full")
    with pytest.raises(RoundError, match=r"round r009: there is no such round"):
        checkout(project, "r009", tmp_path / "out")
    write_round(project, Round("r002", "r001", "third", "adapt_inf", status="finished"))
    with pytest.raises(RoundError, match=r"r002: its pool is not on this machine\.\n.*adapt-inf pull r002"):
        checkout(project, "r002", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty").mkdir()
    assert checkout(project, "r001", tmp_path / "empty") == 78


def test_a_killed_checkout_leaves_nothing_that_looks_whole(project: Project, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from adapt_inf import checkout as module, files\n"
        "from adapt_inf.project import Project\n"
        f"files.publish_folder = lambda *_: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "module.checkout(Project(Path(sys.argv[1])), 'r001', Path(sys.argv[2]), 'llava')\n"
    )
    command = [sys.executable, "-c", script, str(project.root), str(tmp_path / "out")]
    assert subprocess.run(command, check=False, env=dict(os.environ), capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert checkout(project, "r001", tmp_path / "out", "llava") == 78
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
