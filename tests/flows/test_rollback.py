"""Back two rounds, a new drop, a gate that holds, a person who promotes: by the commands, with real rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import Machine
from mlflow import MlflowClient
from third_round import WHY, facts_of

from adapt_inf.data.drops import read_drop
from adapt_inf.files import read_json
from adapt_inf.project import Project


@pytest.fixture
def told(third_round: Path) -> dict[str, str]:
    """What the commands printed; see `make_third_round`."""
    return facts_of(third_round)["told"]


@pytest.fixture
def project(third_round: Path) -> Project:
    """The project in which they did; nobody writes into it."""
    return Project(third_round / "project")


def test_the_next_round_branches_where_the_head_went(machine: Machine, told: dict[str, str], project: Project) -> None:
    assert told["rolled back"] == "Head and champion moved from r002 to base; the next round branches there.\n"
    entries = {entry["round"]: entry for entry in machine.lineage(project)}
    assert [entry["parent"] for entry in entries.values()] == ["base", "r001", "base"]
    assert [entry["drop"] for entry in entries.values()] == ["first", "second", "third"]
    assert [name for name, entry in entries.items() if entry["head"]] == ["r003"]
    assert machine.run("git", "status", "--porcelain", cwd=project.root).stdout == ""


def test_a_round_that_fails_its_gate_moves_nothing_until_it_is_promoted(
    machine: Machine, told: dict[str, str], project: Project
) -> None:
    gate = machine.lineage(project)[-1]["gate"]
    assert "is below 1 (gate.min_average_accuracy)" in gate["reasons"][0]
    assert f"r003 failed: {gate['reasons'][0]}" in told["lineage"]
    assert told["refused"] == (
        "adapt-inf: round r003: it failed its gate.\n  `adapt-inf promote r003` takes the head to it.\n"
    )
    assert told["head"] == "base"
    assert told["promoted"] == "Head and champion moved from base to r003.\n"
    assert told["again"] == "The head is at r003 already.\n"
    assert gate["verdict"] == "promoted"


def test_the_lineage_is_a_tree_and_the_history_has_every_move(
    machine: Machine, told: dict[str, str], project: Project
) -> None:
    drawn = [line.split("  ")[0] for line in told["lineage"].splitlines()[2:6]]
    assert drawn == ["base *", "├─ r003", "r001", "r002"]
    moves = json.loads(machine.here("history", "--json", cwd=project.root).stdout)
    assert [(move["from"], move["round"], move["kind"]) for move in moves] == [
        ("base", "r001", "round"),
        ("r001", "r002", "round"),
        ("r002", "base", "rollback"),
        ("base", "r003", "promote"),
    ]
    assert [move["why"] for move in moves[2:]] == list(WHY)
    assert machine.here("history", cwd=project.root).stdout.splitlines()[-1].endswith(WHY[1])


def test_every_pool_of_both_branches_is_whole_and_can_be_written_out(
    machine: Machine, project: Project, tmp_path: Path
) -> None:
    lines = machine.here("verify", cwd=project.root).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in ("base", "r001", "r002", "r003")]
    written = machine.run(
        "adapt-inf", "checkout", "r002", str(tmp_path / "pool"), "--format", "llava", cwd=project.root
    )
    live = read_json(project.output("r002", "pool") / "pool.json")["live"]
    assert written.stdout.startswith(f"{live} samples of r002's pool are in ")
    assert read_drop(tmp_path / "pool").name == "pool-r002"


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
    assert timelines == {"timeline base to r002": [1, 2], "timeline base to r003": [3]}
    (moved,) = [run for run in runs if run.data.tags["adapt_inf.kind"] == "history"]
    assert [point.value for point in client.get_metric_history(moved.info.run_id, "head")] == [1, 2, 0, 3]
    champion = client.get_model_version_by_alias(name, "champion")
    assert champion.tags["round"] == "r003"
    assert champion.tags["gate"] == "promoted"
    marked = [run.data.tags["adapt_inf.round"] for run in runs if run.data.tags.get("head") == "true"]
    assert marked == ["r003"]
