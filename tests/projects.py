"""A project of the miniature model with drops that wait, made by the commands that a user would give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from machine import Machine
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
    "retries.delay_seconds": 0.1,
}


def make_project(machine: Machine, model: Path, drops: Sequence[str] = ("first", "second")) -> Project:
    """A project with a base pool and `drops` that wait, in the home of `machine`."""
    for name in ("known", *drops):
        make_drop(machine.home / name, name, train=96, eval=16, seed=len(name))
    params = machine.home / "params.yaml"
    params.write_text(set_values(definition("params.yaml"), PARAMS), encoding="utf-8")
    root = machine.home / "new"
    arguments = ["--model", str(model), "--pool", "known", "--params", str(params)]
    machine.run("adapt-inf", "init", str(root), *arguments)
    for name in drops:
        machine.run("adapt-inf", "drop", str(machine.home / name), cwd=root)
    return Project(root)
