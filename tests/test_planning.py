"""What a plan says before a round, against the round that then ran; what it says where nothing is known."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machine import copy_project
from make_drop import make_drop
from third_round import facts_of

from adapt_inf import cli
from adapt_inf.errors import AdaptInfError, DropError, RoundError
from adapt_inf.files import read_json
from adapt_inf.planning import plan_round, plan_table
from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS, STAGES, stage_outcome


@pytest.fixture
def report(third_round: Path) -> dict[str, dict[str, Any]]:
    """What the stages of the round counted that the plan foretold."""
    project = Project(third_round / "project")
    return {stage: stage_outcome(project, "r003", stage, cached=False) for stage in STAGES}


@pytest.fixture
def plan(third_round: Path) -> dict[str, Any]:
    return facts_of(third_round)["plan"]


def test_counts_are_those_of_the_round(plan: dict[str, Any], report: dict[str, dict[str, Any]]) -> None:
    said = {each["stage"]: (each["samples_in"], each["samples_out"]) for each in plan["stages"]}
    counted = {stage: outcome["report"] for stage, outcome in report.items()}
    assert said["ingest"] == (counted["ingest"]["read"], counted["ingest"]["train"] + counted["ingest"]["eval"])
    assert said["sketch"] == (counted["sketch"]["samples"],) * 2
    assert said["cluster"] == (counted["cluster"]["samples"],) * 2
    assert said["select"] == (counted["select"]["candidates"], counted["select"]["selected"])
    assert said["prune"] == (counted["prune"]["candidates"], counted["prune"]["live"])
    assert said["train"] == (counted["train"]["samples"], counted["train"]["steps"] * 8)
    assert said["evaluate"] == (counted["evaluate"]["samples"],) * 2
    assert [plan[key] for key in ("round", "parent", "drop", "strategy")] == ["r003", "base", "third", "adapt_inf"]


def test_time_memory_and_disk_are_of_the_right_size(
    third_round: Path, plan: dict[str, Any], report: dict[str, dict[str, Any]]
) -> None:
    foretold = {each["stage"]: each["seconds"] for each in plan["stages"]}
    ratios = [foretold[stage] / outcome["seconds"] for stage, outcome in report.items()]
    assert 1 / 5 < statistics.median(ratios) < 5  # a machine that stands still at times is so in a stage or two
    assert plan["seconds"] == pytest.approx(plan["overhead_seconds"] + sum(foretold.values()))
    peak = max(outcome["peak_memory_mb"] for outcome in report.values())
    assert plan["memory_mb"] == pytest.approx(peak, rel=0.2)
    for each in plan["stages"]:
        assert each["disk_bytes"] is not None
    rounds = Project(third_round / "project").rounds
    before = {path.stat().st_ino for path in rounds.glob("[rb]*/*/**/*") if "r003" not in path.parts}
    outputs = [path for name in OUTPUTS.values() for path in (rounds / "r003" / name).rglob("*") if path.is_file()]
    added = {path.stat().st_ino: path.stat().st_size for path in outputs if path.stat().st_ino not in before}
    assert 0.5 < plan["disk_bytes"] / sum(added.values()) < 2


def test_without_a_round_on_this_machine_times_are_unknown(new_project: Project) -> None:
    plan = plan_round(new_project)
    assert [plan.round, plan.parent, plan.drop] == ["r001", "base", "first"]
    assert plan.seconds is None
    assert {each.seconds for each in plan.stages} == {None}
    assert {each.memory_mb for each in plan.stages} == {None}
    sketch = next(each for each in plan.stages if each.stage == "sketch")
    assert sketch.samples_in == 192
    assert sketch.disk_bytes is not None
    table = plan_table(plan)
    assert "times and memory are not known yet" in table
    assert " ? " in table


def test_a_round_that_was_cut_off_shows_what_is_done(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "project")
    shutil.rmtree(project.output("r002", "select"))
    plan = plan_round(project)
    assert plan.round == "r002"
    assert [each.stage for each in plan.stages if each.cached] == ["ingest", "sketch", "cluster", "score"]
    assert plan.seconds is not None
    assert plan.stages[0].samples_out == 112
    assert [line.split()[1] for line in plan_table(plan).splitlines()[2:10]] == ["done"] * 4 + ["runs"] * 4


def test_a_drop_is_planned_where_it_lies(
    two_rounds: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(two_rounds.drops.glob("[!.]*"))
    folder = make_drop(tmp_path / "later", "later", train=30, eval=0)
    assert cli.main(["plan", "-C", str(two_rounds.root), str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "round r003: drop later on top of r002" in shown
    assert "Times and memory by r001, r002" in shown
    assert sorted(two_rounds.drops.glob("[!.]*")) == before
    assert plan_round(two_rounds, str(folder)).stages[0].samples_in == 30


def test_what_stands_in_the_way_is_named(two_rounds: Project, tmp_path: Path) -> None:
    with pytest.raises(AdaptInfError, match="No drop waits"):
        plan_round(two_rounds)
    (tmp_path / "bad").mkdir()
    with pytest.raises(DropError, match=r"dataset\.yaml"):
        plan_round(two_rounds, str(tmp_path / "bad"))
    project = copy_project(two_rounds, tmp_path / "project")
    drop = make_drop(tmp_path / "later", "later")
    shutil.rmtree(project.output("r002", "pool"))
    with pytest.raises(RoundError, match="its pool is not here"):
        plan_round(project, str(drop))


def test_a_full_disk_and_a_round_that_waits_for_approval_are_foreseen(two_rounds: Project, tmp_path: Path) -> None:
    plan = plan_round(two_rounds, str(make_drop(tmp_path / "later", "later")))
    assert "too little" not in plan_table(plan)
    assert "too little" in plan_table(replace(plan, free_bytes=1000))
    assert "begins after `adapt-inf promote r002`" in plan_table(replace(plan, awaiting=["r002"]))
    assert plan.to_json()["disk_bytes"] == plan.disk_bytes == sum(each.disk_bytes or 0 for each in plan.stages)
    assert read_json(two_rounds.rounds / "head.json") == {"round": "r002"}
