"""The table for the terminal and the command that opens the UI."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracked_project import lineage_of

from adapt_inf.project import Project
from adapt_inf.tracking.store import note_address
from adapt_inf.tracking.summary import WIDTH, lineage_table, mlflow_command


def test_rounds_and_skills_stand_in_the_table(project: Project) -> None:
    lines = lineage_table(lineage_of(project, "r001", "r002")).splitlines()
    assert " ".join(lines[0].split()) == "round drop strategy status gate average forgot pool selected pruned"
    assert lines[2].split()[:5] == ["r001", "shapes", "adapt_inf", "finished", "-"]
    assert lines[5].split()[:4] == ["skills", "naming", "digits", "colour"]
    assert lines[7].split()[-1] == "-"  # r001 knew nothing of flags yet


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc", max_size=30), st.text("xy-", min_size=1, max_size=40)), max_size=40, unique=True)
)
def test_the_table_always_fits_and_names_every_skill(skills: list[tuple[str, str]]) -> None:
    scores = {f"{suite}/{name}": 0.5 for suite, name in skills}
    found = {"round": "r001", "drop": "d" * 50, "status": "running", "pool_size": 10**9, "metrics": {"skills": scores}}
    text = lineage_table([found])
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.count("0.500") == len(scores)
    headings = [word for line in text.splitlines() if line.startswith("skills ") for word in line.split()[1:]]
    assert len(set(headings)) == len(scores)


def entry(name: str, parent: str, head: bool = False, verdict: str = "passed") -> dict[str, Any]:
    reasons = ["base/naming fell by 0.310"] if verdict == "failed" else []
    gate = {"verdict": verdict, "reasons": reasons, "figures": {}}
    return {"round": name, "parent": parent, "drop": "d", "status": "finished", "head": head, "gate": gate}


def drawn(*entries: dict[str, Any]) -> list[str]:
    lines = lineage_table(list(entries)).split("\n\n")[0].splitlines()[2:]
    return [line.split("  d  ")[0].split("  -  ")[0].rstrip() for line in lines]


def test_a_straight_line_is_not_set_in_and_the_head_is_marked() -> None:
    assert drawn(entry("r001", "base"), entry("r002", "r001", head=True)) == ["r001", "r002 *"]
    assert drawn(entry("r001", "base", head=True), entry("r002", "r001")) == ["r001 *", "r002"]


def test_side_branches_stand_set_in_above_the_way_to_the_head() -> None:
    rounds = [
        entry("r001", "base"),
        entry("r002", "r001"),
        entry("r003", "r002"),
        entry("r004", "r001"),
        entry("r005", "r004", verdict="failed"),
        entry("r006", "r004", head=True),
    ]
    assert drawn(*rounds) == ["r001", "├─ r002", "│  r003", "r004", "├─ r005", "r006 *"]
    text = lineage_table(rounds)
    assert "* the head: " in text
    assert "r005 failed: base/naming fell by 0.310" in text
    rounds[5]["head"], rounds[2]["head"] = False, True
    assert drawn(*rounds) == ["r001", "├─ r004", "│  ├─ r005", "│  r006", "r002", "r003 *"]


def test_the_base_stands_there_where_the_head_or_a_branch_is_at_it() -> None:
    assert drawn(entry("r001", "base")) == ["base *", "r001"]
    assert drawn(entry("r001", "base"), entry("r002", "base", head=True)) == ["base", "├─ r001", "r002 *"]


def test_a_thousand_rounds_in_a_line_are_drawn() -> None:
    line = [entry(f"r{i:03d}", f"r{i - 1:03d}" if i > 1 else "base", head=i == 1200) for i in range(1, 1201)]
    assert drawn(*line)[-1] == "r1200 *"


def test_a_lineage_without_rounds_says_so() -> None:
    assert lineage_table([]) == "no rounds yet"


def test_the_command_opens_the_projects_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = Project(tmp_path / "my project")
    command, link = mlflow_command(project).splitlines()
    words = shlex.split(command)
    assert words[:2] == ["mlflow", "ui"]
    assert words[words.index("--backend-store-uri") + 1] == f"sqlite:///{project.root / 'mlflow.db'}"
    assert link.endswith("?workflowType=machine_learning")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000/")
    assert mlflow_command(project) == "http://tracking:5000/#/experiments?workflowType=machine_learning"


def test_the_run_of_a_round_on_a_server_is_where_it_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "garden")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    note_address(project, "r001", "7", "c0ffee")
    page = "#/experiments/7/runs/c0ffee?workflowType=machine_learning"
    assert mlflow_command(project, "r001") == f"http://tracking:5000/{page}"
    assert mlflow_command(project, "r002") == "http://tracking:5000/#/experiments?workflowType=machine_learning"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://another:5000")
    assert mlflow_command(project, "r001") == "http://another:5000/#/experiments?workflowType=machine_learning"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db/mlflow")
    note_address(project, "r001", "7", "c0ffee")
    assert mlflow_command(project, "r001").splitlines()[1] == f"http://127.0.0.1:5000/{page}"


def test_a_password_in_the_stores_address_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "garden")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://lead:hidden@db/mlflow")
    assert mlflow_command(project).startswith('mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI" --host')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://lead:hidden@mlflow.example.org")
    assert mlflow_command(project).startswith("https://lead:***@mlflow.example.org/#/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://lead@db/mlflow")
    assert mlflow_command(project).startswith("mlflow ui --backend-store-uri postgresql://lead@db/mlflow --host")
