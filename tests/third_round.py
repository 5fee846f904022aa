"""Two rounds pushed, thinned out by gc, a third beside them, here and in a second clone: made once for many tests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from machine import Machine, copy_project
from make_drop import make_drop

from adapt_inf import lineage
from adapt_inf.config import set_values
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project

FACTS = "facts.json"
WHY = ("both forgot colours", "fine by me")


def make_third_round(machine: Machine, two_rounds: Project, home: Path) -> None:
    """Fill `home`: `project` and `clone`, both with a round r003 on the base; `store`, their remote; `third`, the drop.

    facts.json has what `plan` and `gc` said before that round, what `du` said before and after gc, and under "told"
    what the commands printed in the project.
    """
    project = copy_project(two_rounds, home / "project")
    root, clone = project.root, home / "clone"
    drop = make_drop(home / "third", "third", train=64, eval=16, seed=3, form="parquet")
    machine.run("dvc", "remote", "add", "--default", "store", str(home / "store"), cwd=root)
    machine.here("push", cwd=root)
    machine.here("push", "base", cwd=root)
    machine.run("git", "clone", "--quiet", str(root), str(clone))
    leave_something(project)
    facts: dict[str, Any] = {"before": disk_use(root)}
    facts["gc"] = json.loads(machine.here("gc", "--yes", "--json", cwd=root).stdout)
    facts["after"] = disk_use(root)
    facts["verify"] = json.loads(machine.here("verify", "--json", cwd=root).stdout)
    facts["told"] = {"rolled back": machine.here("rollback", "base", "--why", WHY[0], cwd=root).stdout}
    facts["plan"] = json.loads(machine.here("plan", "--json", str(drop), cwd=root).stdout)
    facts["free_before_round"] = disk_use(root)
    machine.here("pull", cwd=clone)
    machine.here("pull", "base", cwd=clone)
    machine.here("rollback", "base", "--why", WHY[0], cwd=clone)
    for each in (clone, root):
        machine.here("drop", str(drop), cwd=each)
        facts["told"] |= _fail_and_promote(machine, Project(each))  # the second time the project's
    facts["lineage"] = [machine.lineage(Project(each)) for each in (root, clone)]
    write_json(home / FACTS, facts)


def _fail_and_promote(machine: Machine, project: Project) -> dict[str, str]:
    """Run the round with a gate that it cannot pass, then take the head to it; what the commands printed."""
    text = project.params_file.read_text(encoding="utf-8")
    project.params_file.write_text(set_values(text, {"gate.min_average_accuracy": 1.0}), encoding="utf-8")

    def run(*words: str, check: bool = True) -> str:
        done = machine.here(*words, cwd=project.root, check=check)
        return done.stdout + done.stderr if not check else done.stdout

    done = machine.run("adapt-inf", "round", cwd=project.root)
    told = {"round": done.stdout, "lineage": run("lineage"), "head": lineage.head(project)}
    told["refused"] = run("rollback", "r003", check=False)
    return told | {"promoted": run("promote", "r003", "--why", WHY[1]), "again": run("promote", "r003")}


def leave_something(project: Project) -> None:
    """What killed runs leave: unfinished work, an output's predecessor, an object that nothing refers to."""
    for path in (
        project.work("r001") / "sketch-0123" / "part.npy",
        project.round("r002") / ".pool.old" / "pool.json",
        project.root / ".dvc" / "cache" / "files" / "md5" / "00" / "stray",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)


def disk_use(root: Path) -> int:
    """Bytes on disk of what rounds left, each file once."""
    command = ["du", "--summarize", "--total", "--block-size=1", "rounds", ".dvc/cache"]
    lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    return int(lines[-1].split()[0])


def facts_of(home: Path) -> dict[str, Any]:
    return read_json(home / FACTS)
