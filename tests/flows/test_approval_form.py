"""What the form of a round that waits says to whoever decides: each figure under a name that says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from concluded_project import make_project, run_stages, set_gate

from adapt_inf import promotion
from adapt_inf.project import Project
from flows.approval import describe


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "garden")
    set_gate(project, approval="required")
    return project


def waiting(project: Project, **scores: float) -> dict[str, str]:
    """The rows of the form of a round of these scores that waits."""
    round_id = run_stages(project, "first", **scores)
    assert promotion.conclude(project, round_id).verdict == "waiting"
    lines = describe(project, round_id).splitlines()
    assert lines[0] == "**r001** took in first on top of base. Its model becomes champion if you say so."
    assert lines[2:4] == ["| figure | value |", "|---|---|"]
    return dict(line.strip("| ").split(" | ") for line in lines[4:])


def test_the_averages_stand_side_by_side_and_what_fell_is_named(project: Project) -> None:
    assert waiting(project, naming=0.3, digits=0.8, new=0.1) == {
        "average accuracy of r001, over 3 skills": "0.400",
        "average accuracy of base, over 2 of these": "0.500",
        "largest fall of a skill against base (below 0: it rose)": "0.300",
        "that skill": "base/naming",
        "score of a skill against base's, mean in %": "125.0",
    }


def test_what_cannot_be_told_is_a_dash_and_no_name_breaks_the_table(project: Project) -> None:
    round_id = run_stages(project, "first", **{"a|b": 0.4})
    assert promotion.conclude(project, round_id).verdict == "waiting"
    record = promotion.lineage.read_round(project, round_id)
    assert record.gate is not None
    record.gate["figures"] |= {"max_forgetting_skill": "base/a|b", "relative_gain": None}
    promotion.lineage.write_round(project, record)
    (project.output(round_id, "evaluate") / "accuracy_matrix.json").unlink()
    said = describe(project, round_id)
    assert "| that skill | base/a\\|b |" in said
    assert "| average accuracy of r001 | 0.467 |" in said
    assert "mean in % | - |" in said
    assert "of these" not in said
