"""What gc frees, against what du says; what it keeps, and that it can be used; where it must not go."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from machine import Machine, copy_project
from third_round import disk_use, facts_of, leave_something

from adapt_inf import cli, lineage
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.promotion import rollback
from adapt_inf.room import find_room, free, room_table
from adapt_inf.storage import Cache, records
from adapt_inf.verification import Verifier
from adapt_inf.versions import open_repository


@pytest.fixture
def project(two_rounds: Project, tmp_path: Path) -> Project:
    return copy_project(two_rounds, tmp_path / "project")


def test_gc_frees_what_it_said_and_du_agrees(third_round: Path) -> None:
    facts = facts_of(third_round)
    assert facts["gc"]["freed"] == facts["gc"]["bytes"] == facts["before"] - facts["after"]
    assert facts["gc"]["freed"] > 100_000
    whats = {part["what"] for part in facts["gc"]["parts"]}
    assert whats == {"sketch", "score", "cluster", "ingest", "leftovers", "cache"}


def test_after_gc_all_verifies_the_next_round_trains_and_every_round_can_be_rolled_back_to(
    third_round: Path, tmp_path: Path
) -> None:
    facts = facts_of(third_round)
    assert [each["ok"] for each in facts["verify"]["rounds"]] == [True] * 3
    assert [(each["round"], each["parent"], each["status"]) for each in facts["lineage"][0]][-1] == (
        "r003",
        "base",
        "finished",
    )
    project = copy_project(Project(third_round / "project"), tmp_path / "project")
    free(find_room(project))
    assert lineage.unfinished(project) == []
    for round_id in ("r001", "base", "r002", "r003"):
        assert rollback(project, round_id) is not None
        assert lineage.head(project) == round_id
    assert not any(Verifier(project).check(each).faults for each in ("base", "r001", "r002", "r003"))


def test_the_oldest_sketches_go_first(project: Project) -> None:
    order = [(room.what, room.round) for room in find_room(project)]
    assert order[:4] == [("sketch", "r001"), ("sketch", "r002"), ("score", "r001"), ("score", "r002")]
    table = room_table(project, find_room(project))
    assert table.splitlines()[0].split()[:4] == ["round", "sketch", "score", "cluster"]
    assert "Pools, models and evaluations of base and 2 rounds stay" in table


def test_a_run_that_was_cut_off_is_completed_by_the_next(project: Project) -> None:
    leave_something(project)
    before, rooms = disk_use(project.root), find_room(project)
    for room in rooms[:2]:
        free([replace(room, paths=room.paths[: len(room.paths) // 2])])
    free(find_room(project))
    assert before - disk_use(project.root) == sum(room.bytes for room in rooms)
    assert find_room(project) == []
    assert "Nothing here may go" in room_table(project, [])
    assert free(rooms[:0]) == 0


def test_a_round_that_is_not_finished_keeps_everything(project: Project) -> None:
    lineage.write_round(project, replace(lineage.read_round(project, "r002"), status="failed"))
    leave_something(project)
    assert {room.round for room in find_room(project)} == {"r001", None}
    before = folder_digest(project.round("r002"))
    known, cache = records(project), Cache.of(project)
    free(find_room(project))
    assert folder_digest(project.round("r002")) == before
    for name in ("ingest", "sketch", "score", "cluster", "select", "pool", "model"):
        assert all(cache.object(md5).exists() for md5 in cache.hashes(known[f"rounds/r002/{name}"].md5))


def test_what_another_branch_of_git_names_stays(machine: Machine, project: Project) -> None:
    root = project.root
    (root / "own.bin").write_bytes(b"kept" * 1000)
    with open_repository(root) as repo:
        repo.add("own.bin")
    machine.run("git", "checkout", "--quiet", "-b", "mine", cwd=root)
    machine.run("git", "add", "own.bin.dvc", cwd=root)
    author = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    machine.run("git", *author, "commit", "--quiet", "-m", "Mine", "own.bin.dvc", cwd=root)
    machine.run("git", "checkout", "--quiet", "main", cwd=root)
    (root / "own.bin").unlink()
    free(find_room(project))
    machine.run("git", "checkout", "--quiet", "mine", cwd=root)
    with open_repository(root) as repo:
        repo.checkout("own.bin.dvc")
    assert (root / "own.bin").read_bytes() == b"kept" * 1000


def test_a_cache_outside_the_project_is_left_alone(project: Project, tmp_path: Path) -> None:
    (project.root / ".dvc" / "cache").rename(tmp_path / "shared")
    with open_repository(project.root) as repo, repo.config.edit() as config:
        config["cache"]["dir"] = str(tmp_path / "shared")
    before = folder_digest(tmp_path / "shared")
    rooms = find_room(project)
    assert {room.what for room in rooms} == {"sketch", "score", "cluster", "ingest"}
    free(rooms)
    assert folder_digest(tmp_path / "shared") == before
    assert "may serve others" in room_table(project, find_room(project))


def test_nothing_goes_before_the_answer_is_yes(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = disk_use(project.root)
    answers = iter(["", "n", "yes"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    for _ in range(2):
        assert cli.main(["gc", "-C", str(project.root)]) == 0
        assert "Nothing was removed" in capsys.readouterr().out
        assert disk_use(project.root) == before
    assert cli.main(["gc", "-C", str(project.root)]) == 0
    assert "Freed" in capsys.readouterr().out
    assert disk_use(project.root) < before


def test_a_lost_output_is_not_missed_once_nothing_reads_it(machine: Machine, project: Project) -> None:
    free(find_room(project))
    assert "Nothing to do" in machine.run("adapt-inf", "round", cwd=project.root).stdout
    assert lineage.missing_outputs(project, "r001") == []
    subprocess.run(["rm", "-r", str(project.output("r001", "pool"))], check=True)
    assert lineage.missing_outputs(project, "r001") == ["pool"]
