"""Kill -9 a random process of a running lineage at a random moment, again and again, and compare what comes out.

    python tests/fault_harness.py [--kills 200] [--seed 0] [--json FILE]

A project with two drops is run once undisturbed. Then copies of it are run and killed until enough kills are done: the
flow, DVC (which works inside it), the process that speaks to MLflow, the forkserver, a stage, the command that waits
for it, one of its workers, the Prefect server that was started, the runner of `adapt-inf serve`, or all at once, as
when the machine dies; while Python still imports, in the midst of work, between two stages, in a commit. After each
kill the same command is given again. Every copy must come out as the undisturbed run, by hash, with each sample once,
one line of history a round, no run left open in MLflow, and no process left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from machine import Machine, copy_project
from mlflow.tracking import MlflowClient
from yaml import YAMLError

from adapt_inf import history, lineage
from adapt_inf.config import set_values
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import file_digest
from adapt_inf.project import Project
from adapt_inf.stages.runner import OUTPUTS, STAGES

IDLE = 25  # starts without a new output, after which something is wrong
PATIENCE = 240.0  # seconds in which a lineage must move on, on a loaded machine too
ROUNDS = ("r001", "r002")


@dataclass
class Tally:
    """What was killed: by the role of the process and by the stage that was at work (`-` between two)."""

    roles: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    lineages: int = 0
    starts: int = 0
    differing: int = 0
    strays: int = 0

    @property
    def kills(self) -> int:
        return self.roles.total()

    def to_json(self) -> dict[str, Any]:
        return {
            "kills": self.kills,
            "lineages": self.lineages,
            "starts": self.starts,
            "differing": self.differing,
            "strays": self.strays,
            "roles": dict(sorted(self.roles.items())),
            "stages": dict(sorted(self.stages.items())),
        }


def outcome(project: Project) -> dict[str, Any]:
    """Everything of a lineage that must not depend on kills."""
    found: dict[str, Any] = {"head": lineage.head(project), "rounds": [r.round for r in lineage.rounds(project)]}
    for round_id in ROUNDS:
        for name in OUTPUTS.values():
            found[f"{round_id} {name}"] = lineage.output_hash(project, round_id, name)
        found[f"{round_id} adapter"] = file_digest(project.output(round_id, "model") / "adapter_model.safetensors")
        manifest = pd.read_parquet(project.output(round_id, "pool") / "manifest.parquet")
        assert manifest["sample_id"].is_unique, f"{round_id}: a sample is doubled"
        found[f"{round_id} samples"] = sorted(manifest["sample_id"])
        record = lineage.read_round(project, round_id).to_json()
        found[f"{round_id} record"] = {key: record[key] for key in record if key != "model_version"}
    return found


def bookkeeping(project: Project) -> list[str]:
    """What is wrong with the history, git and MLflow of a lineage that has ended; nothing if all is well."""
    faults = []
    moved = [move.round for move in history.moves(project)]
    if moved != list(ROUNDS):
        faults.append(f"history has the moves {moved}")
    dirty = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project.root, capture_output=True, text=True, check=True
    )
    if dirty.stdout:
        faults.append(f"git has changes left: {dirty.stdout}")
    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    named = Counter(
        (run.data.tags["adapt_inf.round"], run.data.tags.get("adapt_inf.stage"))
        for run in runs
        if "adapt_inf.round" in run.data.tags
    )
    if named != Counter((round_id, stage) for round_id in ROUNDS for stage in (None, *STAGES)):
        faults.append(f"MLflow has the runs {named}")
    faults += [f"run {run.info.run_name} is {run.info.status}" for run in runs if run.info.status != "FINISHED"]
    (model,) = client.search_registered_models()
    versions = sorted(version.tags["round"] for version in client.search_model_versions(f"name = '{model.name}'"))
    if versions != list(ROUNDS):
        faults.append(f"the model has versions of {versions}")
    return faults


def strays(project: Project, patience: float = 10.0) -> list[str]:
    """Processes that have to do with the project and are still there after a while."""
    until = time.monotonic() + patience
    while (found := list(_of_project(project))) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def _of_project(project: Project) -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            marked = process.environ().get("ADAPT_INF_RUN", "").endswith(str(project.root))
            if process.pid != os.getpid() and (marked or process.cwd() == str(project.root)):
                yield f"{process.pid} {' '.join(process.cmdline())}"


def tree(top: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [top, *top.children(recursive=True)]
    return []


def role(process: psutil.Process, top: psutil.Process) -> tuple[str, str] | None:
    """What a process is, and its stage: flow, tracking, command, forkserver, stage, worker, server or runner; or None.

    `command`: the `adapt-inf stage` that DVC started and that waits for the stage.
    """
    words = process.cmdline()
    text = " ".join(words)
    if "flows.server" in text:
        return "server", "-"
    if "adapt_inf.tracking.process" in text:
        return "tracking", "-"
    if "adapt_inf.stages.forkserver" in text:
        if (stage := _stage_of(process)) is None:
            return "forkserver", "-"
        parent = process.parent()
        return ("worker" if parent is not None and _stage_of(parent) else "stage"), stage
    if "adapt-inf stage" in text and not words[0].endswith("sh"):
        return "command", words[words.index("stage") + 1]
    if process.pid == top.pid:
        return ("runner" if "serve" in words else "flow"), "-"
    return ("flow", "-") if "prefect" in text and "python" in words[0] else None


def _stage_of(process: psutil.Process) -> str | None:
    kind, _, stage = process.name().partition(" ")
    return stage if kind == "stage" else None


def commands(rng: np.random.Generator, alone: Machine, served: Machine) -> tuple[Machine, list[str]]:
    """How the next lineage is run: by hand with a Prefect server of its own or the one that is there, or served."""
    return (
        (alone, ["adapt-inf", "round"]),
        (served, ["adapt-inf", "round"]),
        (served, ["adapt-inf", "serve"]),
    )[rng.choice(3, p=[0.3, 0.4, 0.3])]


def log_of(project: Project) -> str:
    """What the command has printed in all its starts."""
    return project.root.with_suffix(".log").read_text(errors="replace").replace("\r", "\n")


@contextmanager
def started(machine: Machine, project: Project, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with open(project.root.with_suffix(".log"), "ab") as log:
        process = subprocess.Popen(
            command, cwd=project.root, env=machine.environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()  # only `serve` has not ended by now
            process.wait(PATIENCE)


MOMENTS = {"start": 0.15, "stage": 0.35, "work": 0.2, "between": 0.3}
"""Where a kill falls, with its share: after the command began; after a stage's process began; in the midst of a stage's
work; after an output has appeared, when DVC, MLflow and git take note of it and the next stage begins."""


ALL = "machine"  # the role of all processes together

Target = tuple[str, str]  # a round and a stage of it


class Watch:
    """What has happened in a lineage since the command began.

    `grace`: how many times longer than usual it is left alone: a stage that is killed at every start would never end.
    """

    def __init__(self, top: psutil.Process, project: Project, *, served: bool, grace: float) -> None:
        self.top, self.project, self.served, self.grace = top, project, served, grace
        self.outputs = outputs(project)

    def ended(self) -> bool:
        return not self.top.is_running() or self.top.status() == psutil.STATUS_ZOMBIE

    def waits(self) -> bool:
        """Whether nothing more will happen: all is done, or a person has to look first."""
        return self.served and (held(self.project) or _finished(self.project))

    def reached(self, moment: str, target: Target | None) -> bool:
        if moment == "start":
            return True
        if moment == "stage":
            return any(" stage " in " ".join(words) for words in _command_lines(self.top))
        if moment == "work":
            targets = [target] if target else list(product(ROUNDS, STAGES))
            return any(any(self.project.work(r).glob(f"{OUTPUTS[stage]}-*")) for r, stage in targets)
        return outputs(self.project) > self.outputs


def held(project: Project) -> bool:
    return any(record.status == "failed" for record in lineage.rounds(project))


def outputs(project: Project) -> int:
    return sum(project.output(round_id, name).exists() for round_id in ROUNDS for name in OUTPUTS.values())


def _command_lines(top: psutil.Process) -> Iterator[list[str]]:
    for process in tree(top):
        with suppress(psutil.Error):
            yield process.cmdline()


def kill_one(watch: Watch, rng: np.random.Generator, tally: Tally, target: Target | None = None) -> bool:
    """Wait for a random moment (in the work of `target` where one is named), then kill a random process.

    Returns:
        whether one was killed; not if the command ended, or `target` was done, before.
    """
    moment = "work" if target else str(rng.choice(list(MOMENTS), p=list(MOMENTS.values())))
    until = time.monotonic() + PATIENCE
    while not watch.reached(moment, target):
        if watch.ended() or watch.waits() or (target and _recorded(watch.project, target)):
            return False
        assert time.monotonic() < until, f"{watch.project.root} does not move:\n{log_of(watch.project)[-8000:]}"
        time.sleep(0.005)
    time.sleep(watch.grace * rng.uniform(0, {"start": 8.0, "stage": 5.0, "work": 0.3, "between": 2.0}[moment]))
    candidates = []
    for process in tree(watch.top):
        with suppress(psutil.Error, IndexError, ValueError):
            if (found := role(process, watch.top)) is not None:
                candidates.append((process, found))
    if not candidates or watch.ended():
        return False
    # Where a target is named, as few kills as those of the test, each kind has its turn.
    kinds = [*sorted({found[0] for _, found in candidates}), ALL]
    kind = min(kinds, key=lambda kind: tally.roles[kind]) if target else kinds[rng.integers(len(kinds))]
    chosen = [process for process, found in candidates if kind in (found[0], ALL)]
    for process in chosen if kind == ALL else [chosen[rng.integers(len(chosen))]]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    tally.roles[kind] += 1
    tally.stages[next((found[1] for _, found in candidates if found[1] != "-"), "-")] += 1
    return True


def _recorded(project: Project, target: Target) -> bool:
    """Whether DVC holds a stage of a round to be done."""
    try:
        lineage.output_hash(project, target[0], OUTPUTS[target[1]])
    # Not there; or DVC is just writing the file, which it does in place.
    except (AdaptInfError, YAMLError, OSError, AttributeError, KeyError, TypeError):
        return False
    return True


def run_disturbed(
    machine: Machine,
    project: Project,
    command: list[str],
    rng: np.random.Generator,
    tally: Tally,
    kills: int | None = None,
) -> None:
    """Run the lineage of `project` to its end, killing all the while; each time the same command is given again.

    Args:
        kills: how many, in the work of each stage of each round once, and then no more; None: at random moments to the
            end.
    """
    targets = list(product(ROUNDS, STAGES)) if kills else []
    last = tally.kills + (kills or 0)
    before, idle = -1, 0
    while not _finished(project):
        tally.starts += 1
        before, idle = (now, 0) if (now := outputs(project)) > before else (before, idle + 1)
        assert idle < IDLE, f"{project.root} does not move on:\n{log_of(project)[-8000:]}"
        if held(project):
            command = ["adapt-inf", "round"]  # a stage was killed as often as it is retried: a person says go on
        with started(machine, project, command) as process:
            while process.poll() is None and not _finished(project):
                watch = Watch(psutil.Process(process.pid), project, served="serve" in command, grace=1 + idle / 4)
                if watch.waits():
                    break
                if kills is None:
                    kill_one(watch, rng, tally)
                elif targets and (kill_one(watch, rng, tally, targets[0]) or _recorded(project, targets[0])):
                    targets.pop(0)
                if kills is not None and tally.kills >= last:
                    targets = []
                rest = kills is not None and not targets
                _let_react(process, project, rest=rest)
    tally.lineages += 1


def _let_react(process: subprocess.Popen[bytes], project: Project, *, rest: bool) -> None:
    """Give the command a moment to end of what was killed; with `rest`, wait until it or the lineage has ended."""
    until = time.monotonic() + (PATIENCE if rest else 0.2)
    while process.poll() is None and not _finished(project) and time.monotonic() < until:
        time.sleep(0.05)
    if _finished(project):
        with suppress(subprocess.TimeoutExpired):
            process.wait(30 if rest else 10)  # what comes after the last write


def _finished(project: Project) -> bool:
    return [record.status for record in lineage.rounds(project)] == ["finished"] * len(ROUNDS)


def check(project: Project, expected: dict[str, Any], tally: Tally) -> list[str]:
    """What is wrong with a lineage that was disturbed."""
    found = outcome(project)
    faults = [f"{key} differs" for key in expected if found.get(key) != expected[key]]
    tally.differing += len(faults)
    left = strays(project)
    tally.strays += len(left)
    return [*faults, *(f"process {each} is left" for each in left), *bookkeeping(project)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from miniature import make_miniature
    from projects import make_project
    from serving import prefect_server

    rng, tally, faults = np.random.default_rng(options.seed), Tally(), []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        machine = Machine(Path(folder) / "home")
        machine.home.mkdir()
        new = make_project(machine, make_miniature(machine.home / "model"))
        text = new.params_file.read_text(encoding="utf-8")
        quick = {"retries.delay_seconds": 1, "schedule.poll_seconds": 10}
        new.params_file.write_text(set_values(text, quick), encoding="utf-8")
        calm = copy_project(new, Path(folder) / "undisturbed")
        machine.run("adapt-inf", "round", cwd=calm.root)
        expected = outcome(calm)
        faults += bookkeeping(calm)
        (Path(folder) / "served").mkdir()
        with prefect_server(Path(folder) / "served") as served:
            while tally.kills < options.kills and not faults:
                project = copy_project(new, Path(folder) / f"copy{tally.lineages}")
                where, command = commands(rng, machine, served)
                run_disturbed(where, project, command, rng, tally)
                faults += check(project, expected, tally)
                print(json.dumps(tally.to_json() | {"seconds": round(time.monotonic() - began)}), flush=True)
                if faults:
                    print(" ".join(command), log_of(project)[-8000:])
                shutil.rmtree(project.root)
    for fault in faults:
        print(fault, file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(tally.to_json(), indent=2) + "\n", encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent)]
    sys.exit(main())
