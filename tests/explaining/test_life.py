"""`adapt-inf explain` for a selected, an unselected, a pruned, a rejected, a repeated and an unknown sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from machine import copy_project
from make_drop import make_drop

from adapt_inf.cli import main
from adapt_inf.config import Params
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import Known, take_in
from adapt_inf.data.manifest import MANIFEST, read_manifest
from adapt_inf.data.pool import build_pool, create_base_pool, no_pruned
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.explaining.life import explain
from adapt_inf.explaining.names import SampleNameError
from adapt_inf.files import write_text
from adapt_inf.lineage import Round, move_head, write_round
from adapt_inf.project import Project


def told(project: Project, capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> str:
    assert main(["explain", "-C", str(project.root), name, *arguments]) == 0
    return capsys.readouterr().out


def words(text: str) -> str:
    """Without line ends, which fall where a line is full."""
    return " ".join(text.split())


# --- of whole rounds --------------------------------------------------------------------------------------------------


def test_a_selected_and_an_unselected_sample(two_rounds: Project, capsys: pytest.CaptureFixture[str]) -> None:
    selected = {
        r: set(pd.read_parquet(two_rounds.output(r, "select") / "selected.parquet")["sample_id"])
        for r in ("r001", "r002")
    }
    manifest = read_manifest(two_rounds.output("r002", "pool") / MANIFEST)
    for row in manifest[manifest["live"]].iloc[::9].itertuples():
        life = explain(two_rounds, row.sample_id)
        rounds = ["r001", "r002"] if row.round in ("base", "r001") else ["r002"]
        assert [each["round"] for each in life["rounds"]] == rounds
        assert [each["selected"] for each in life["rounds"]] == [row.sample_id in selected[r] for r in rounds]
        assert (life["kind"], life["round"], life["live"], life["pruned"]) == ("training", row.round, True, None)
        assert life["missing"] == []
    inside = sorted(set(manifest.loc[manifest["live"], "sample_id"]) & selected["r002"])[0]
    text = words(told(two_rounds, capsys, inside))
    assert "r002 selected: " in text
    assert "it is in the pool" in text
    assert json.loads(told(two_rounds, capsys, inside, "--json")) == explain(two_rounds, inside)


def test_without_the_heads_pool_nobody_says_what_is_in_it(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "clone")
    manifest = read_manifest(project.output("r001", "pool") / MANIFEST)
    shutil.rmtree(project.output("r002", "pool"))
    life = explain(project, manifest.loc[manifest["live"], "sample_id"].iloc[0])
    assert life["live"] is None
    assert "rounds/r002/pool" in life["missing"]
    assert explain(project, life["sample"], "r001")["live"] is True


def test_a_pruned_sample(two_rounds: Project, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(two_rounds.output("r002", "pool") / MANIFEST)
    row = manifest[manifest["pruned_round"] == "r001"].iloc[0]
    life = explain(two_rounds, row["sample_id"])
    assert life["live"] is False
    assert life["pruned"]["round"] == "r001"
    assert life["pruned"]["of"] == row["duplicate_of"]
    assert life["pruned"]["similarity"] == pytest.approx(row["similarity"])
    assert [each["round"] for each in life["rounds"]] == ["r001"]
    text = words(told(two_rounds, capsys, row["sample_id"]))
    assert f"pruned for good by r001 from cluster {row['pruned_cluster']}: {row['similarity']:.3f} similar" in text


def test_an_evaluation_sample_and_its_answers(two_rounds: Project, capsys: pytest.CaptureFixture[str]) -> None:
    life = explain(two_rounds, "first/eval-0001")
    assert (life["kind"], life["round"]) == ("evaluation", "r001")
    files = ["r001/evaluate/before", "r001/evaluate/predictions", "r002/evaluate/predictions"]
    for each, file in zip(life["answers"], files, strict=True):
        table = pd.read_parquet(two_rounds.rounds / f"{file}.parquet")
        row = table[table["sample_id"] == "first/eval-0001"].iloc[0]
        assert (each["prediction"], each["score"]) == (row["prediction"], row["score"])
    assert [each["round"] for each in life["answers"]] == ["base", "r001", "r002"]
    assert "never trained on" in words(told(two_rounds, capsys, "first/eval-0001"))


def test_an_end_of_an_id_will_do_where_no_other_has_it(two_rounds: Project) -> None:
    assert explain(two_rounds, "d/train-0007")["sample"] == "second/train-0007"
    with pytest.raises(SampleNameError) as raised:
        explain(two_rounds, "train-0007")
    assert raised.value.mend == "Name one: first/train-0007, known/train-0007, second/train-0007."


def test_an_unknown_sample_is_answered_with_the_closest(
    two_rounds: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "-C", str(two_rounds.root), "second/train-0107"]) == 1
    error = capsys.readouterr().err
    assert "there is no sample second/train-0107 on the line to r002" in error
    assert "second/train-0007" in error
    with pytest.raises(RoundError, match="there is no such round"):
        explain(two_rounds, "second/train-0007", "r009")


def test_on_the_line_to_an_earlier_round(two_rounds: Project) -> None:
    assert [each["round"] for each in explain(two_rounds, "first/train-0003", "r001")["rounds"]] == ["r001"]
    with pytest.raises(AdaptInfError, match="on no round of the line to r001; r002, on another, has it"):
        explain(two_rounds, "second/train-0003", "r001")


# --- of what a drop brought in vain -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A base pool, and r001 with a drop that repeats samples of the pool, of its own suite and of itself."""
    project = Project(tmp_path_factory.mktemp("vain") / "garden")
    known = make_drop(project.root.parent / "known", "known", train=16, eval=8)
    create_base_pool(project.output("base", "pool"), known, Params())
    for name in ("evaluate", "model"):
        project.output("base", name).mkdir()
    drop = make_drop(project.drop("new"), "new", train=16, eval=8, seed=1)
    train, evaluation = (json.loads((drop / f"{split}.json").read_text()) for split in ("train", "eval"))
    old = json.loads((known / "train.json").read_text())
    shutil.copytree(known / "images", drop / "old")
    again = {**old[0], "id": "again", "image": old[0]["image"].replace("images", "old")}
    peek = {**train[1], "id": "peek", "image": evaluation[0]["image"]}
    gone = {**train[1], "id": "gone", "image": "images/gone.png"}
    train += [again, {**train[1], "id": "twice"}, peek, gone]
    shown = {**evaluation[1], "id": "shown", "image": old[3]["image"].replace("images", "old")}
    (drop / "train.json").write_text(json.dumps(train))
    (drop / "eval.json").write_text(json.dumps([*evaluation, shown, {**evaluation[1], "id": "asked"}]))
    parent, ingest = project.output("base", "pool"), project.output("r001", "ingest")
    take_in(read_drop(drop, "new"), Known.of_pool(parent), ingest, Params().ingest, "r001")
    build_pool(project.output("r001", "pool"), parent, ingest, "r001", no_pruned())
    values = {"round": "r001", "parent": "base", "drop": "new"}
    write_text(project.params_of("r001"), yaml.safe_dump(values))
    write_text(project.params_file, "seed: 0\n")
    write_round(project, Round("r001", "base", "new", "adapt_inf", status="finished"))
    move_head(project, "r001")
    return project


