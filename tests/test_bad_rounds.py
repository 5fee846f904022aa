"""Parameters, parents and rounds that cannot be: named before anything runs, and nothing changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_drop import describe, empty_project, good_drop
from machine import copy_project

from adapt_inf import lineage
from adapt_inf.cli import main
from adapt_inf.config import load_params, set_values
from adapt_inf.drop_queue import add_drop, pending_drops
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import folder_digest, write_json
from adapt_inf.project import Project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return copy_project(made, tmp_path / "project")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """r001 is finished and the head, r002 failed, r003 has begun on r001; one more drop waits."""
    home = tmp_path_factory.mktemp("rounds")
    project = empty_project(home / "project")
    for name in ("a", "b", "c", "d"):
        folder = good_drop(home / name)
        describe(folder, name=name, license=f"of {name}")
        add_drop(project, folder, name)
    lineage.begin_round(project, "a")
    end(project, "r001", "finished", {"verdict": "passed", "reasons": [], "figures": {}})
    lineage.move_head(project, "r001")
    lineage.begin_round(project, "b")
    end(project, "r002", "failed")
    lineage.begin_round(project, "c")
    return project


def end(project: Project, round_id: str, status: str, gate: dict[str, Any] | None = None) -> None:
    lineage.write_round(project, replace(lineage.read_round(project, round_id), status=status, gate=gate))


def refused(project: Project, call: Callable[[], object]) -> str:
    """The error of a call that must change nothing."""
    before = folder_digest(project.rounds), pending_drops(project)
    with pytest.raises(AdaptInfError) as caught:
        call()
    assert (folder_digest(project.rounds), pending_drops(project)) == before
    return str(caught.value)


PARAMETERS = {
    "unknown section": ("selct: {}\n", "`selct`: no such key"),
    "unknown key": ("select: {budgett: 3}\n", "`select.budgett`: no such key"),
    "wrong type": ("select: {budget: many}\n", "`select.budget`:"),
    "negative budget": ("select: {budget: -5}\n", "`select.budget`: input should be greater than 0, not -5"),
    "no budget": ("select: {budget: 0}\n", "`select.budget`: input should be greater than 0, not 0"),
    "unknown strategy": ("select: {strategy: adapt_info}\n", "there is no strategy adapt_info; there are adapt_inf,"),
    "unknown score": ("select: {scores: [elm]}\n", "no score elm"),
    "score without what it needs": ("select: {scores: [rds_plus]}\n", "`sketch.hidden`: score rds_plus needs hidden"),
    "strategy without what it needs": ("select: {strategy: crds_w}\n", "`sketch.hidden`: score crds_w needs hidden"),
    "list for a section": ("train: [1]\n", "`train`:"),
    "no YAML": ("a: [1,", "this is no YAML"),
    "objects in YAML": ("a: !!python/object/apply:os.system ['true']\n", "this is no YAML"),
    "no mapping": ("- a\n", "`*`"),
    "NaN": ("train: {learning_rate: .nan}\n", "`train.learning_rate`:"),
}


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameters_that_are_wrong_begin_no_round(project: Project, case: str) -> None:
    text, reason = PARAMETERS[case]
    for round_id in ("r002", "r003"):
        end(project, round_id, "finished")
    project.params_file.write_text(text, encoding="utf-8")
    message = refused(project, lambda: lineage.next_round(project))
    assert str(project.params_file) in message
    assert reason in message
    assert pending_drops(project) == ["d"]


def frozen(**values: Any) -> Callable[[Project], None]:
    """Change the params.yaml that r003 runs with."""

    def change(project: Project) -> None:
        file = project.params_of("r003")
        file.write_text(set_values(file.read_text(encoding="utf-8"), values), encoding="utf-8")

    return change


def judged(verdict: str) -> Callable[[Project], None]:
    """Let r003's parent be a round whose gate says that."""

    def change(project: Project) -> None:
        end(project, "r002", "finished", {"verdict": verdict, "reasons": [], "figures": {}})
        frozen(parent="r002")(project)

    return change


ROUNDS: dict[str, tuple[Callable[[Project], None], str]] = {
    "a parent that is not there": (frozen(parent="r009"), "r003 names parent r009, which is not there"),
    "a parent that failed": (frozen(parent="r002"), "r003 names parent r002, which failed"),
    "a parent that failed its gate": (judged("failed"), "r003 names parent r002, which failed its gate"),
    "a parent that was declined": (judged("declined"), "r003 names parent r002, which was declined"),
    "a round name that exists": (frozen(round="r001"), "calls it r001, and there is a round of that name"),
    "another round name": (frozen(round="r007"), "says `round: r007`, but it began with r003"),
    "another parent": (frozen(parent="base"), "says `parent: base`, but it began with r001"),
    "another drop": (frozen(drop="d"), "says `drop: d`, but it began with c"),
    "a key that is unknown": (
        lambda project: project.params_of("r003").write_text("selct: {}\n", encoding="utf-8") and None,
        "`selct`: no such key",
    ),
}


@pytest.mark.parametrize("case", ROUNDS)
def test_a_round_that_was_changed_by_hand_does_not_go_on(
    project: Project, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    spoil, reason = ROUNDS[case]
    spoil(project)
    assert reason in refused(project, lambda: lineage.check_frozen(project, "r003"))
    before = folder_digest(project.rounds)
    assert main(["stage", "select", "r003", "-C", str(project.root)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("adapt-inf: ")
    assert reason in said
    assert folder_digest(project.rounds) == before
    if lineage.read_round(project, "r002").status == "failed":  # which would be gone on with first
        end(project, "r002", "finished")
        reason = reason if case != "a parent that failed" else "says `parent: r002`, but it began with r001"
    assert reason in refused(project, lambda: lineage.next_round(project))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("r009", "names parent r009, which is not there"),
        ("r002", "names parent r002, which failed its gate"),
    ],
)
def test_a_head_that_cannot_be_built_on_begins_no_round(project: Project, head: str, reason: str) -> None:
    end(project, "r002", "finished", {"verdict": "failed", "reasons": [], "figures": {}})
    end(project, "r003", "finished")
    write_json(project.rounds / "head.json", {"round": head})
    assert reason in refused(project, lambda: lineage.begin_round(project, "d"))


@pytest.mark.parametrize("name", ["2024", "null", "1e5", "true", "0x10", "1_000", "2024-01-01", "1.5"])
def test_a_drop_may_be_called_what_yaml_takes_for_something_else(project: Project, tmp_path: Path, name: str) -> None:
    folder = good_drop(tmp_path / "odd")
    describe(folder, name=name, license="odd")
    add_drop(project, folder, name)
    round_id = lineage.begin_round(project, name)
    assert load_params(project.params_of(round_id)).drop == name
    assert json.loads((project.round(round_id) / "round.json").read_text())["drop"] == name
