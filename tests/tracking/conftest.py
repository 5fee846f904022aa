"""Fixtures of tracking: a project whose rounds stand on disk, beside an MLflow database that holds its tables only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracked_project import add_round, empty_project

from adapt_inf.project import Project


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: laying out the tables takes a second, copying them none."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with rounds r001 and r002 done on disk and nothing in MLflow."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = empty_project(tmp_path / "garden")
    shutil.copyfile(empty_database, project.root / "mlflow.db")
    add_round(project, "r001")
    add_round(project, "r002")
    return project