@pytest.mark.parametrize(
    ("name", "kind", "of"),
    [
        ("new/again", "duplicate", "known/train-0000"),
        ("new/twice", "duplicate", "new/train-0001"),
        ("new/asked", "duplicate", "new/eval-0001"),
        ("new/peek", "rejected", "new/eval-0000"),
        ("new/shown", "rejected", "known/train-0003"),
        ("new/gone", "rejected", None),
    ],
)
def test_a_sample_that_was_left_out_names_what_it_repeats(
    garden: Project, name: str, kind: str, of: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    life = explain(garden, name)
    assert (life["sample"], life["kind"], life["round"], life["missing"]) == (name, kind, "r001", [])
    assert life[kind]["of"] == of
    assert life[kind]["file"].partition("#")[0] == ("eval.json" if name in ("new/asked", "new/shown") else "train.json")
    text = told(garden, capsys, name)
    assert of is None or of in text
    if name == "new/gone":
        assert "(missing_image)" in text


def test_without_the_drop_a_reject_keeps_its_reason(garden: Project, tmp_path: Path) -> None:
    shutil.copytree(garden.root, tmp_path / "clone")
    clone = Project(tmp_path / "clone")
    shutil.rmtree(clone.drop("new"))
    life: dict[str, Any] = explain(clone, "new/peek")
    assert life["rejected"]["reason"] == "an image of this training sample is in an evaluation suite"
    assert (life["rejected"]["of"], life["missing"]) == (None, ["drops/new"])
    with pytest.raises(SampleNameError, match="there is no sample new/again"):
        explain(clone, "new/again")


def test_a_drop_that_waits_says_so(garden: Project, tmp_path: Path) -> None:
    shutil.copytree(garden.root, tmp_path / "waiting")
    waiting = Project(tmp_path / "waiting")
    make_drop(waiting.drop("next"), "next", train=8, eval=0, seed=2)
    (waiting.drop("next") / "READY").touch()
    with pytest.raises(AdaptInfError, match="drop next waits"):
        explain(waiting, "next/train-0001")
