"""Compute one result: a small project of what the stage reads, in which it runs as in any round.

The bench is a folder with the stage's name for its result: rounds/, drops/ and params.yaml as a project has them, every
file a second name of one that lies elsewhere. What a killed run left in it is what the stage goes on from, as in a
round; once the result is in the store the bench is gone.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt_inf.comparison.pipeline import BASE_MODEL, DRAW, READ, Stage
from adapt_inf.comparison.store import Store, link_folder
from adapt_inf.config import load_params
from adapt_inf.project import Project
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.runner import STAGES, run_stage

LOG = "log.txt"


@dataclass(frozen=True)
class Task:
    """A result that is to be computed.

    Attributes:
        name: of the result.
        stage: filled in for the round.
        round_id: the round.
        params: its params.yaml.
        sources: where the content of each of the stage's `deps`, and the base model, lies.
        bench: the folder to work in.
    """

    name: str
    stage: Stage
    round_id: str
    params: Mapping[str, Any]
    sources: Mapping[str, Path]
    bench: Path


def load_stages() -> None:
    """Import all that tasks need, so that processes forked from here begin at once."""
    for stage in STAGES:
        importlib.import_module(f"adapt_inf.stages.{stage}")
    importlib.import_module("adapt_inf.comparison.drawing")


def perform(task: Task, store: Store) -> None:
    """Run the task's stage and put what it wrote into the store.

    Raises:
        AdaptInfError: what the stage names.
    """
    project, before = lay_out(task), _cpu_seconds()
    if task.stage.name in (READ, DRAW):
        outcome = _run_short(project, task)
    else:
        outcome = run_stage(project, task.round_id, task.stage.name)
    outcome |= {"round": task.round_id, "cpu_seconds": round(_cpu_seconds() - before, 3)}
    store.put(task.name, project.root / task.stage.out, outcome)
    shutil.rmtree(task.bench)


def lay_out(task: Task) -> Project:
    """The bench as a project that holds what the stage reads; unfinished work in it stays."""
    project = Project(task.bench)
    project.drops.mkdir(parents=True, exist_ok=True)
    for path, source in task.sources.items():
        target = project.root / path
        if target.parent == project.drops:
            target.unlink(missing_ok=True)
            os.symlink(source, target)
        else:
            link_folder(source, target)
    params = project.params_of(task.round_id)
    params.parent.mkdir(parents=True, exist_ok=True)
    # Ingest refuses a budget that its round cannot spend. Here lineages of any budget share what it leaves.
    values = {key: value for key, value in task.params.items() if (task.stage.name, key) != ("ingest", "select")}
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return project


def _run_short(project: Project, task: Task) -> dict[str, Any]:
    from adapt_inf.comparison import drawing

    runs: dict[str, Callable[[StageContext], dict[str, Any]]] = {READ: drawing.read, DRAW: drawing.draw}
    started = time.monotonic()
    params = load_params(project.params_of(task.round_id))
    report = runs[task.stage.name](StageContext(project, task.round_id, params))
    return {"stage": task.stage.name, "seconds": round(time.monotonic() - started, 3), "report": report}


def _cpu_seconds() -> float:
    """Of this process and those that it began and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def sources_of(stage: Stage, found: Mapping[str, Path]) -> dict[str, Path]:
    """What the bench of a stage needs, from where everything lies."""
    return {path: found[path] for path in dict.fromkeys([*stage.deps, BASE_MODEL])}
