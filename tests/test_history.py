"""The history keeps every move once, in order, and what was begun is found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt_inf import history
from adapt_inf.errors import AdaptInfError
from adapt_inf.history import Move
from adapt_inf.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "rounds").mkdir()
    return Project(tmp_path)


def test_moves_stand_in_order_as_json_lines(project: Project) -> None:
    assert history.moves(project) == []
    first = Move.now("r001", "base", "round", "took in birds", None)
    second = Move.now("base", "r001", "rollback", "größer\nals gedacht", "lead@desk")
    for move in (first, second):
        history.append(project, move)
    assert history.moves(project) == [first, second]
    lines = (project.rounds / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith('{"time": "20')
    assert '"round": "base", "from": "r001", "kind": "rollback", "why": "größer\\nals gedacht"' in lines[1]
    assert "@" in first.by


def test_a_move_is_kept_once_however_often_it_is_added(project: Project) -> None:
    move = Move.now("r001", "base", "round", "", "me")
    for _ in range(3):
        history.append(project, move)
    assert history.moves(project) == [move]


@pytest.mark.parametrize("line", ['{"time": "2026', "[1]", '{"round": "r001"}', '"text"'])
def test_a_line_of_another_kind_is_named(project: Project, line: str) -> None:
    history.append(project, Move.now("r001", "base", "round", "", "me"))
    with open(project.rounds / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(AdaptInfError, match=r"history.jsonl: line 2 is no move of the head .*\n.*from git"):
        history.moves(project)


def test_what_was_begun_stands_until_it_is_ended(project: Project) -> None:
    assert history.half_done(project) is None
    history.begin(project, {"kind": "rollback"})
    assert history.half_done(project) == {"kind": "rollback"}
    history.end(project)
    history.end(project)
    assert history.half_done(project) is None
