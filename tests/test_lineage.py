"""Drops wait in order, rounds freeze what they run with, the head moves, one writer at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from adapt_inf import lineage
from adapt_inf.config import load_params, set_values
from adapt_inf.creation import definition
from adapt_inf.drop_queue import add_drop, pending_drops, refused_drops
from adapt_inf.errors import AdaptInfError, ConfigError, NotAProjectError, RoundError
from adapt_inf.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for folder in ("rounds/base", "drops"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text(definition(name), encoding="utf-8")
    return Project(tmp_path)


def add(project: Project, name: str) -> None:
    source = project.root / "incoming" / name
    source.mkdir(parents=True)
    (source / "dataset.yaml").write_text(f"name: {name}\nlicense: of {name}\n", encoding="utf-8")
    add_drop(project, source, name)


def finish(project: Project, round_id: str, verdict: str = "passed") -> None:
    """What the end of a round leaves in its record."""
    gate = {"verdict": verdict, "reasons": [], "figures": {}}
    lineage.write_round(project, replace(lineage.read_round(project, round_id), status="finished", gate=gate))


def test_a_project_is_found_from_below_and_missed_elsewhere(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert Project.find(project.drops) == project
    with pytest.raises(NotAProjectError, match="adapt-inf init"):
        Project.find(tmp_path_factory.mktemp("elsewhere"))


def test_a_round_freezes_its_definition(project: Project) -> None:
    add(project, "a")
    round_id = lineage.next_round(project)
    assert round_id == "r001"
    frozen = load_params(project.params_of(round_id))
    assert (frozen.round, frozen.parent, frozen.drop) == ("r001", "base", "a")
    stages = yaml.safe_load((project.round(round_id) / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["ingest", "sketch", "cluster", "score", "select", "prune", "train", "evaluate"]
    assert all(stage["wdir"] == "../.." and "foreach" not in stage for stage in stages.values())
    assert stages["train"]["params"] == [{"rounds/${round}/params.yaml": ["seed", "train"]}]
    assert lineage.next_round(project) == "r001", "a round that is not done goes first"


def test_wrong_parameters_begin_no_round(project: Project) -> None:
    add(project, "a")
    project.params_file.write_text("selct: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="selct"):
        lineage.next_round(project)
    assert lineage.rounds(project) == []
    assert pending_drops(project) == ["a"]


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"select.strategy": "adapt_info"}, "no strategy adapt_info"), ({"select.scores": ["elm"]}, "no score elm")],
)
def test_a_strategy_or_score_that_is_not_there_begins_no_round(
    project: Project, values: dict[str, object], problem: str
) -> None:
    add(project, "a")
    project.params_file.write_text(set_values(definition("params.yaml"), values), encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        lineage.next_round(project)
    assert lineage.rounds(project) == []


def test_the_next_round_builds_on_the_head(project: Project) -> None:
    for name in ("a", "b", "c"):
        add(project, name)
    for name in ("a", "b"):
        finish(project, lineage.begin_round(project, name))
        lineage.move_head(project, "r001")
    assert lineage.begin_round(project, "c") == "r003"
    assert [each.parent for each in lineage.rounds(project)] == ["base", "r001", "r001"]
    assert [each.status for each in lineage.rounds(project)] == ["finished", "finished", "running"]


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [("failed", "failed its gate"), ("waiting", "waits for approval"), ("declined", "was declined")],
)
def test_no_round_builds_on_one_that_its_gate_holds_back(project: Project, verdict: str, fault: str) -> None:
    for name in ("a", "b", "c"):
        add(project, name)
    finish(project, lineage.begin_round(project, "a"))
    lineage.move_head(project, "r001")
    finish(project, lineage.begin_round(project, "b"), verdict)
    lineage.move_head(project, "r002")
    with pytest.raises(AdaptInfError) as caught:
        lineage.begin_round(project, "c")
    assert str(caught.value) == (
        f"round r003 names parent r002, which {fault}.\n"
        "  Promote it with `adapt-inf promote r002`, or start from r001 with `adapt-inf rollback r001`."
    )
    assert not project.round("r003").exists()


def test_no_round_builds_on_one_that_failed_or_is_not_there(project: Project) -> None:
    add(project, "a")
    lineage.move_head(project, "r007")
    with pytest.raises(
        AdaptInfError, match=r"r001 names parent r007, which is not there\.\n.*adapt-inf rollback ROUND"
    ):
        lineage.begin_round(project, "a")
    lineage.move_head(project, "base")
    lineage.fail_round(project, lineage.begin_round(project, "a"), "stage train failed")
    lineage.move_head(project, "r001")
    with pytest.raises(AdaptInfError, match=r"r001, which failed\.\n.*`adapt-inf round`, or start from base"):
        lineage.begin_round(project, "a")


def test_drops_wait_behind_a_round_that_awaits_approval(project: Project) -> None:
    for name in ("a", "b"):
        add(project, name)
    finish(project, lineage.begin_round(project, "a"), "waiting")
    assert lineage.awaiting(project) == ["r001"]
    assert lineage.next_round(project) is None
    assert not lineage.has_work(project)
    finish(project, "r001", "declined")
    assert lineage.has_work(project)
    assert lineage.next_round(project) == "r002"
    assert lineage.read_round(project, "r002").parent == "base"


def test_entries_know_their_place_in_the_tree(project: Project) -> None:
    for name in ("a", "b", "c"):
        add(project, name)
        finish(project, lineage.begin_round(project, name))
        lineage.move_head(project, "r001")
    places = [(e["round"], e["head"], e["champion"], e["children"]) for e in lineage.entries(project)]
    assert places == [("r001", True, True, ["r002", "r003"]), ("r002", False, False, []), ("r003", False, False, [])]


def test_a_refused_drop_leaves_no_round_and_does_not_wait(project: Project) -> None:
    add(project, "bad")
    add(project, "good")
    round_id = lineage.begin_round(project, "bad")
    lineage.refuse_drop(project, round_id, "drop bad: no good sample.")
    assert lineage.rounds(project) == []
    assert pending_drops(project) == ["good"]
    assert refused_drops(project) == {"bad": "drop bad: no good sample."}


def test_a_round_survives_its_json(project: Project) -> None:
    add(project, "a")
    record = replace(lineage.read_round(project, lineage.begin_round(project, "a")), metrics={"forgetting": None})
    lineage.write_round(project, record)
    assert lineage.read_round(project, "r001") == record
    with pytest.raises(RoundError, match="no such round"):
        lineage.read_round(project, "r002")
