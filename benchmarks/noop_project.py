"""A project whose eight stages do nothing but copy a prepared folder: a round costs what its orchestration costs.

The outputs are real folders that DVC hashes and MLflow logs; only what a model, a pool or an evaluation needs is not in
them. Rounds made by `fill_rounds` have their files and DVC records, but were never run.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import yaml

from adapt_inf import lineage, versions
from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.files import write_json, write_text
from adapt_inf.project import BASE, Project
from adapt_inf.stages.runner import OUTPUTS

_METRICS = {
    "round": "ROUND",
    "parent": "PARENT",
    "skills": {"colour": 0.5},
    "average_accuracy": 0.5,
    "forgetting": 0.0,
    "backward_transfer": 0.0,
    "forward_transfer": 0.0,
    "relative_gain": None,
}
_MATRIX = {"values": {"PARENT": {}, "ROUND": {"colour": 0.5}}}
_LOG = {"seconds": 0.0, "peak_memory_mb": 0.0, "cached": False, "report": {}}
_CONTENT = {
    "ingest": {"report.json": {"read": 4, "train": 4, "eval": 0, "rejected": 0}},
    "select": {"selectors.json": {"strategy": "adapt_inf", "candidates": 4, "selected": 2, "clusters": []}},
    "pool": {"pool.json": {"live": 4, "pruned": 0, "drops": []}},
    "evaluate": {
        "metrics.json": _METRICS,
        "accuracy_matrix.json": {"values": {"PARENT": {}, "ROUND": {"colour": 0.5}}},
    },
}


def make_noop_project(root: Path, *, git: bool = False, stage: str = "", **params: object) -> Project:
    """A project at `root`.

    Args:
        git: whether its rounds are commits.
        stage: a shell command that each stage runs first; ${round} stands for the round.
        params: of params.yaml, by `section__key`.
    """
    project = Project(root)
    project.drops.mkdir(parents=True)
    values = {"git.commit": git} | {key.replace("__", "."): value for key, value in params.items()}
    write_text(project.params_file, set_values(definition("params.yaml"), values))
    for output in ("model", "pool", "evaluate"):
        _fill(project.output(BASE, output), output)
    for output in OUTPUTS.values():
        _fill(root / "prepared" / output, output)
    stages = yaml.safe_load(definition("dvc.yaml"))["stages"]
    for name, entry in stages.items():
        output = f"rounds/${{round}}/{OUTPUTS[name]}"
        write_json(root / "prepared" / "log" / f"{name}.json", _LOG | {"stage": name})
        copy = f"cp -r prepared/{OUTPUTS[name]} {output} && cp prepared/log/{name}.json rounds/${{round}}/log/"
        if name == "evaluate":
            copy += f" && sed -i 's/ROUND/${{round}}/; s/PARENT/${{parent}}/' {output}/*.json"
        entry["do"]["cmd"] = f"mkdir -p rounds/${{round}}/log && {stage + ' && ' if stage else ''}{copy}"
    write_text(root / "dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False, width=200))
    versions.create_repository(root, git=git)
    versions.add_outputs(root, [f"rounds/{BASE}/{name}" for name in ("model", "pool", "evaluate")])
    if git:
        versions.commit_round(project, BASE, "Begin")
    return project


def _fill(folder: Path, output: str) -> None:
    for name, content in _CONTENT.get(output, {"content.json": output}).items():
        write_json(folder / name, content)


def wait_drop(project: Project, name: str) -> None:
    """Put a drop of that name in the queue, past the checks that a real one gets."""
    write_text(project.drop(name) / "dataset.yaml", f"name: {name}\n")
    ready, now = project.drop(name) / "READY", time.time_ns()
    write_text(ready, "")
    os.utime(ready, ns=(now, now))  # by which they are ordered: a file's own time can be the same for two


def fill_rounds(project: Project, count: int) -> None:
    """Give the project, which has one finished round, `count` more that look like it, each on top of the one before."""
    first = lineage.rounds(project)[0].round
    lock = (project.round(first) / "dvc.lock").read_text(encoding="utf-8")
    record = lineage.read_round(project, first).to_json()
    for number in range(count):
        parent = lineage.head(project)
        name = f"r{lineage.round_number(parent) + 1:03d}"
        folder = project.round(name)
        for file in ("params.yaml", "dvc.yaml", "dvc.lock"):
            text = lock if file == "dvc.lock" else (project.round(first) / file).read_text(encoding="utf-8")
            text = re.sub(rf"\b{first}\b", name, re.sub(rf"\b{BASE}\b", parent, text))
            write_text(folder / file, text)
        for output in OUTPUTS.values():
            _fill(project.output(name, output), output)
        write_json(folder / "round.json", record | {"round": name, "parent": parent, "drop": f"filled-{number}"})
        lineage.move_head(project, name)
