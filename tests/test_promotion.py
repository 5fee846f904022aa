"""The gate, and the moves of the head: in the files, in git and in MLflow, also when killed at any step."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from concluded_project import START, make_project, run_stages, set_gate
from mlflow import MlflowClient

from adapt_inf import history, lineage, promotion, versions
from adapt_inf.config import set_values
from adapt_inf.data.drops import READY
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.project import Project
from adapt_inf.promotion import compare, conclude, decline, judge, promote, rollback
from adapt_inf.tracking import moves as tracked_moves
from adapt_inf.tracking import rounds as tracked
from adapt_inf.tracking.store import connect
from adapt_inf.writer import writer_lock


@pytest.fixture(scope="module")
def two_done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """r001 and r002 in a line; nobody writes into it: copy it."""
    project = make_project(tmp_path_factory.mktemp("promotion") / "garden")
    for drop in ("first", "second"):
        conclude(project, run_stages(project, drop))
    return project


@pytest.fixture
def project(two_done: Project, tmp_path: Path) -> Project:
    shutil.copytree(two_done.root, tmp_path / "garden")  # of one name: MLflow's experiment is called after it
    return Project(tmp_path / "garden")


def aliases(project: Project) -> dict[str, str]:
    """Alias -> the round whose version has it."""
    client: MlflowClient = connect(project).client
    found = client.get_registered_model("garden").aliases
    return {alias: client.get_model_version("garden", version).tags["round"] for alias, version in found.items()}


def subjects(project: Project) -> list[str]:
    """Of git's commits, the newest first."""
    command = ["git", "log", "--format=%s"]
    return subprocess.run(command, cwd=project.root, check=True, capture_output=True, text=True).stdout.splitlines()


def moves(project: Project) -> list[tuple[str, str, str]]:
    return [(move.origin, move.round, move.kind) for move in history.moves(project)]


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_the_figures_are_against_the_parent() -> None:
    figures = compare({"a": 0.5, "b": 0.8, "c": 0.0}, {"a": 0.6, "b": 0.4, "c": 0.3, "d": 0.5})
    assert figures == {
        "average_accuracy": pytest.approx(0.45),
        "max_forgetting": pytest.approx(0.4),
        "max_forgetting_skill": "b",
        "relative_gain": pytest.approx(85),  # of a and b: the parent scores nothing on c
    }
    assert compare({}, {}) == dict.fromkeys(figures)
    assert compare({"a": 0.2}, {"a": 0.3})["max_forgetting"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ({}, None),
        ({"max_forgetting": 0.2, "min_average_accuracy": 0.45, "min_relative_gain": 90}, None),
        ({"max_forgetting": 0.19}, "base/naming fell by 0.200, more than 0.19 (gate.max_forgetting)"),
        ({"min_average_accuracy": 0.46}, "average accuracy 0.450 is below 0.46 (gate.min_average_accuracy)"),
        ({"min_relative_gain": 100}, "relative gain 95.8% is below 100% (gate.min_relative_gain)"),
    ],
)
def test_limits_hold_to_the_letter(tmp_path: Path, gate: dict[str, float], reason: str | None) -> None:
    project = make_project(tmp_path)
    set_gate(project, **gate)
    round_id = run_stages(project, "first", naming=START["base/naming"] - 0.2, digits=0.5)
    found = judge(project, round_id)
    assert found["reasons"] == ([reason] if reason else [])
    assert found["verdict"] == ("failed" if reason else "passed")


def test_what_was_never_evaluated_reaches_no_accuracy(tmp_path: Path) -> None:
    assert promotion._reasons(promotion.Gate(max_forgetting=0, min_relative_gain=100), compare({}, {})) == []
    (reason,) = promotion._reasons(promotion.Gate(min_average_accuracy=0), compare({}, {}))
    assert "no skill was evaluated" in reason


# --- a round that ends ------------------------------------------------------------------------------------------------


def test_a_round_that_passes_takes_the_head_along(project: Project) -> None:
    record = conclude(project, run_stages(project, "third", naming=0.9))
    assert (record.status, record.verdict, record.model_version) == ("finished", "passed", 3)
    assert record.gate is not None
    assert record.gate["figures"]["max_forgetting"] == 0
    assert lineage.head(project) == "r003"
    assert moves(project)[-1] == ("r002", "r003", "round")
    assert aliases(project) == {"champion": "r003", "previous": "r002"}
    assert subjects(project)[0] == "Round r003: take in third (adapt_inf)"
    assert history.half_done(project) is None


