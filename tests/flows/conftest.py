"""A lineage of two rounds through Prefect, DVC and MLflow, made once by the commands that a user would give."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import Machine, copy_project
from make_drop import make_drop

from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.project import Project

PARAMS = {
    "ingest.shard_samples": 50,
    "sketch.dim": 64,
    "sketch.shard_samples": 64,
    "cluster.k": 6,
    "select.budget": 0.25,
    "select.min_cluster": 8,
    "prune.pool_cap": 120,
    "train.steps": 6,
    "train.batch_size": 8,
    "train.learning_rate": 0.002,
    "train.checkpoint_steps": 2,
    "evaluate.max_new_tokens": 4,
}


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def new_project(machine: Machine, miniature_model: Path) -> Project:
    """A project with a base pool and two drops that wait; nobody runs a round in it: copy it."""
    for name in ("known", "first", "second"):
        make_drop(machine.home / name, name, train=96, eval=16, seed=len(name))
    params = machine.home / "params.yaml"
    params.write_text(set_values(definition("params.yaml"), PARAMS), encoding="utf-8")
    root = machine.home / "new"
    arguments = ["--model", str(miniature_model), "--pool", "known", "--params", str(params)]
    machine.run("adapt-inf", "init", str(root), *arguments)
    for name in ("first", "second"):
        machine.run("adapt-inf", "drop", str(machine.home / name), cwd=root)
    return Project(root)


@pytest.fixture(scope="session")
def two_rounds(machine: Machine, new_project: Project) -> Project:
    """The same project after both rounds; tests that change it put things back."""
    project = copy_project(new_project, machine.home / "done")
    machine.run("adapt-inf", "round", cwd=project.root)
    return project
