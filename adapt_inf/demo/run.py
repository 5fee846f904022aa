"""The demo: a project that starts from the shipped model, the continuum dropped on it, and a round for every drop.

Started again in the same folder it goes on where it was. The rounds run in this process, which never imports torch:
making the project does, so that runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from adapt_inf import lineage
from adapt_inf.config import load_params, set_values
from adapt_inf.creation import definition, shipped_model
from adapt_inf.drop_queue import add_drop, pending_drops
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project

PARAMS: dict[str, Any] = {
    "ingest.shard_samples": 500,
    "sketch.dim": 512,
    "select.budget": 0.3,
    "prune.pool_cap": 5000,
    "train.steps": 420,
    "train.learning_rate": 3.0e-3,
    "evaluate.max_new_tokens": 8,
    "evaluate.batch_size": 128,
}
"""Where the demo's params.yaml differs from the default, which is meant for models a thousand times larger."""


def run_demo(
    target: Path, drops: int, strategy: str, seed: int, *, rounds: bool = True, development: bool = False
) -> str:
    """Make or continue the demo at `target` with the first `drops` of the continuum; what to print at the end.

    Args:
        rounds: run them; else the drops wait.
        development: with evaluation splits carved from the training splits, see `compose.compose_drop`.

    Raises:
        AdaptInfError: `target` holds something else, or a demo of another strategy or seed.
    """
    from adapt_inf.demo.compose import DROPS, compose_drop
    from adapt_inf.review.report import report_path
    from adapt_inf.tracking.summary import lineage_table, mlflow_command

    if not 1 <= drops <= len(DROPS):
        raise AdaptInfError(f"--drops {drops}: the continuum has {len(DROPS)} drops.", f"Take 1 to {len(DROPS)}.")
    project = _project(target, strategy, seed, development=development)
    with tempfile.TemporaryDirectory() as folder:
        for name in DROPS[:drops]:
            if not project.drop(name).exists():
                compose_drop(name, Path(folder) / name, development=development)
                add_drop(project, Path(folder) / name, name)
    if not rounds:
        return f"{', '.join(pending_drops(project))} wait in {project.root}. Next, in it: adapt-inf compare, or round."
    if lineage.has_work(project):
        from flows.command import drain_now

        drain_now(project)
    entries = lineage.entries(project)
    page = report_path(project, lineage.head(project))
    return f"{lineage_table(entries)}\n\nThe last round on one page:\n{page}\n\nMLflow:\n{mlflow_command(project)}"


def _project(target: Path, strategy: str, seed: int, *, development: bool) -> Project:
    """The demo's project at `target`, made if it is not there."""
    from adapt_inf.demo.compose import compose_base

    if (target / "params.yaml").is_file():
        project = Project.find(target)
        params = load_params(project.params_file)
        if (params.select.strategy, params.seed) != (strategy, seed):
            raise AdaptInfError(
                f"{target} holds a demo with strategy {params.select.strategy}, seed {params.seed}.",
                "Name another folder with --dir.",
            )
        return project
    with tempfile.TemporaryDirectory() as folder:
        params_file = Path(folder) / "params.yaml"
        values = PARAMS | {"select.strategy": strategy, "seed": seed}
        params_file.write_text(set_values(definition("params.yaml"), values), encoding="utf-8")
        lineage.check_selection(load_params(params_file), target / "params.yaml")
        pool = Path(folder) / "base"
        compose_base(pool, development=development)
        command = [sys.executable, "-m", "adapt_inf.cli", "init", str(target), "--model", shipped_model()]
        done = subprocess.run([*command, "--pool", str(pool), "--params", str(params_file)], check=False)
    if done.returncode:
        raise AdaptInfError(f"The project at {target} could not be made.", "The reason stands above.")
    return Project.find(target)
