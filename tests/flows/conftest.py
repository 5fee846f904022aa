"""A lineage of two rounds through Prefect, DVC and MLflow, made once by the commands that a user would give."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import Machine, copy_project
from projects import make_project

from adapt_inf.project import Project


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def new_project(machine: Machine, miniature_model: Path) -> Project:
    """A project with a base pool and two drops that wait; nobody runs a round in it: copy it."""
    return make_project(machine, miniature_model)


@pytest.fixture(scope="session")
def two_rounds(machine: Machine, new_project: Project) -> Project:
    """The same project after both rounds; tests that change it put things back."""
    project = copy_project(new_project, machine.home / "done")
    machine.run("adapt-inf", "round", cwd=project.root)
    return project
