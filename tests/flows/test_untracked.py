"""A round whose MLflow is not there ends well; `adapt-inf track` sends all of it later, once.

It is the round of another strategy, too: one that needs no expert.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from machine import Machine, copy_project
from mlflow.tracking import MlflowClient

from adapt_inf import lineage
from adapt_inf.cli import main
from adapt_inf.config import set_values
from adapt_inf.project import Project
from adapt_inf.stages.runner import STAGES
from adapt_inf.tracking import outbox


@dataclass(frozen=True)
class Untracked(Machine):
    """A machine whose MLflow refuses every connection."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}


def in_mlflow(project: Project) -> dict[str, Any]:
    """Every run by what it is, with its status and how many points it has; the aliases by round."""
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=500):
        points = sum(len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics)
        found.setdefault(run.info.run_name, []).append((run.info.status, points))
    (model,) = client.search_registered_models()
    versions = {alias: client.get_model_version_by_alias(model.name, alias) for alias in model.aliases}
    found["aliases"] = {alias: version.tags["round"] for alias, version in versions.items()}
    found["commits"] = {version.tags["round"]: version.tags["commit"] for version in versions.values()}
    return found


@pytest.fixture(scope="module")
def project(new_project: Project, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A round by strategy `sequential`, with MLflow away."""
    project = copy_project(new_project, tmp_path_factory.mktemp("untracked") / "done")
    shutil.rmtree(project.drop("second"))
    text = project.params_file.read_text(encoding="utf-8")
    project.params_file.write_text(set_values(text, {"select.strategy": "sequential"}), encoding="utf-8")
    done = Untracked(machine.home).run("adapt-inf", "round", cwd=project.root)
    said = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert len(said) == 1
    assert "MLflow has not got r001, moves of the head (MLflow at http://127.0.0.1:1 does not answer" in said[0]
    assert said[0].endswith("`adapt-inf track` sends it later.")
    return project


def test_another_strategy_runs_through(project: Project) -> None:
    (record,) = lineage.rounds(project)
    assert record.strategy == "sequential"
    selected = pd.read_parquet(project.output("r001", "select") / "selected.parquet")
    assert set(selected["sample_id"].str.split("/").str[0]) == {"first"}


def run(capsys: pytest.CaptureFixture[str], project: Project, *arguments: str) -> str:
    """A command, in this process: MLflow takes seconds to import."""
    assert not main([arguments[0], "-C", str(project.root), *arguments[1:]])
    return capsys.readouterr().out


def test_the_round_has_ended_and_status_says_what_mlflow_misses(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    record = lineage.read_round(project, "r001")
    assert (record.status, record.model_version, lineage.head(project)) == ("finished", None, "r001")
    assert list(json.loads(run(capsys, project, "status", "--json"))["untracked"]) == ["r001", "head"]
    assert "untracked r001: MLflow at http://127.0.0.1:1 does not answer" in run(capsys, project, "status")
    assert not (project.root / "mlflow.db").exists()
    assert "Passed its gate" in (project.round("r001") / "report.html").read_text()


def test_track_sends_it_once(
    project: Project,
    machine: Machine,
    two_rounds: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run(capsys, project, "track").startswith("Sent r001; ")
    found = in_mlflow(project)
    stages = {f"r001 {stage}" for stage in STAGES}
    others = {"r001 first", "timeline base to r001", "moves of the head"}
    assert set(found) == stages | others | {"aliases", "commits"}
    assert all(len(found[name]) == 1 and found[name][0][0] == "FINISHED" for name in stages | others)
    assert found["aliases"] == {"champion": "r001"}
    commit = machine.run("git", "rev-list", "-n1", "round/r001", cwd=project.root).stdout.strip()
    assert found["commits"] == {"r001": commit}
    assert found["r001 first"] == in_mlflow(two_rounds)["r001 first"]  # as many points as one that was logged at once
    assert lineage.read_round(project, "r001").model_version == 1
    assert machine.run("git", "status", "--porcelain", cwd=project.root).stdout == ""
    assert json.loads(run(capsys, project, "status", "--json"))["untracked"] == {}
    assert run(capsys, project, "track", "r001").startswith("No round was missing; ")
    assert in_mlflow(project) == found


def test_a_move_is_made_without_mlflow_and_sent_later(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_failed", {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    moved = run(capsys, project, "rollback", "base")
    assert "Head and champion moved from r001 to base" in moved
    assert "MLflow has not got moves of the head" in moved
    assert lineage.head(project) == "base"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run(capsys, project, "track")
    assert in_mlflow(project)["aliases"] == {"previous": "r001"}
