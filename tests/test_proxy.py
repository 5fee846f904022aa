"""A proxy judges the candidates as if it were the parent's model, and travels with what a lineage begins from."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from miniature import make_miniature
from sketch_project import ROUND, context, make_round

from adapt_inf import lineage, sharing, versions
from adapt_inf.comparison import drawing
from adapt_inf.config import load_params, set_values
from adapt_inf.creation import create_project, definition
from adapt_inf.data.manifest import candidates
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import AdaptInfError, ModelError
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models.batches import encode
from adapt_inf.models.vlm import load_reader, load_vlm
from adapt_inf.project import Project
from adapt_inf.proxy import depends_on
from adapt_inf.review.tables import Review
from adapt_inf.review.words import in_short
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.runner import run_stage
from adapt_inf.verification import Verifier
from benchmarks.noop_project import make_noop_project, wait_drop

SMALL = {"dim": 64, "batch_size": 8, "shard_samples": 8}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than `miniature_model`."""
    return make_miniature(tmp_path_factory.mktemp("proxy") / "model", seed=1)


def with_proxy(root: Path, model: Path, proxy: Path) -> StageContext:
    ctx = make_round(root, model, sketch=SMALL | {"model": "proxy"}, cluster={"k": 3})
    shutil.copytree(proxy, ctx.project.output("base", "proxy"))
    return ctx


def test_it_judges_as_if_it_were_the_parents_model(tmp_path: Path, miniature_model: Path, small: Path) -> None:
    asked = with_proxy(tmp_path / "asked", miniature_model, small)
    itself = make_round(tmp_path / "itself", small, sketch=SMALL)
    other = make_round(tmp_path / "other", miniature_model, sketch=SMALL)
    for ctx in (asked, itself, other):
        report = run_stage(ctx.project, ROUND, "sketch")["report"]
        run_stage(ctx.project, ROUND, "score")
        assert report["model"]["name"] == ("proxy" if ctx is asked else "parent")
    for output in ("sketch", "score"):
        digests = [folder_digest(ctx.input(output)) for ctx in (asked, itself, other)]
        assert digests[0] == digests[1] != digests[2]


