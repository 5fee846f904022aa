"""A round in a real MLflow on sqlite: its runs, inputs, tables and model, logged once, twice and after a kill."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from tracked_project import STAGES, add_round, lineage_of

from adapt_inf.files import read_json, write_json, write_text
from adapt_inf.project import Project
from adapt_inf.review.report import make_report, show_verdict
from adapt_inf.tracking.rounds import begin_round, fail_stale, finish_round, log_stage, tag_commit, tag_gate
from adapt_inf.tracking.store import connect, find_runs, tracking_uri


def run_round(project: Project, round_id: str, status: str = "finished", cached: bool = False) -> int | None:
    begin_round(project, round_id)
    for stage in STAGES:
        log_stage(project, round_id, stage, {"stage": stage, "cached": cached})
    make_report(project, {"round": round_id, "status": status})
    return finish_round(project, round_id, status, facts_of(project, round_id))


def facts_of(project: Project, round_id: str) -> dict[str, Any]:
    (entry,) = lineage_of(project, round_id)
    return {key: entry[key] for key in ("pool_hash", "parent", "drop", "strategy")} | {"commit": "c0ffee"}


def runs_of(project: Project, round_id: str) -> tuple[Run, dict[str, Run]]:
    runs = find_runs(connect(project), {"adapt_inf.round": round_id})
    (parent,) = [run for run in runs if "adapt_inf.stage" not in run.data.tags]
    children = {run.data.tags["adapt_inf.stage"]: run for run in runs if run is not parent}
    assert len(children) == len(runs) - 1
    return parent, children


@pytest.fixture
def client(project: Project) -> MlflowClient:
    return connect(project).client


def table(client: MlflowClient, run: Run, name: str) -> dict[str, Any]:
    return read_json(Path(client.download_artifacts(run.info.run_id, name)))


def test_a_round_is_a_run_with_eight_children(project: Project, client: MlflowClient) -> None:
    began = time.monotonic()
    run_round(project, "r001")
    lasted = 1000 * (time.monotonic() - began)
    parent, children = runs_of(project, "r001")
    assert set(children) == set(STAGES)
    assert {child.data.tags["mlflow.parentRunId"] for child in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children.values()]} == {"FINISHED"}
    sketch = children["sketch"]
    assert sketch.data.params == {"model": "parent", "layers": "middle", "params": "auto", "dim": "2048"} | {
        "hidden": "False",
        "batch_size": "32",
        "shard_samples": "1024",
    }
    metrics = sketch.data.metrics
    assert (metrics["seconds"], metrics["peak_memory_mb"], metrics["samples_per_second"]) == (2.5, 812.4, 1200.0)
    assert metrics["report.detail.kept"] == 7
    assert 2500 <= sketch.info.end_time - sketch.info.start_time <= 2500 + lasted + 10


def test_the_run_carries_figures_inputs_and_a_description(project: Project, client: MlflowClient) -> None:
    run_round(project, "r001")
    run_round(project, "r002")
    parent, _ = runs_of(project, "r002")
    figures = read_json(project.output("r002", "evaluate") / "metrics.json")
    assert parent.data.metrics["average_accuracy"] == figures["average_accuracy"]
    assert parent.data.metrics["skill.flags.capital"] == figures["skills"]["flags/capital"]
    assert parent.data.metrics["rare.average_accuracy"] == 0.4
    assert "relative_gain" not in parent.data.metrics
    inputs = {item.dataset.name: item.dataset.digest for item in parent.inputs.dataset_inputs}
    drop_hash = yaml.safe_load((project.round("r002") / "dvc.lock").read_text())["stages"]["ingest"]["deps"][0]["md5"]
    assert inputs == {
        "pool r001": f"{'r001':0<32}.dir",
        "drop flags": drop_hash,
        "pool r002": f"{'r002':0<32}.dir",
    }
    note = parent.data.tags["mlflow.note.content"]
    assert "3,000 training samples" in note
    assert "**What it gained**: flags/capital 0.05 →" in note
    assert "**What it forgot**: base/naming" in note
    assert {file.path for file in client.list_artifacts(parent.info.run_id, "pictures")} >= {
        "pictures/skill_curves.svg",
        "pictures/accuracy_matrix.svg",
    }
    page = Path(client.download_artifacts(parent.info.run_id, "report.html"))
    assert page.read_bytes() == (project.round("r002") / "report.html").read_bytes()


@pytest.mark.parametrize("stage", [None, "select"])
def test_selectors_are_a_table_with_a_row_per_cluster(
    project: Project, client: MlflowClient, stage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_round(project, "r001")
    parent, children = runs_of(project, "r001")
    run = children[stage] if stage else parent
    clusters = read_json(project.output("r001", "select") / "selectors.json")["clusters"]
    logged = table(client, run, "selectors.json")
    rows = [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    for row, cluster in zip(rows, clusters, strict=True):
        assert {key: row[key] for key in ("cluster", "size", "budget", "selected", "selector")} == {
            key: cluster[key] for key in ("cluster", "size", "budget", "selected", "selector")
        }
        for name, entropy in cluster["entropies"].items():
            assert row[f"entropy {name}"] == (None if entropy is None else pytest.approx(entropy, abs=1e-4))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(project))  # load_table looks nowhere else
    shown_as_tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert {"path": "selectors.json", "type": "table"} in shown_as_tables
    assert len(client.load_table(connect(project).experiment_id, "selectors.json", [run.info.run_id])) == len(clusters)


def test_the_model_gets_a_version_per_round_and_no_alias(project: Project, client: MlflowClient) -> None:
    assert run_round(project, "r001") == 1
    assert run_round(project, "r002") == 2
    tag_commit(project, "r002", "abc123")
    assert client.get_registered_model("garden").aliases == {}
    version = client.get_model_version("garden", "2")
    expected = {"round": "r002", "parent": "r001", "drop": "flags", "strategy": "adapt_inf", "commit": "abc123"}
    assert expected.items() <= version.tags.items()
    assert version.tags["pool_version"] == f"{'r002':0<32}.dir"
    parent, _ = runs_of(project, "r002")
    assert parent.data.tags["mlflow.source.git.commit"] == "abc123"
    kept = client.download_artifacts(parent.info.run_id, "model/adapter_model.safetensors")
    original = project.output("r002", "model") / "adapter_model.safetensors"
    assert Path(kept).read_bytes() == original.read_bytes()


def test_the_gate_stands_on_the_run_and_on_the_version(project: Project, client: MlflowClient) -> None:
    run_round(project, "r001")
    (entry,) = lineage_of(project, "r001")
    gate = {"verdict": "failed", "reasons": ["base/naming fell by 0.300"], "figures": {"max_forgetting": 0.3}}
    for verdict in ("failed", "promoted"):
        judged = entry | {"gate": gate | {"verdict": verdict}}
        show_verdict(project, judged)
        tag_gate(project, judged)
        parent, _ = runs_of(project, "r001")
        for tags in (parent.data.tags, client.get_model_version("garden", "1").tags):
            assert (tags["gate"], tags["gate.reasons"]) == (verdict, "base/naming fell by 0.300")
        assert parent.data.metrics["gate.max_forgetting"] == 0.3
        assert f"**Gate**: {verdict}: base/naming fell by 0.300." in parent.data.tags["mlflow.note.content"]
        page = Path(client.download_artifacts(parent.info.run_id, "report.html")).read_text()
        assert page.count("base/naming fell by 0.300") == 1
        assert ("Promoted by hand" in page) == (verdict == "promoted")


def test_logging_a_round_again_changes_nothing(project: Project, client: MlflowClient) -> None:
    run_round(project, "r001")
    run_round(project, "r002")
    before = [run.to_dictionary() for run in find_runs(connect(project), {})]
    points = client.get_metric_history(runs_of(project, "r002")[0].info.run_id, "forgetting")
    every = every_point(project, client)
    assert run_round(project, "r001", cached=True) == 1
    assert run_round(project, "r002", cached=True) == 2
    after = [run.to_dictionary() for run in find_runs(connect(project), {})]
    assert {run["info"]["run_id"] for run in after} == {run["info"]["run_id"] for run in before}
    assert len(client.search_model_versions("name = 'garden'")) == 2
    again = client.get_metric_history(runs_of(project, "r002")[0].info.run_id, "forgetting")
    assert {(point.step, point.value) for point in again} == {(point.step, point.value) for point in points}
    assert every_point(project, client) == every
    run_round(project, "r002")  # as one whose stages ran again, and came out the same
    assert every_point(project, client) == every
    parent, children = runs_of(project, "r002")
    assert len(parent.inputs.dataset_inputs) == 3
    assert len(table(client, children["select"], "selectors.json")["data"]) == 6


def every_point(project: Project, client: MlflowClient) -> dict[tuple[str, str], list[tuple[int, float]]]:
    return {
        (run.info.run_id, name): [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for run in find_runs(connect(project), {})
        for name in run.data.metrics
    }


def test_a_figure_that_came_out_otherwise_is_the_one_that_shows(project: Project, client: MlflowClient) -> None:
    run_round(project, "r001")
    path = project.output("r001", "evaluate") / "metrics.json"
    write_json(path, read_json(path) | {"average_accuracy": 0.01})  # lower: of two at one time MLflow shows the larger
    run_round(project, "r001")
    assert runs_of(project, "r001")[0].data.metrics["average_accuracy"] == 0.01


def test_a_stage_that_failed_says_why_until_it_passes(project: Project) -> None:
    begin_round(project, "r001")
    log_stage(project, "r001", "train", {"stage": "train", "error": "Training diverged.\n  Lower it."})
    failed = runs_of(project, "r001")[1]["train"]
    assert (failed.info.status, failed.data.tags["mlflow.note.content"]) == (
        "FAILED",
        "Training diverged.\n  Lower it.",
    )
    assert "report.steps" not in failed.data.metrics, "of an earlier attempt"
    finish_round(project, "r001", "failed", facts_of(project, "r001") | {"error": "stage train: *diverged*"})
    assert (
        "**Why it stopped**: stage train: \\*diverged\\*"
        in runs_of(project, "r001")[0].data.tags["mlflow.note.content"]
    )
    run_round(project, "r001")
    parent, children = runs_of(project, "r001")
    assert (children["train"].info.run_id, children["train"].info.status) == (failed.info.run_id, "FINISHED")
    assert children["train"].data.tags["mlflow.note.content"] == ""
    assert "Why it stopped" not in parent.data.tags["mlflow.note.content"]


def test_what_the_registry_cannot_hold_is_cut_at_a_line(project: Project, client: MlflowClient) -> None:
    path = project.output("r001", "select") / "selectors.json"
    many = {f"drop{number}": {"candidates": 1000 + number, "selected": number} for number in range(200)}
    write_json(path, read_json(path) | {"drops": many})
    run_round(project, "r001")
    note = client.get_model_version("garden", "1").description
    assert "By dataset: drop199 199 of 1,199, drop198 198 of 1,198" in note
    assert " and 194 more." in note
    entry = lineage_of(project, "r001")[0]
    reasons = [f"suite/skill{number} fell by 0.300, more than 0.1" for number in range(300)]
    tag_gate(project, entry | {"gate": {"verdict": "failed", "reasons": reasons, "figures": {}}})
    version = client.get_model_version("garden", "1")
    for text in (version.description, version.tags["gate.reasons"]):
        assert 0 < len(text) <= 5000, "what PostgreSQL holds of it"
        assert text.endswith("\n…")


def test_training_is_a_curve_that_is_drawn_once(project: Project, client: MlflowClient) -> None:
    begin_round(project, "r001")
    for _ in range(2):
        log_stage(project, "r001", "train", {"stage": "train", "cached": False})
    train = runs_of(project, "r001")[1]["train"]
    points = client.get_metric_history(train.info.run_id, "loss")
    assert len(points) == 700 // 3
    assert {point.step: point.value for point in points}[600] == 3 / 600
    assert train.data.metrics["samples_per_second"] == 350.5


def test_a_cached_stage_that_was_never_logged_still_logs(project: Project) -> None:
    begin_round(project, "r001")
    log_stage(project, "r001", "train", {"stage": "train", "cached": True})
    _, children = runs_of(project, "r001")
    assert children["train"].data.metrics["seconds"] == 2.5
    assert children["train"].data.tags["cached"] == "true"


def test_what_a_killed_process_left_running_is_marked_and_taken_up_again(project: Project) -> None:
    run_id = begin_round(project, "r001")
    log_stage(project, "r001", "ingest", {"stage": "ingest", "cached": False})
    assert fail_stale(project) == 1
    assert runs_of(project, "r001")[0].info.status == "KILLED"
    assert fail_stale(project) == 0
    assert begin_round(project, "r001") == run_id
    assert runs_of(project, "r001")[0].info.status == "RUNNING"
    run_round(project, "r001")
    assert runs_of(project, "r001")[0].info.status == "FINISHED"


def test_a_failed_round_may_succeed_later(project: Project, client: MlflowClient) -> None:
    assert run_round(project, "r001", status="failed") == 1
    assert runs_of(project, "r001")[0].info.status == "FAILED"
    assert run_round(project, "r001") == 1
    assert client.get_model_version("garden", "1").tags["status"] == "finished"


def test_a_round_that_stopped_early_is_logged_as_far_as_it_came(project: Project) -> None:
    write_text(project.params_of("r003"), yaml.safe_dump({"round": "r003", "parent": "r002", "drop": "broken"}))
    begin_round(project, "r003")
    log_stage(project, "r003", "ingest", {"stage": "ingest", "cached": False, "error": "no good sample"})
    assert finish_round(project, "r003", "failed", {"drop": "broken", "parent": "r002", "pool_hash": None}) is None
    parent, children = runs_of(project, "r003")
    assert (parent.info.status, children["ingest"].info.status) == ("FAILED", "FAILED")
    assert "broken" in parent.data.tags["mlflow.note.content"]


def test_a_round_id_that_another_drop_takes_over_gets_a_run_of_its_own(project: Project) -> None:
    write_text(project.params_of("r003"), yaml.safe_dump({"round": "r003", "parent": "r002", "drop": "broken"}))
    first = begin_round(project, "r003")
    log_stage(project, "r003", "ingest", {"stage": "ingest", "cached": False, "error": "no good sample"})
    add_round(project, "r003")
    second = begin_round(project, "r003")
    log_stage(project, "r003", "ingest", {"stage": "ingest", "cached": False})
    assert first != second
    parent, children = runs_of(project, "r003")
    assert parent.info.run_id == second
    assert children["ingest"].data.tags["mlflow.parentRunId"] == second


def test_a_round_run_again_with_another_adapter_replaces_its_version(project: Project, client: MlflowClient) -> None:
    run_round(project, "r001")
    write_json(project.output("r001", "model") / "adapter_config.json", {"peft_type": "LORA", "r": 8})
    assert run_round(project, "r001") == 2
    assert [version.version for version in client.search_model_versions("name = 'garden'")] == [2]
