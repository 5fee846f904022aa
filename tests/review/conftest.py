"""Fixtures of review: the last of two real rounds, and hand-made rounds without samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracked_project import add_round, empty_project

from adapt_inf.project import Project
from adapt_inf.review.tables import Review


@pytest.fixture(scope="session")
def real(two_rounds: Project) -> Review:
    """Round r002, which pruned; nobody changes its files."""
    return Review(two_rounds, "r002")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Hand-made rounds r001 and r002: the JSON of every stage, and no samples."""
    project = empty_project(tmp_path / "garden")
    add_round(project, "r001")
    add_round(project, "r002")
    return project
