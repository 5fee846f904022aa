"""Back two rounds, a new drop, a gate that holds, a person who promotes: by the commands, with real rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from machine import Machine, copy_project
from make_drop import make_drop
from mlflow import MlflowClient

from adapt_inf import lineage
from adapt_inf.config import set_values
from adapt_inf.data.drops import read_drop
from adapt_inf.files import read_json
from adapt_inf.project import Project


@pytest.fixture(scope="module")
def told(machine: Machine, third_round: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands printed; under "root" where the project is."""
    home = tmp_path_factory.mktemp("rollback")
    project = copy_project(Project(third_round / "project"), home / "project")  # MLflow's experiment is called after it

    def run(*words: str) -> str:
        return machine.run("adapt-inf", *words, cwd=project.root).stdout

    told = {"root": str(project.root), "rolled back": run("rollback", "r001", "--why", "r002 forgot colours")}
    run("drop", str(make_drop(home / "fourth", "fourth", train=96, eval=16, seed=6)))
    text = project.params_file.read_text(encoding="utf-8")
    project.params_file.write_text(set_values(text, {"gate.min_average_accuracy": 1.0}), encoding="utf-8")
    told["failed"] = run("round")
    told["lineage"] = run("lineage")
    told["refused"] = machine.run("adapt-inf", "rollback", "r004", cwd=project.root, check=False).stderr
    told["head"] = lineage.head(project)
    told["promoted"] = run("promote", "r004", "--why", "fine by me")
    told["history"] = run("history")
    told["verified"] = run("verify")
    told["nothing"] = run("promote", "r004")
    told["written out"] = run("checkout", "r002", str(home / "pool"), "--format", "llava")
    return told


@pytest.fixture
def project(told: dict[str, str]) -> Project:
    return Project(Path(told["root"]))


def test_the_next_round_branches_where_the_head_went(machine: Machine, told: dict[str, str], project: Project) -> None:
    assert told["rolled back"] == "Head and champion moved from r003 to r001; the next round branches there.\n"
    entries = {entry["round"]: entry for entry in machine.lineage(project)}
    assert [entry["parent"] for entry in entries.values()] == ["base", "r001", "r002", "r001"]
    assert [entry["drop"] for entry in entries.values()] == ["first", "second", "third", "fourth"]
    assert entries["r001"]["children"] == ["r002", "r004"]
    assert [name for name, entry in entries.items() if entry["head"]] == ["r004"]
    assert machine.run("git", "status", "--porcelain", cwd=project.root).stdout == ""


def test_a_round_that_fails_its_gate_moves_nothing_until_it_is_promoted(
    machine: Machine, told: dict[str, str], project: Project
) -> None:
    gate = machine.lineage(project)[-1]["gate"]
    assert "is below 1 (gate.min_average_accuracy)" in gate["reasons"][0]
    assert f"r004 failed: {gate['reasons'][0]}" in told["lineage"]
    assert told["refused"] == (
        "adapt-inf: round r004: it failed its gate.\n  `adapt-inf promote r004` takes the head to it.\n"
    )
    assert told["head"] == "r001"
    assert told["promoted"] == "Head and champion moved from r001 to r004.\n"
    assert gate["verdict"] == "promoted"


def test_the_lineage_is_a_tree_and_the_history_has_every_move(machine: Machine, told: dict[str, str]) -> None:
    drawn = [line.split("  ")[0] for line in told["lineage"].splitlines()[2:6]]
    assert drawn == ["r001 *", "├─ r004", "r002", "r003"]
    moves = json.loads(machine.run("adapt-inf", "history", "--json", cwd=Path(told["root"])).stdout)
    assert [(move["from"], move["round"], move["kind"]) for move in moves] == [
        ("base", "r001", "round"),
        ("r001", "r002", "round"),
        ("r002", "r003", "round"),
        ("r003", "r001", "rollback"),
        ("r001", "r004", "promote"),
    ]
    assert [move["why"] for move in moves[3:]] == ["r002 forgot colours", "fine by me"]
    assert told["history"].splitlines()[-1].endswith("fine by me")


def test_every_pool_of_both_branches_is_whole_and_can_be_written_out(told: dict[str, str], project: Project) -> None:
    lines = told["verified"].splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "ok"] for name in ("base", "r001", "r002", "r003", "r004")]
    assert told["nothing"] == "The head is at r004 already.\n"
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
    assert timelines == {"timeline base to r003": [1, 2, 3], "timeline base to r004": [1, 4]}
    (moved,) = [run for run in runs if run.data.tags["adapt_inf.kind"] == "history"]
    assert [point.value for point in client.get_metric_history(moved.info.run_id, "head")] == [1, 2, 3, 1, 4]
    champion = client.get_model_version_by_alias(name, "champion")
    assert champion.tags["round"] == "r004"
    assert champion.tags["gate"] == "promoted"
    marked = [run.data.tags["adapt_inf.round"] for run in runs if run.data.tags.get("head") == "true"]
    assert marked == ["r004"]
