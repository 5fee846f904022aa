"""What MLflow missed is sent by whoever finds it there again, and only what is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from concluded_project import make_project, run_stages

from adapt_inf import lineage
from adapt_inf.errors import RoundError
from adapt_inf.project import Project
from adapt_inf.promotion import conclude, rollback
from adapt_inf.tracking import outbox
from adapt_inf.tracking.outbox import untracked
from adapt_inf.tracking.sending import catch_up, track
from adapt_inf.tracking.store import connect, find_runs


@pytest.fixture
def garden(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a round that ended without MLflow, which answers by now."""
    project = make_project(tmp_path / "garden")
    shutil.copyfile(empty_database, project.root / "mlflow.db")
    monkeypatch.setattr(outbox, "_failed", {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    run_stages(project, "first", naming=0.7)
    assert conclude(project, "r001").model_version is None
    assert list(untracked(project)) == ["r001", "head"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return project


def rounds_in_mlflow(project: Project) -> list[str]:
    return sorted(run.data.tags["adapt_inf.round"] for run in find_runs(connect(project), {"adapt_inf.kind": "round"}))


def test_the_end_of_another_round_sends_what_waits(garden: Project) -> None:
    catch_up(garden)
    assert untracked(garden) == {}
    assert rounds_in_mlflow(garden) == ["r001"]
    assert lineage.read_round(garden, "r001").model_version == 1
    champion = connect(garden).client.get_model_version_by_alias("garden", "champion")
    assert champion.tags["round"] == "r001"


def test_while_it_does_not_answer_the_list_stays(garden: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(outbox, "_failed", {})
    catch_up(garden)
    assert list(untracked(garden)) == ["r001", "head"]


def test_a_round_that_is_not_done_is_left_to_itself(garden: Project) -> None:
    lineage.begin_round(garden, "second")
    assert track(garden, ["r002"]) == []
    assert rounds_in_mlflow(garden) == []
    with pytest.raises(RoundError, match="there is no such round"):
        track(garden, ["r009"])


def test_each_branch_has_its_timeline_and_a_second_time_adds_none(garden: Project) -> None:
    conclude(garden, run_stages(garden, "second"))
    rollback(garden, "r001")
    conclude(garden, run_stages(garden, "third"))
    assert track(garden) == ["r001", "r002", "r003"]
    for _ in range(2):
        names = sorted(run.info.run_name for run in find_runs(connect(garden), {"adapt_inf.kind": "timeline"}))
        assert names == ["timeline base to r002", "timeline base to r003"]
        assert track(garden) == []
