"""The table for the terminal and the command that opens the UI."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracked_project import lineage_of

from adapt_inf.project import Project
from adapt_inf.tracking.summary import WIDTH, lineage_table, mlflow_command


def test_rounds_and_skills_stand_in_the_table(project: Project) -> None:
    lines = lineage_table(lineage_of(project, "r001", "r002")).splitlines()
    assert " ".join(lines[0].split()) == "round drop strategy status average forgot pool selected pruned"
    assert lines[2].split()[:4] == ["r001", "shapes", "adapt_inf", "finished"]
    assert lines[5].split()[:4] == ["skills", "naming", "digits", "colour"]
    assert lines[7].split()[-1] == "-"  # r001 knew nothing of flags yet


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc", max_size=30), st.text("xy-", min_size=1, max_size=40)), max_size=40, unique=True)
)
def test_the_table_always_fits_and_names_every_skill(skills: list[tuple[str, str]]) -> None:
    scores = {f"{suite}/{name}": 0.5 for suite, name in skills}
    entry = {"round": "r001", "drop": "d" * 50, "status": "running", "pool_size": 10**9, "metrics": {"skills": scores}}
    text = lineage_table([entry])
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.count("0.500") == len(scores)
    headings = [word for line in text.splitlines() if line.startswith("skills ") for word in line.split()[1:]]
    assert len(set(headings)) == len(scores)


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