def test_what_the_trained_model_cannot_read_is_set_aside(tmp_path: Path, miniature_model: Path, small: Path) -> None:
    ctx = with_proxy(tmp_path, miniature_model, small)
    frame = candidates(ctx)
    samples = SampleStore(frame).samples(0, len(frame))
    lengths = [len(item.ids) for item in encode(load_reader(miniature_model), samples)]
    limit = sorted(lengths)[len(lengths) // 2]
    config = ctx.parent_input("model") / "config.json"
    values = read_json(config)
    values["text_config"]["max_position_embeddings"] = limit
    config.write_text(json.dumps(values))
    report = run_stage(ctx.project, ROUND, "sketch")["report"]
    faults = pd.read_parquet(ctx.input("sketch") / "faults.parquet")
    assert report["unreadable"] == len(faults) > 0
    too_long = [sample.sample_id for sample, length in zip(samples, lengths, strict=True) if length > limit]
    assert faults["sample_id"].tolist() == too_long
    assert faults["fault"].str.contains(f"of which the model takes {limit}").all()

    ctx.project.output(ROUND, "sketch").rename(tmp_path / "sketch")  # a strategy without sketches finds the same
    drawing.read(context(tmp_path))
    pd.testing.assert_frame_equal(pd.read_parquet(ctx.input("sketch") / "faults.parquet"), faults)


def test_a_reader_makes_the_tensors_that_the_model_gets(tmp_path: Path, miniature_model: Path) -> None:
    frame = candidates(make_round(tmp_path, miniature_model))
    samples = SampleStore(frame).samples(0, 8)
    for own, other in zip(
        encode(load_reader(miniature_model), samples), encode(load_vlm(miniature_model), samples), strict=True
    ):
        assert own.ids.equal(other.ids)
        assert own.answers.equal(other.answers)
        assert all(own.extras[name].equal(other.extras[name]) for name in other.extras)


def test_the_page_says_who_judged_and_what_it_took(tmp_path: Path, miniature_model: Path, small: Path) -> None:
    project = with_proxy(tmp_path, miniature_model, small).project
    for stage in ("sketch", "cluster", "score", "select"):
        run_stage(project, ROUND, stage)
    seconds = {path.stem: read_json(path)["seconds"] for path in project.log(ROUND).glob("*.json")}
    (said,) = [each.answer for each in in_short(Review(project, ROUND), {}) if each.question == "Who chose what"]
    size = sum(weight.numel() for weight in load_vlm(small).model.parameters())
    took = f"{seconds['sketch'] + seconds['score']:,.0f} s of the round's {sum(seconds.values()):,.0f} s"
    assert f"A proxy (llava, {size:,} parameters) judged them in the model's place: {took}." in said


def test_a_round_depends_on_the_proxy_in_the_place_of_the_parents_model(tmp_path: Path) -> None:
    project = make_noop_project(tmp_path / "project", sketch__model="proxy")
    wait_drop(project, "first")
    with pytest.raises(AdaptInfError, match=r"sketch\.model. is proxy, and there is none in rounds/base/proxy"):
        lineage.next_round(project)
    assert lineage.rounds(project) == []
    project.output("base", "proxy").mkdir()
    assert lineage.next_round(project) == "r001"
    frozen = yaml.safe_load((project.round("r001") / "dvc.yaml").read_text())["stages"]
    whole = yaml.safe_load(definition("dvc.yaml"))["stages"]
    model, proxy, own = "rounds/${parent}/model", "rounds/base/proxy", "rounds/base/model"
    for name, stage in frozen.items():
        deps = whole[name]["do"]["deps"]
        if name in ("sketch", "score"):
            assert stage["deps"] == [*(proxy if dep == model else dep for dep in deps), *([own] * (name == "sketch"))]
        else:
            assert stage["deps"] == deps == depends_on(name, deps)


def test_a_project_begins_with_it(tmp_path: Path, miniature_model: Path, small: Path) -> None:
    text = set_values(definition("params.yaml"), {"git.commit": False})
    project = create_project(tmp_path / "project", str(miniature_model), None, text, str(small))
    assert load_params(project.params_file).sketch.model == "proxy"
    assert (
        folder_digest(project.output("base", "proxy"))
        == read_json(project.round("base") / "source.json")["proxy"]["digest"]
    )
    assert (project.round("base") / "proxy.dvc").is_file()
    with pytest.raises(ModelError, match="nowhere"):
        create_project(tmp_path / "other", str(miniature_model), None, text, str(tmp_path / "nowhere"))
    assert not (tmp_path / "other").exists()


def test_it_travels_and_is_verified_with_the_base(tmp_path: Path) -> None:
    project = make_noop_project(tmp_path / "project", git=True, git__commit=True)
    (project.output("base", "proxy")).mkdir()
    (project.output("base", "proxy") / "weights").write_text("small")
    versions.add_outputs(project.root, ["rounds/base/proxy"])
    with versions.open_repository(project.root) as repo, repo.config.edit() as config:
        config["core"]["remote"] = "store"
        config["remote"]["store"] = {"url": str(tmp_path / "store")}
    versions.commit_files(project, "Bring a proxy")
    sharing.push(project, ["base"])
    subprocess.run(["git", "clone", "--quiet", project.root, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    sharing.pull(clone, ["base"])
    weights = clone.output("base", "proxy") / "weights"
    assert weights.read_text() == "small"
    weights.chmod(0o644)
    weights.write_text("other")
    assert [fault.file for fault in Verifier(clone).check("base").faults] == ["rounds/base/proxy/weights"]
    sharing.pull(clone, ["base"])
    assert weights.read_text() == "small"
