"""The evaluate stage on a miniature model: every suite is answered, and the matrix grows along the lineage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from killing import kill_midway
from machine import copy_project
from model_samples import make_sample
from trained_project import begin_round, context, make_lineage

from adapt_inf.config import Evaluate, load_params
from adapt_inf.data.shards import read_shard, write_shard
from adapt_inf.evaluation.figures import Accuracies, figures
from adapt_inf.evaluation.metrics import METRICS
from adapt_inf.files import folder_digest, read_json
from adapt_inf.models.generation import answer, as_base
from adapt_inf.models.vlm import load_vlm
from adapt_inf.project import Project
from adapt_inf.stages import evaluate, train
from adapt_inf.stages.answers import parts_for
from adapt_inf.stages.evaluate import evaluate_base


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory, miniature_model: Path) -> Project:
    """base, then r001 with the drop `first`, then r002 with the drop `second`."""
    project = make_lineage(tmp_path_factory.mktemp("lineage"), miniature_model)
    for round_id, parent, drop in (("r001", "base", "first"), ("r002", "r001", "second")):
        ctx = begin_round(project, round_id, parent, drop)
        train.run(ctx)
        evaluate.run(ctx)
    return project


def read(project: Project, round_id: str, name: str) -> Any:
    return read_json(project.output(round_id, "evaluate") / name)


def scores(project: Project, model: str, suite: str, *, without_adapter: bool = False) -> dict[str, float]:
    """The scores of a round's model on a suite, one sample at a time."""
    vlm = load_vlm(project.output(model, "model"))
    marks: dict[str, list[float]] = {}
    for sample in read_shard(project.output("r002", "pool") / "suites" / f"{suite}.parquet"):
        if without_adapter:
            with as_base(vlm):
                text = answer(vlm, [sample], 3, 1)[0]
        else:
            text = answer(vlm, [sample], 3, 1)[0]
        marks.setdefault(f"{suite}/{sample.skill}", []).append(METRICS[sample.metric](text, sample.answers))
    return {skill: sum(values) / len(values) for skill, values in marks.items()}


def test_predictions_cover_every_suite_in_order(lineage: Project) -> None:
    table = pd.read_parquet(lineage.output("r002", "evaluate") / "predictions.parquet")
    assert list(table.columns) == ["suite", "sample_id", "skill", "metric", "prediction", "answers", "score", "fault"]
    assert (table["fault"] == "").all()
    expected = []
    for suite in ("first", "second", "start"):
        samples = read_shard(lineage.output("r002", "pool") / "suites" / f"{suite}.parquet")
        expected += [(suite, sample.sample_id, sample.skill, list(sample.answers)) for sample in samples]
    got = zip(table["suite"], table["sample_id"], table["skill"], map(list, table["answers"]), strict=True)
    assert list(got) == expected
    marks = [METRICS[m](p, a) for m, p, a in zip(table["metric"], table["prediction"], table["answers"], strict=True)]
    assert table["score"].tolist() == marks


def test_the_matrix_holds_each_models_scores_on_each_suite(lineage: Project) -> None:
    matrix = read(lineage, "r002", "accuracy_matrix.json")
    assert matrix["rounds"] == ["base", "r001", "r002"]
    everything = scores(lineage, "r002", "start") | scores(lineage, "r002", "first") | scores(lineage, "r002", "second")
    assert matrix["values"]["r002"] == pytest.approx(everything)
    inherited = scores(lineage, "r001", "start") | scores(lineage, "r001", "first") | scores(lineage, "r001", "second")
    assert matrix["values"]["r001"] == pytest.approx(inherited)
    known = scores(lineage, "base", "start") | scores(lineage, "base", "first")
    assert matrix["values"]["base"] == pytest.approx(known)
    assert matrix["base"] == pytest.approx(known | scores(lineage, "r002", "second", without_adapter=True))


def test_skills_say_where_they_come_from_and_their_share_of_the_pool(lineage: Project) -> None:
    entries = read(lineage, "r002", "accuracy_matrix.json")["skills"]
    came = {(entry["suite"], entry["round"]) for entry in entries}
    assert came == {("start", "base"), ("first", "r001"), ("second", "r002")}
    pool = read_json(lineage.output("r002", "pool") / "pool.json")
    for entry in entries:
        assert entry["pool_share"] == pool["skills"].get(f"{entry['suite']}/{entry['skill']}", 0) / pool["live"]
    assert sum(entry["pool_share"] for entry in entries) == pytest.approx(1)
    assert sum(entry["samples"] for entry in entries) == 18


def test_the_figures_are_those_of_the_matrix(lineage: Project) -> None:
    for round_id, parent in (("base", None), ("r001", "base"), ("r002", "r001")):
        matrix, metrics = (read(lineage, round_id, name) for name in ("accuracy_matrix.json", "metrics.json"))
        brought = {f"{entry['suite']}/{entry['skill']}": entry["round"] for entry in matrix["skills"]}
        accuracies = Accuracies(matrix["rounds"], brought, matrix["values"], matrix["base"])
        assert {name: metrics[name] for name in figures(accuracies)} == figures(accuracies)
        assert (metrics["round"], metrics["parent"]) == (round_id, parent)
        assert metrics["skills"] == matrix["values"][round_id]
        rare = [key for key, entry in zip(brought, matrix["skills"], strict=True) if entry["pool_share"] < 0.05]
        assert metrics["rare"] == (figures(accuracies.of(rare)) if rare else None)


