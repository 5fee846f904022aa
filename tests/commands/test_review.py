"""What `status`, `lineage` and `history` say of a project, to people and to programs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from concluded_project import make_project, run_stages

from adapt_inf import history, lineage
from adapt_inf.cli import main
from adapt_inf.files import write_json
from adapt_inf.history import Move
from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS
from adapt_inf.writer import writer_lock


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "garden")


def finish(project: Project, drop: str, verdict: str) -> str:
    round_id = run_stages(project, drop)
    gate = {"verdict": verdict, "reasons": [], "figures": {}}
    lineage.write_round(project, replace(lineage.gather_facts(project, round_id), status="finished", gate=gate))
    return round_id


def told(project: Project, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "-C", str(project.root)]) == 0
    return capsys.readouterr().out


def test_status_names_what_a_person_has_to_decide(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    finish(project, "first", "waiting")
    assert "approval  r001 passed its gate and waits for `adapt-inf promote r001`" in told(project, capsys, "status")
    assert json.loads(told(project, capsys, "status", "--json"))["awaiting_approval"] == ["r001"]


def test_status_names_the_stage_of_a_failed_and_of_a_cut_off_round(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    round_id = run_stages(project, "first")
    for output in OUTPUTS.values():
        project.output(round_id, output).mkdir(exist_ok=True)
    shutil.rmtree(project.output(round_id, "evaluate"))
    text = told(project, capsys, "status")
    assert "running   r001: first, at evaluate; no process is at work on it: `adapt-inf round` goes on" in text
    write_json(project.log(round_id) / "train.error.json", {"kind": "ModelError", "message": "no room"})
    lineage.fail_round(project, round_id, "no room")
    assert "failed    r001 at train: no room" in told(project, capsys, "status")
    state = json.loads(told(project, capsys, "status", "--json"))
    assert state["failed"] == {"r001": {"stage": "train", "error": "no room"}}
    assert (state["head"], state["rounds"], state["running"]) == ("base", {"r001": "failed"}, [])


def test_status_names_the_process_at_work(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run_stages(project, "first")
    with writer_lock(project):
        text, state = told(project, capsys, "status"), json.loads(told(project, capsys, "status", "--json"))
    assert f"writer    process {state['writer']['pid']} of {state['writer']['user']}" in text
    assert "goes on from there" not in text
    assert json.loads(told(project, capsys, "status", "--json"))["writer"] is None


def test_status_names_a_move_that_was_cut_off(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    history.begin(project, {"kind": "rollback"})
    assert "move      a move of the head was cut off" in told(project, capsys, "status")
    assert json.loads(told(project, capsys, "status", "--json"))["unfinished_move"] is True


def test_lineage_lists_rounds_with_their_place(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No round yet." in told(project, capsys, "lineage")
    lineage.move_head(project, finish(project, "first", "passed"))
    finish(project, "second", "failed")
    entries = json.loads(told(project, capsys, "lineage", "--json"))
    assert [(e["round"], e["head"], e["champion"], e["children"]) for e in entries] == [
        ("r001", True, True, ["r002"]),
        ("r002", False, False, []),
    ]
    assert entries[1]["gate"]["verdict"] == "failed"
    assert told(project, capsys, "lineage").splitlines()[2].startswith("r001 *  first")


def test_history_lists_moves_newest_last(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "The head has not moved yet" in told(project, capsys, "history")
    assert json.loads(told(project, capsys, "history", "--json")) == []
    for move in (("r001", "base", "round", "took in first"), ("base", "r001", "rollback", "")):
        history.append(project, Move.now(*move, by="me@here"))  # type: ignore[arg-type]
    lines = told(project, capsys, "history").splitlines()
    assert [line.split()[1:5] for line in lines[2:]] == [
        ["r001", "base", "round", "me@here"],
        ["base", "r001", "rollback", "me@here"],
    ]
    assert [move["why"] for move in json.loads(told(project, capsys, "history", "--json"))] == ["took in first", ""]