def test_a_round_that_fails_its_gate_stays_marked_and_the_head_too(project: Project) -> None:
    set_gate(project, max_forgetting=0.1)
    record = conclude(project, run_stages(project, "third", naming=0.1))
    assert (record.status, record.verdict) == ("finished", "failed")
    assert lineage.head(project) == "r002"
    assert len(moves(project)) == 2
    assert aliases(project) == {"champion": "r002", "previous": "r001"}
    version = connect(project).client.get_model_version("garden", "3")
    assert version.tags["gate"] == "failed"
    assert "base/naming fell by 0.500" in version.tags["gate.reasons"]
    assert subjects(project)[0] == "Round r003: take in third (adapt_inf)"
    assert lineage.begin_round(project, "fourth") == "r004"
    assert lineage.read_round(project, "r004").parent == "r002"


def test_a_round_moves_no_head_that_was_taken_elsewhere_while_it_ran(project: Project) -> None:
    round_id = run_stages(project, "third")
    rollback(project, "r001")
    record = conclude(project, round_id)
    assert record.gate is not None
    assert record.gate["reasons"] == ["it builds on r002, and the head has gone to r001 since"]
    assert (record.verdict, lineage.head(project)) == ("failed", "r001")
    promote(project, round_id)
    assert lineage.head(project) == round_id


# --- a person decides -------------------------------------------------------------------------------------------------


def test_with_approval_a_round_waits_and_the_drops_behind_it(project: Project) -> None:
    set_gate(project, approval="required")
    record = conclude(project, run_stages(project, "third"))
    assert (record.verdict, lineage.head(project)) == ("waiting", "r002")
    project.drop("fourth").mkdir()
    (project.drop("fourth") / READY).touch()
    assert lineage.next_round(project) is None
    move = promote(project, "r003", by="lead@desk", why="looks good")
    assert move is not None
    assert (move.by, move.why) == ("lead@desk", "looks good")
    assert promote(project, "r003") is None
    assert lineage.read_round(project, "r003").verdict == "promoted"
    assert (lineage.head(project), moves(project)[-1]) == ("r003", ("r002", "r003", "promote"))
    assert aliases(project)["champion"] == "r003"
    assert subjects(project)[0] == "Promote r003: looks good"
    assert lineage.next_round(project) == "r004"


def test_a_declined_round_leaves_the_head_and_lets_the_queue_go_on(project: Project) -> None:
    set_gate(project, approval="required")
    conclude(project, run_stages(project, "third"))
    assert decline(project, "r003", by="lead@desk", why="too odd")
    assert not decline(project, "r003")
    record = lineage.read_round(project, "r003")
    assert record.gate is not None
    assert (record.verdict, record.gate["reasons"]) == ("declined", ["declined by lead@desk: too odd"])
    assert (lineage.head(project), len(moves(project))) == ("r002", 2)
    assert lineage.awaiting(project) == []
    assert subjects(project)[0] == "Decline r003: too odd"
    assert promote(project, "r003") is not None, "a person may think again"


def test_a_failed_gate_is_not_approved_by_waiting(project: Project) -> None:
    set_gate(project, approval="required", min_average_accuracy=1.0)
    assert conclude(project, run_stages(project, "third")).verdict == "failed"
    with pytest.raises(RoundError, match="does not wait for approval"):
        decline(project, "r003")
    assert promote(project, "r003") is not None


# --- back -------------------------------------------------------------------------------------------------------------


def test_a_rollback_moves_head_and_champion_and_the_next_round_branches(project: Project) -> None:
    move = rollback(project, "r001", why="r002 forgot how to count")
    assert move is not None
    assert (lineage.head(project), moves(project)[-1]) == ("r001", ("r002", "r001", "rollback"))
    assert aliases(project) == {"champion": "r001", "previous": "r002"}
    assert subjects(project)[0] == "Roll back to r001: r002 forgot how to count"
    assert rollback(project, "r001") is None
    assert len(moves(project)) == 3
    record = conclude(project, run_stages(project, "third"))
    assert (record.round, record.parent) == ("r003", "r001")
    assert aliases(project) == {"champion": "r003", "previous": "r001"}
    rollback(project, "r002")
    assert aliases(project) == {"champion": "r002", "previous": "r003"}


def test_back_to_the_base_there_is_no_champion(project: Project) -> None:
    rollback(project, "base")
    assert lineage.head(project) == "base"
    assert aliases(project) == {"previous": "r002"}
    assert conclude(project, run_stages(project, "third")).parent == "base"
    assert aliases(project) == {"champion": "r003"}


def test_a_project_without_commits_gets_none(project: Project) -> None:
    before = subjects(project)
    text = project.params_file.read_text(encoding="utf-8").replace("commit: true ", "commit: false")
    project.params_file.write_text(text, encoding="utf-8")
    rollback(project, "r001")
    assert subjects(project) == before


