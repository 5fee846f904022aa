"""Whether rounds stay level: equal drops at a capped pool, the time and the disk of each round.

    python benchmarks/level.py [--rounds 20] [--pool 800] [--drop 200] [--json FILE]

The shipped base model, a pool that is full from the start, and as many drops of the same size, one after the other,
none with a suite of its own (each suite makes evaluation longer, cap or not). A round gives way as many samples as it
takes in. Time is that of `adapt-inf round`, in seconds of all cores, which other work stretches less; beside each of
the last rounds the second one runs again, on a copy of the project as it stood before it, so that a machine that has
become slower meanwhile does not count. Disk is by `du` over rounds/ and DVC's cache after `adapt-inf gc`, which takes a
finished round's workings.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from report import finish, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import Machine, copy_project
from make_drop import make_drop
from third_round import disk_use

from adapt_inf import lineage
from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.project import Project
from adapt_inf.stages.runner import STAGES, stage_outcome

EARLY = 2  # the first round sketches full weights, every later one the adapter's factors
LAST = 3  # rounds that are held against that one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pool", type=int, default=800, help="samples that stay (default: 800)")
    parser.add_argument("--drop", type=int, default=200, help="samples that each round brings (default: 200)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="level-") as home:
        rows = measure(Path(home), options.rounds, options.pool, options.drop)
    print(
        table(
            rows,
            ["round", "candidates", "pool", "cpu s", "again", "stages s", "sketch s", "cluster s", "disk KB", "new KB"],
        )
    )
    ratios = [row["cpu s"] / row["again"] for row in rows if "again" in row]
    print(f"\nlast {LAST} rounds / round {EARLY} again, beside each: {median(ratios):.3f} of the CPU time (median)")
    finish("level", {"rows": rows, "ratios": ratios}, options.json)


def measure(home: Path, rounds: int, pool: int, drop: int) -> list[dict[str, Any]]:
    machine, root = Machine(home), home / "line"
    values = {"prune.pool_cap": pool, "train.steps": 40, "sketch.dim": 512, "git.commit": True}
    (home / "params.yaml").write_text(set_values(definition("params.yaml"), values), encoding="utf-8")
    known = make_drop(home / "known", "known", train=pool, eval=64)
    machine.run("adapt-inf", "init", str(root), "--pool", str(known), "--params", str(home / "params.yaml"))
    project, found, before = Project(root), [], 0
    for number in range(1, rounds + 1):
        name = f"drop{number:02d}"
        machine.run("adapt-inf", "drop", str(make_drop(home / name, name, train=drop, eval=0)), cwd=root)
        if number == EARLY:
            early = copy_project(project, home / "early")
        seconds, cpu = run_round(machine, root)
        again = None
        if number > max(EARLY, rounds - LAST):
            again = run_round(machine, copy_project(early, home / "again").root)[1]
            shutil.rmtree(home / "again")
        machine.run("adapt-inf", "gc", "--yes", cwd=root)
        record, disk = lineage.rounds(project)[-1], disk_use(root)
        took = {stage: stage_outcome(project, record.round, stage, cached=False)["seconds"] for stage in STAGES}
        found.append(
            {
                "round": number,
                "candidates": record.candidates,
                "pool": record.pool_size,
                "seconds": seconds,
                "cpu s": round(cpu, 2),
                **({"again": round(again, 2)} if again is not None else {}),
                "stages s": round(sum(took.values()), 2),
                **{f"{stage} s": took[stage] for stage in STAGES},
                "disk KB": disk // 1024,
                "new KB": (disk - before) // 1024,
            }
        )
        before = disk
        print(found[-1], file=sys.stderr, flush=True)
    return found


def run_round(machine: Machine, root: Path) -> tuple[float, float]:
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    machine.run("adapt-inf", "round", cwd=root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
