"""Fixtures of tracking: a project whose rounds stand on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_project import add_round, empty_project

from adapt_inf.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with rounds r001 and r002 done on disk and nothing in MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "garden")
    add_round(project, "r001")
    add_round(project, "r002")
    return project