def test_no_head_goes_where_no_round_may_build(project: Project) -> None:
    set_gate(project, min_average_accuracy=1.0)
    conclude(project, run_stages(project, "third"))
    run_stages(project, "fourth")
    shutil.rmtree(project.output("r001", "pool"))
    for round_id, problem in {
        "r009": r"round r009: there is no such round\.\n.*adapt-inf lineage",
        "r003": r"round r003: it failed its gate\.\n.*adapt-inf promote r003",
        "r004": r"round r004: it is not finished\.\n.*adapt-inf round",
        "r001": r"round r001: its pool is not on this machine\.\n.*adapt-inf pull r001",
    }.items():
        with pytest.raises(RoundError, match=problem):
            rollback(project, round_id)
    lineage.fail_round(project, "r004", "stage train failed")
    with pytest.raises(RoundError, match=r"round r004: it failed\.\n.*adapt-inf round"):
        promote(project, "r004")
    with pytest.raises(RoundError, match=r"round r001: no gate holds it back\.\n.*adapt-inf rollback r001"):
        promote(project, "r001")
    assert (lineage.head(project), len(moves(project))) == ("r002", 2)


@pytest.mark.parametrize("mend", ["the hook goes", "git.commit is false"])
def test_a_round_that_git_would_not_take_ends_once_that_is_mended(project: Project, mend: str) -> None:
    round_id = run_stages(project, "third")
    hook = project.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2; exit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    with pytest.raises(AdaptInfError, match=r"git commit failed .*not today\.\n  Mend it there"):
        conclude(project, round_id)
    lineage.fail_round(project, round_id, "git commit failed")  # as the flow does
    assert lineage.has_work(project)
    if mend == "the hook goes":
        hook.unlink()
    else:  # the frozen copy of a round that has begun says otherwise
        text = project.params_file.read_text(encoding="utf-8")
        project.params_file.write_text(set_values(text, {"git.commit": False}), encoding="utf-8")
    promotion.settle(project)
    record = lineage.read_round(project, round_id)
    assert (record.status, record.verdict, record.error) == ("finished", "passed", None)
    assert moves(project)[2:] == [("r002", "r003", "round")]
    assert aliases(project)["champion"] == "r003"


def test_no_head_moves_while_another_process_is_at_work(project: Project) -> None:
    with writer_lock(project), pytest.raises(AdaptInfError, match="is at work here"):
        rollback(project, "r001")
    assert lineage.head(project) == "r002"


# --- kill -9 ----------------------------------------------------------------------------------------------------------

STEPS: dict[str, tuple[Any, str]] = {
    "record": (lineage, "write_round"),
    "gate in MLflow": (tracked, "tag_gate"),
    "history": (history, "append"),
    "head": (lineage, "move_head"),
    "git": (versions, "commit_files"),
    "moves in MLflow": (tracked_moves, "show_moves"),
    "end": (history, "end"),
}


def killed(step: str, act: Callable[[], object]) -> None:
    """Run `act` in a process that is killed as it comes to a step; it must come to it."""
    owner, name = STEPS[step]
    child = os.fork()
    if child == 0:
        setattr(owner, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("step", ["history", "git", "moves in MLflow", "end"])
def test_a_killed_rollback_is_completed_by_the_next_who_writes(project: Project, step: str) -> None:
    killed(step, lambda: rollback(project, "r001", why="oops"))
    assert lineage.has_work(project)
    assert rollback(project, "r001", why="oops") is None, "it was done before this one looked"
    assert (lineage.head(project), moves(project)[2:]) == ("r001", [("r002", "r001", "rollback")])
    assert aliases(project) == {"champion": "r001", "previous": "r002"}
    assert subjects(project)[:2] == ["Roll back to r001: oops", "Round r002: take in second (adapt_inf)"]
    assert not lineage.has_work(project)


@pytest.mark.parametrize("step", ["record", "gate in MLflow", "head", "git", "end"])
def test_a_round_killed_at_its_end_ends_once(project: Project, step: str) -> None:
    round_id = run_stages(project, "third")
    if step == "record":  # its facts are gathered by the same function
        killed(step, lambda: conclude(project, round_id))
        assert history.half_done(project) is None
    else:
        killed(step, lambda: conclude(project, round_id))
        promotion.settle(project)
    record = conclude(project, round_id)
    assert (record.status, record.verdict, record.model_version) == ("finished", "passed", 3)
    assert (lineage.head(project), moves(project)[2:]) == ("r003", [("r002", "r003", "round")])
    assert aliases(project) == {"champion": "r003", "previous": "r002"}
    assert subjects(project)[:2] == ["Round r003: take in third (adapt_inf)", "Round r002: take in second (adapt_inf)"]
    assert len(connect(project).client.search_model_versions("name = 'garden'")) == 3
