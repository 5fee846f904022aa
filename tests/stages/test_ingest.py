"""The ingest stage on whole drops: every form, every kind of bad input, and a kill -9 in the middle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from killing import kill_midway
from make_drop import FORMS, make_drop

from adapt_inf.config import Params, load_params
from adapt_inf.data.manifest import candidates, read_manifest
from adapt_inf.data.pool import build_pool, create_base_pool, no_pruned
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import DropError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.project import Project
from adapt_inf.stages import ingest
from adapt_inf.stages.context import StageContext


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose base pool holds a drop, and where another one waits."""
    project = Project(tmp_path / "project")
    make_drop(tmp_path / "first", "first", seed=1)
    create_base_pool(project.output("base", "pool"), tmp_path / "first", Params())
    make_drop(project.drop("squares"), "squares")
    return project


def context(project: Project, drop: str = "squares", round_id: str = "r001", parent: str = "base") -> StageContext:
    return StageContext(project, round_id, Params(round=round_id, parent=parent, drop=drop))


def change(project: Project, change_rows: Any, split: str = "train") -> None:
    """Rewrite a split of the waiting drop."""
    file = project.drop("squares") / f"{split}.json"
    file.write_text(json.dumps(change_rows(json.loads(file.read_text()))))


def test_the_report_counts(project: Project) -> None:
    report = ingest.run(context(project))
    assert report == {
        "read": 52,
        "train": 40,
        "eval": 12,
        "rejected": 0,
        "leaks": 0,
        "duplicates": {"train": 0, "eval": 0},
        "untested_skills": 0,
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_brings_the_same_samples(project: Project, form: str) -> None:
    shutil.rmtree(project.drop("squares"))
    make_drop(project.drop("squares"), "squares", form=form)
    ingest.run(context(project))
    frame = candidates(context(project))
    assert len(frame) == 80
    samples = SampleStore(frame).samples(40, 80)
    assert [sample.sample_id for sample in samples] == [f"squares/train-{n:04d}" for n in range(40)]
    assert frame["content_hash"].iloc[40:].tolist() == _content(project, form)


def _content(project: Project, form: str) -> list[str]:
    """Content of the waiting drop as the plain LLaVA form has it."""
    if form != "llava":
        shutil.rmtree(project.drop("squares"))
        make_drop(project.drop("squares"), "squares")
        ingest.run(context(project, round_id="r002"))
    frame = read_manifest(project.output("r001" if form == "llava" else "r002", "ingest") / "manifest.parquet")
    return [str(content) for content in frame["content_hash"]]


def test_two_runs_are_the_same_by_hash(project: Project) -> None:
    ingest.run(context(project))
    first = folder_digest(project.output("r001", "ingest"))
    shutil.rmtree(project.round("r001"))
    ingest.run(context(project))
    assert folder_digest(project.output("r001", "ingest")) == first


def test_bad_samples_are_set_aside_and_the_rest_goes_on(project: Project) -> None:
    images = project.drop("squares") / "images"
    (images / "train-0001-0.png").unlink()
    (images / "train-0003-0.png").write_bytes(b"no picture")

    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[5]["image"] = "../first/images/train-0000-0.png"
        rows[7]["conversations"].pop()
        rows[8]["conversations"][0]["value"] = "<image><image> What?"
        rows[9]["metric"] = "bleu"
        return rows

    change(project, spoil)
    report = ingest.run(context(project))
    assert (report["train"], report["rejected"]) == (34, 6)
    out = project.output("r001", "ingest")
    frame = pd.read_parquet(out / "rejects.parquet")
    reasons = {row.sample_id: (row.kind, row.reason) for row in frame.itertuples()}
    assert {name: kind for name, (kind, _) in reasons.items()} == {
        "squares/train-0001": "missing_image",
        "squares/train-0003": "image",
        "squares/train-0005": "path",
        "squares/train-0007": "assistant",
        "squares/train-0008": "image_tokens",
        "squares/train-0009": "metric",
    }
    assert reasons["squares/train-0001"][1] == "'images/train-0001-0.png' is not in the drop"
    assert reasons["squares/train-0005"][1].endswith("climbs with `..`; paths stay inside the drop")
    assert reasons["squares/train-0008"][1] == "2 image tokens for 1 images"
    written = read_json(out / "report.json")
    assert written["rejected"] == 6
    assert sum(written["rejected_by_kind"].values()) == 6
    assert len(written["reasons"]) == 6
    kept = set(read_manifest(out / "manifest.parquet")["sample_id"])
    assert not kept & set(reasons)


def test_a_drop_that_is_not_there_is_refused(project: Project) -> None:
    with pytest.raises(DropError, match="no folder"):
        ingest.run(context(project, drop="missing"))


def test_leaks_and_duplicates_against_the_parents_pool(project: Project) -> None:
    first = project.root.parent / "first"
    shutil.copytree(first / "images", project.drop("squares") / "first")
    known = [_moved(row) for row in json.loads((first / "train.json").read_text())]
    tested = [_moved(row) for row in json.loads((first / "eval.json").read_text())]
    change(project, lambda rows: rows + known[:6] + tested[:5])
    change(project, lambda rows: rows + known[:5], "eval")
    report = ingest.run(context(project))
    assert report["duplicates"] == {"train": 6, "eval": 0}
    assert report["leaks"] == 10
    assert (report["train"], report["eval"]) == (40, 12)
    hashes = {digest for row in candidates(context(project))["image_hashes"] for digest in row}
    suites = [read_json(project.output("base", "pool") / "suites" / "first.json")]
    suites.append(read_json(project.output("r001", "ingest") / "suite_hashes.json"))
    assert all(hashes.isdisjoint(suite["images"]) for suite in suites)


def _moved(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the first drop as it stands in the waiting one, its pictures in a folder of their own."""
    return json.loads(json.dumps({**row, "id": f"first-{row['id']}"}).replace("images/", "first/"))


def test_a_name_that_is_taken_is_refused(project: Project) -> None:
    ingest.run(context(project))
    build_pool(
        project.output("r001", "pool"),
        project.output("base", "pool"),
        project.output("r001", "ingest"),
        "r001",
        no_pruned(),
    )
    with pytest.raises(DropError, match="in the pool already"):
        ingest.run(context(project, round_id="r002", parent="r001"))


def test_killed_in_the_middle_it_goes_on_to_the_same_hash(project: Project) -> None:
    shutil.rmtree(project.drop("squares"))
    make_drop(project.drop("squares"), "squares", train=1500, eval=12, form="parquet")
    values = {"round": "r001", "parent": "base", "drop": "squares", "ingest": {"shard_samples": 20}}
    for folder in (project.root, project.round("r001")):
        folder.mkdir(exist_ok=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
    left = kill_midway(project.root, "r001", "ingest", ".state/train-*.json", after=3)
    assert 3 <= len(left) < 75
    ctx = StageContext(project, "r001", load_params(project.params_of("r001")))
    shards = left[0].parent.parent / "shards"
    finished = {file.name: file.stat().st_ino for file in sorted(shards.glob("*.parquet"))[: len(left)]}
    ingest.run(ctx)
    out = project.output("r001", "ingest")
    assert all((out / "shards" / name).stat().st_ino == inode for name, inode in finished.items())
    resumed = folder_digest(out)
    shutil.rmtree(out)
    ingest.run(ctx)
    assert folder_digest(out) == resumed
