"""Back a round, a new drop, a person's approval, a gate that holds: by the commands, with real rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, copy_project
from make_drop import make_drop
from mlflow import MlflowClient

from adapt_inf.config import set_values
from adapt_inf.data.drops import read_drop
from adapt_inf.files import read_json
from adapt_inf.project import Project


@pytest.fixture(scope="module")
def told(machine: Machine, two_rounds: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands printed; under "root" where the project is."""
    home = tmp_path_factory.mktemp("rollback")
    project = copy_project(two_rounds, home / two_rounds.root.name)  # MLflow's experiment is called after the folder

    def run(*words: str) -> str:
        return machine.run("adapt-inf", *words, cwd=project.root).stdout

    def set_gate(**values: Any) -> None:
        text = project.params_file.read_text(encoding="utf-8")
        changed = set_values(text, {f"gate.{key}": value for key, value in values.items()})
        project.params_file.write_text(changed, encoding="utf-8")

    told = {"root": str(project.root), "rolled back": run("rollback", "r001", "--why", "r002 forgot colours")}
    for name in ("third", "fourth"):
        run("drop", str(make_drop(home / name, name, train=96, eval=16, seed=len(name))))
    set_gate(approval="required")
    told["held"] = run("round")
    told["status"] = run("status")
    told["promoted"] = run("promote", "r003", "--why", "fine by me")
    set_gate(approval="automatic", min_average_accuracy=1.0)
    told["failed"] = run("round")
    told["lineage"] = run("lineage")
    told["history"] = run("history")
    told["verified"] = run("verify")
    told["nothing"] = run("promote", "r003")
    told["written out"] = run("checkout", "r002", str(home / "pool"), "--format", "llava")
    return told


@pytest.fixture
def project(told: dict[str, str]) -> Project:
    return Project(Path(told["root"]))


def test_the_next_round_branches_where_the_head_went(machine: Machine, project: Project) -> None:
    entries = {entry["round"]: entry for entry in machine.lineage(project)}
    assert [entry["parent"] for entry in entries.values()] == ["base", "r001", "r001", "r003"]
    assert [entry["drop"] for entry in entries.values()] == ["first", "second", "third", "fourth"]
    assert entries["r001"]["children"] == ["r002", "r003"]
    assert [name for name, entry in entries.items() if entry["head"]] == ["r003"]
    assert "up to date" in machine.run("dvc", "status", cwd=project.root).stdout
    assert machine.run("git", "status", "--porcelain", cwd=project.root).stdout == ""


def test_a_round_waits_for_approval_and_the_queue_behind_it(told: dict[str, str], project: Project) -> None:
    assert "r003 passed its gate and waits for `adapt-inf promote r003`" in told["status"]
    assert "waiting   fourth" in told["status"]
    assert told["promoted"] == "Head and champion moved from r001 to r003.\n"


def test_a_round_that_fails_its_gate_moves_nothing(machine: Machine, told: dict[str, str], project: Project) -> None:
    fourth = machine.lineage(project)[-1]
    assert (fourth["status"], fourth["gate"]["verdict"]) == ("finished", "failed")
    assert "is below 1 (gate.min_average_accuracy)" in fourth["gate"]["reasons"][0]
    assert f"r004 failed: {fourth['gate']['reasons'][0]}" in told["lineage"]
    refused = machine.run("adapt-inf", "rollback", "r004", cwd=project.root, check=False)
    assert refused.returncode == 1
    assert refused.stderr == (
        "adapt-inf: round r004: it failed its gate.\n  `adapt-inf promote r004` takes the head to it.\n"
    )


def test_the_lineage_is_a_tree_and_the_history_has_every_move(machine: Machine, told: dict[str, str]) -> None:
    drawn = [line.split("  ")[0] for line in told["lineage"].splitlines()[2:6]]
    assert drawn == ["r001", "├─ r002", "r003 *", "r004"]
    moves = json.loads(machine.run("adapt-inf", "history", "--json", cwd=Path(told["root"])).stdout)
    assert [(move["from"], move["round"], move["kind"]) for move in moves] == [
        ("base", "r001", "round"),
        ("r001", "r002", "round"),
        ("r002", "r001", "rollback"),
        ("r001", "r003", "promote"),
    ]
    assert [move["why"] for move in moves[2:]] == ["r002 forgot colours", "fine by me"]
    assert told["history"].splitlines()[-1].endswith("fine by me")


def test_every_pool_of_both_branches_is_whole_and_can_be_written_out(told: dict[str, str], project: Project) -> None:
    lines = told["verified"].splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in ("base", "r001", "r002", "r003", "r004")]
    assert told["nothing"] == "The head is at r003 already.\n"
    live = read_json(project.output("r002", "pool") / "pool.json")["live"]
    assert told["written out"].startswith(f"{live} samples of r002's pool are in ")
    assert read_drop(project.root.parent / "pool").name == "pool-r002"


def test_mlflow_has_both_branches_the_moves_and_the_champion(project: Project) -> None:
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    name = project.root.name
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    timelines = {
        run.info.run_name: [point.step for point in client.get_metric_history(run.info.run_id, "average_accuracy")]
        for run in runs
        if run.data.tags["adapt_inf.kind"] == "timeline"
    }
    assert timelines == {"timeline base to r002": [1, 2], "timeline base to r003": [1, 3]}
    (moved,) = [run for run in runs if run.data.tags["adapt_inf.kind"] == "history"]
    assert [point.value for point in client.get_metric_history(moved.info.run_id, "head")] == [1, 2, 1, 3]
    champion = client.get_model_version_by_alias(name, "champion")
    assert champion.tags["round"] == "r003"
    assert champion.tags["gate"] == "promoted"
    marked = [run.data.tags["adapt_inf.round"] for run in runs if run.data.tags.get("head") == "true"]
    assert marked == ["r003"]
    (fourth,) = [run for run in runs if run.data.tags.get("gate") == "failed"]
    assert (fourth.data.tags["adapt_inf.round"], fourth.info.status) == ("r004", "FINISHED")
