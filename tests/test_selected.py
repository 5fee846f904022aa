"""What a round trained on, written out: the samples of select/selected.parquet, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from machine import copy_project

from adapt_inf.cli import main
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import read_shard
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.project import Project
from adapt_inf.selected import write_selected

CHOICE = ["cluster", "selector", "score", "stratum"]


def chosen(project: Project, round_id: str) -> pd.DataFrame:
    return pd.read_parquet(project.output(round_id, "select") / "selected.parquet")


def samples(project: Project) -> dict[str, Sample]:
    """Every sample that any pool or ingest of the project holds, by id."""
    shards = project.rounds.glob("*/*/shards/*.parquet")
    return {sample.sample_id: sample for path in shards for sample in read_shard(path)}


@pytest.mark.parametrize("round_id", ["r001", "r002"])
def test_parquet_has_the_samples_and_their_scores(two_rounds: Project, tmp_path: Path, round_id: str) -> None:
    expected, known = chosen(two_rounds, round_id), samples(two_rounds)
    assert write_selected(two_rounds, round_id, tmp_path / "out.parquet") == len(expected)
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == expected["sample_id"].tolist()
    for row, choice in zip(rows, expected[CHOICE].to_dict("records"), strict=True):
        sample = known[row["id"]]
        assert [picture["bytes"] for picture in row["images"]] == list(sample.images)
        assert (row["skill"], row["drop"]) == (sample.skill, row["id"].partition("/")[0])
        assert {name: row[name] for name in CHOICE} == choice


def test_llava_has_its_pictures_beside_it(two_rounds: Project, tmp_path: Path) -> None:
    assert main(["selected", "-C", str(two_rounds.root), "--out", str(tmp_path / "out.json")]) == 0
    expected, known = chosen(two_rounds, "r002"), samples(two_rounds)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["id"] for row in rows] == expected["sample_id"].tolist()
    for row, choice in zip(rows, expected[CHOICE].to_dict("records"), strict=True):
        paths = row.get("image", [])
        files = [tmp_path / path for path in ([paths] if isinstance(paths, str) else paths)]
        assert [file.read_bytes() for file in files] == list(known[row["id"]].images)
        assert row["conversations"][-1]["from"] == "gpt"
        assert {name: row[name] for name in CHOICE} == choice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-images", "out.json"]


def test_pictures_that_a_list_names_are_not_replaced(two_rounds: Project, tmp_path: Path) -> None:
    write_selected(two_rounds, "r001", tmp_path / "head.json")
    (tmp_path / "head.json").rename(tmp_path / "head-r001.json")
    with pytest.raises(AdaptInfError, match="head-images is there already"):
        write_selected(two_rounds, "r002", tmp_path / "head.json")


def test_what_is_there_is_left_alone(two_rounds: Project, tmp_path: Path) -> None:
    for name, message in (("out.json", "out.json is there already"), ("out-images", "out-images is there already")):
        (tmp_path / name).mkdir()
        with pytest.raises(AdaptInfError, match=message):
            write_selected(two_rounds, "r001", tmp_path / "out.json")
        (tmp_path / name).rmdir()
    with pytest.raises(AdaptInfError, match="neither JSON nor Parquet"):
        write_selected(two_rounds, "r001", tmp_path / "out.csv")
    with pytest.raises(RoundError, match="the lineage begins there"):
        write_selected(two_rounds, "base", tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_not_here_are_named_with_the_mend(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "thin")
    shutil.rmtree(project.output("r002", "ingest"))
    for mend in ("Where r002 was run, rounds/r002/ingest has them, or had", "Bring them with `adapt-inf pull r001`."):
        with pytest.raises(RoundError, match=r"of its 54 selected samples are not on this machine") as raised:
            write_selected(project, "r002", tmp_path / "out.json")
        assert mend in raised.value.mend
        shutil.rmtree(project.output("r001", "pool"), ignore_errors=True)
    assert not (tmp_path / "out.json").exists()


def test_killed_before_the_list_is_there_it_begins_anew(two_rounds: Project, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from adapt_inf import selected as module\n"
        "from adapt_inf.project import Project\n"
        "publish = module.publish_folder\n"
        f"module.publish_folder = lambda *pair: (publish(*pair), os.kill(os.getpid(), {int(signal.SIGKILL)}))\n"
        "module.write_selected(Project(Path(sys.argv[1])), 'r001', Path(sys.argv[2]))\n"
    )
    out = tmp_path / "out.json"
    command = [sys.executable, "-c", script, str(two_rounds.root), str(out)]
    assert subprocess.run(command, check=False, env=dict(os.environ), capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    assert write_selected(two_rounds, "r001", out) == 48
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-images", "out.json"]
