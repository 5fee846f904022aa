"""What a round costs beside its stages: eight no-op stages through `adapt-inf round` as a user gives it.

    python benchmarks/orchestration.py [--repeats 3] [--rounds 10 200] [--file FIGURES.json]

A stage here is `cp -r` of a prepared folder: what is measured is Python's start, Prefect, DVC and MLflow. With and
without a Prefect server; in lineages of ten and of two hundred rounds, whose earlier rounds have their files, DVC
records and MLflow runs; with nothing to do; a round that was killed after its last stage, so that all eight are up to
date; and under `adapt-inf serve` from a drop to the start of its round. `cpu` is that of the command and its children,
which other work on the machine stretches less. What anyone who uses the three libraries pays, their import, is timed in
turn with the rest: a measure of the machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from noop_project import fill_rounds, make_noop_project, wait_drop
from report import finish, spread, table

from adapt_inf import lineage
from adapt_inf.project import Project
from adapt_inf.versions import set_environment

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from serving import ServedMachine, prefect_server, serving, until

_IMPORTS = "import dvc.repo, prefect, sqlalchemy, mlflow.store.tracking.sqlalchemy_store"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, nargs=2, default=[10, 200], metavar=("FEW", "MANY"))
    parser.add_argument("--file", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    set_environment()
    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder)) as machine:
        rows, ratio = measure(machine, options.rounds, options.repeats)
    print(table(rows, ["what", "seconds", "cpu"]))
    print(f"\n{options.rounds[1]} rounds / {options.rounds[0]} rounds: {ratio:.2f} of the CPU time")
    finish("orchestration", {"rows": rows, "ratio": ratio}, options.file)


def measure(machine: ServedMachine, lengths: list[int], repeats: int) -> tuple[list[dict[str, Any]], float]:
    few, many = (lineage_of(machine, length) for length in lengths)
    alone = machine.environment() | {"PREFECT_API_URL": ""}
    served = machine.environment()
    timed: dict[str, list[tuple[float, float]]] = {}

    def take(what: str, project: Project, environment: dict[str, str], before: Callable[[Project], None]) -> None:
        before(project)
        timed.setdefault(what, []).append(run_round(project, environment))

    def take_imports() -> None:
        timed.setdefault("importing Prefect, DVC and MLflow", []).append(run([sys.executable, "-c", _IMPORTS], served))

    run_round(few, alone)  # a first one, so that no figure has what only a first one costs
    for _ in range(repeats):  # in turn, so that what else the machine does falls on all alike
        take(f"with a server, after {lengths[0]} rounds", few, served, drop)
        take(f"with a server, after {lengths[1]} rounds", many, served, drop)
        take("without a server", few, alone, drop)
        take("nothing to do", few, served, lambda project: None)
        take("a round whose stages are all up to date", few, served, undo_end)
        take_imports()
    rows = [
        {"what": what, "seconds": spread([wall for wall, _ in pairs]), "cpu": spread([cpu for _, cpu in pairs])}
        for what, pairs in timed.items()
    ]
    rows.append(
        {"what": "served: from a drop to its round's start", "seconds": spread(latencies(machine, few, repeats))}
    )
    return rows, rows[1]["cpu"]["median"] / rows[0]["cpu"]["median"]


def lineage_of(machine: ServedMachine, length: int) -> Project:
    """A project with so many finished rounds."""
    from adapt_inf.stages.runner import STAGES, stage_outcome
    from adapt_inf.tracking import rounds

    project = make_noop_project(machine.home / f"of-{length}")
    drop(project)
    run_round(project, machine.environment())
    fill_rounds(project, length - 1)
    for record in lineage.rounds(project)[1:]:
        rounds.begin_round(project, record.round)
        for stage in STAGES:
            rounds.log_stage(project, record.round, stage, stage_outcome(project, record.round, stage, cached=False))
    rounds.fail_stale(project)
    return project


def drop(project: Project) -> None:
    wait_drop(project, f"drop-{time.time_ns()}")


def undo_end(project: Project) -> None:
    """As a kill leaves the last round that comes after its stages and before its record."""
    last = lineage.rounds(project)[-1]
    lineage.move_head(project, last.parent)
    lineage.write_round(project, replace(last, status="running", gate=None))


def run_round(project: Project, environment: dict[str, str]) -> tuple[float, float]:
    return run(["adapt-inf", "round", "-C", str(project.root)], environment)


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run it: seconds, and seconds of the processor."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def latencies(machine: ServedMachine, project: Project, repeats: int) -> list[float]:
    from adapt_inf.events import announce

    os.environ["PREFECT_API_URL"] = machine.api
    found = []
    with serving(machine, project):
        for number in range(repeats):
            known = len(lineage.rounds(project))
            until(lambda: idle(machine), "no run is left")
            wait_drop(project, f"served-{number}")
            began = time.time()
            announce(project, f"served-{number}")
            until(lambda known=known: finished(project) == known + 1, "its round")
            start = datetime.fromisoformat(machine.runs("round")[-1]["start_time"])
            found.append(start.timestamp() - began)
    return found


def idle(machine: ServedMachine) -> bool:
    return all(run["state_type"] not in ("RUNNING", "PENDING") for run in machine.runs("drain"))


def finished(project: Project) -> int:
    return sum(record.status == "finished" for record in lineage.rounds(project))


if __name__ == "__main__":
    main()