def test_what_a_figure_cannot_say_is_null(lineage: Project) -> None:
    metrics = read(lineage, "base", "metrics.json")
    assert metrics["average_accuracy"] is not None
    assert metrics["forgetting"] is metrics["backward_transfer"] is metrics["forward_transfer"] is None
    assert read(lineage, "r001", "metrics.json")["forward_transfer"] == 0  # the parent is the base
    text = (lineage.output("r002", "evaluate") / "metrics.json").read_text()
    assert "NaN" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_earlier_scores_are_never_computed_again(lineage: Project) -> None:
    before, after = (read(lineage, name, "accuracy_matrix.json")["values"] for name in ("r001", "r002"))
    assert after["base"] == before["base"]
    assert {skill: score for skill, score in after["r001"].items() if skill in before["r001"]} == before["r001"]


def test_only_its_files_are_left_and_they_are_the_same_bytes_again(lineage: Project) -> None:
    out = lineage.output("r002", "evaluate")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["accuracy_matrix.json", "before.parquet", "metrics.json", "predictions.parquet"]
    assert not lineage.work("base").exists()
    before = folder_digest(out)
    evaluate.run(context(lineage, "r002"))
    assert folder_digest(out) == before


def test_answers_that_a_killed_run_finished_are_kept(lineage: Project, tmp_path: Path) -> None:
    project = copy_project(lineage, tmp_path / "killed")
    params = project.params_of("r001")
    # Many parts, and long ones: the kill must find some done and some not.
    params.write_text(
        params.read_text().replace("batch_size: 8", "batch_size: 1").replace("max_new_tokens: 3", "max_new_tokens: 100")
    )
    assert context(project, "r001").params.evaluate == Evaluate(batch_size=1, max_new_tokens=100)
    whole = evaluate.run(context(project, "r001"))
    before = folder_digest(project.output("r001", "evaluate"))
    left = kill_midway(project.root, "r001", "evaluate", ".parts/part-*.parquet")
    kept = sum(len(pd.read_parquet(path)) for path in left)
    assert kept > 0
    assert evaluate.run(context(project, "r001")) == {**whole, "resumed": kept}
    assert folder_digest(project.output("r001", "evaluate")) == before


def test_parts_cover_what_each_model_is_asked(lineage: Project) -> None:
    ctx = context(lineage, "r002")
    small = replace(ctx, params=replace(ctx.params, evaluate=replace(ctx.params.evaluate, batch_size=1)))
    parts = [("round", "first"), ("round", "second"), ("round", "start"), ("base", "second"), ("parent", "second")]
    spans = [part[:2] + part[3:] for part in parts_for(small)]
    assert spans == [(*part, *span) for part in parts for span in ((0, 4), (4, 6))]
    assert [part[:2] for part in parts_for(ctx)] == parts
    assert [part[:2] for part in parts_for(context(lineage, "r001"))] == [*parts[:1], parts[2], ("base", "first")]


def test_a_base_without_suites_and_the_first_round_after_it(tmp_path: Path, miniature_model: Path) -> None:
    project = make_lineage(tmp_path, miniature_model, base_eval=0)
    metrics = read(project, "base", "metrics.json")
    assert metrics["average_accuracy"] is None
    assert metrics["skills"] == {}
    assert len(pd.read_parquet(project.output("base", "evaluate") / "predictions.parquet")) == 0
    assert evaluate_base(project, load_params(project.params_file))["suites"] == 0
    ctx = begin_round(project, "r001", "base", "first")
    train.run(ctx)
    report = evaluate.run(ctx)
    assert report["new_suites"] == report["suites"] == 1
    assert read(project, "r001", "metrics.json")["forgetting"] is None
    assert set(read(project, "r001", "accuracy_matrix.json")["values"]["base"]) == set(
        read(project, "r001", "metrics.json")["skills"]
    )


def test_a_sample_that_the_model_cannot_read_counts_as_unanswered(lineage: Project, tmp_path: Path) -> None:
    project = copy_project(lineage, tmp_path / "endless")
    suite = project.output("r002", "pool") / "suites" / "second.parquet"
    read_one, *_ = read_shard(suite)
    suite.unlink()  # DVC's cache may hold the same file
    write_shard(suite, [make_sample("endless", 0, [("word " * 300, "yes")]), read_one])
    evaluate.run(context(project, "r002"))
    table = pd.read_parquet(project.output("r002", "evaluate") / "predictions.parquet")
    found = table[table["suite"] == "second"].reset_index(drop=True)
    assert found["sample_id"].tolist() == ["drop/endless", read_one.sample_id]
    assert found["prediction"][0] == ""
    assert found["score"][0] == 0
    assert "of which the model takes 256" in found["fault"][0]
    assert found["fault"][1] == ""
    knobs = load_params(project.params_of("r002")).evaluate
    vlm = load_vlm(project.output("r002", "model"))
    assert found["prediction"][1] == answer(vlm, [read_one], knobs.max_new_tokens, 1)[0]
