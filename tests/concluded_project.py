"""A project whose rounds have what the end of a round reads, with scores as a test wants them: no model, no stage."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from adapt_inf import lineage
from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.files import read_json, write_json, write_text
from adapt_inf.project import Project

START = {"base/naming": 0.6, "base/digits": 0.4}


def make_project(root: Path) -> Project:
    """A project at the base, in git, whose base model has the scores `START`."""
    project = Project(root)
    project.drops.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        write_text(root / name, definition(name))
    for name in ("pool", "model", "evaluate"):
        project.output("base", name).mkdir(parents=True)
    matrix = {"skills": [], "rounds": ["base"], "values": {"base": START}, "base": START}  # none: no pictures
    write_json(project.output("base", "evaluate") / "accuracy_matrix.json", matrix)
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(root)], check=True)
    return project


def set_gate(project: Project, **values: Any) -> None:
    """Change `gate` in params.yaml, for rounds that begin from now on."""
    text = project.params_file.read_text(encoding="utf-8")
    project.params_file.write_text(set_values(text, {f"gate.{key}": each for key, each in values.items()}))


def run_stages(project: Project, drop: str, **scores: float) -> str:
    """Begin a round for `drop` on the head and leave what its eight stages would.

    Args:
        scores: of naming and digits; the parent's where left out.
    """
    round_id = lineage.begin_round(project, drop)
    parent = lineage.read_round(project, round_id).parent
    matrix = read_json(project.output(parent, "evaluate") / "accuracy_matrix.json")
    now = matrix["values"][parent] | {f"base/{skill}": score for skill, score in scores.items()}
    matrix["rounds"].append(round_id)
    matrix["values"][round_id] = now
    evaluate = project.output(round_id, "evaluate")
    write_json(evaluate / "accuracy_matrix.json", matrix)
    figures = {"average_accuracy": sum(now.values()) / len(now), "forgetting": 0.0}
    write_json(evaluate / "metrics.json", {"round": round_id, "parent": parent, **figures, "skills": now})
    write_json(project.output(round_id, "pool") / "pool.json", {"round": round_id, "live": 100, "pruned": 0})
    selectors = {"candidates": 100, "selected": 25, "strategy": "adapt_inf", "clusters": []}
    write_json(project.output(round_id, "select") / "selectors.json", selectors)
    report = {"drop": drop, "train": 40, "eval": 8, "rejected": 0, "duplicates": 0}
    write_json(project.output(round_id, "ingest") / "report.json", report)
    write_text(project.output(round_id, "model") / "adapter_model.safetensors", f"weights of {round_id}")
    outs = [{"path": f"rounds/{round_id}/pool", "md5": f"{round_id:0<32}.dir"}]
    write_text(project.round(round_id) / "dvc.lock", yaml.safe_dump({"stages": {"prune": {"outs": outs}}}))
    return round_id
