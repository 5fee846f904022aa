"""Sketching by two processes that launchers begin, against one process with one thread: rate, and the same bytes.

    python benchmarks/launched_rate.py [--samples 2000 8000] [--json FILE]

The shipped base model on an otherwise idle machine of two cores. `adapt-inf stage sketch` runs over two pools, on one
core and by `executor.launcher`: `torchrun --standalone --nproc-per-node 2`, and `accelerate launch` with a file as in
docs/scale.md. To begin a process and to load the model take the same time whatever the pool, so the rate is that of the
samples by which the pools differ, in the seconds by which their runs do; `whole` is a run from its start to its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import finish, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import Machine
from make_drop import make_drop

from adapt_inf import lineage
from adapt_inf.config import set_values
from adapt_inf.creation import definition
from adapt_inf.files import folder_digest, remove_folder
from adapt_inf.project import Project

AIM = 1.7
ACCELERATE = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 1
num_processes: 2
mixed_precision: "no"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs=2, default=(2000, 8000))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="launched-rate-") as folder:
        file = Path(folder) / "two.yaml"
        file.write_text(ACCELERATE, encoding="utf-8")
        programs = Path(sys.executable).parent
        ways = {
            "one process, one thread": None,
            "two processes": f"{programs / 'torchrun'} --standalone --nproc-per-node 2",
            "two, by accelerate": f"{programs / 'accelerate'} launch --config_file {file} --main_process_port 0",
        }
        rows: list[dict[str, Any]] = [{"what": name, "whole": []} for name in ways]
        machine = Machine(Path(folder))
        for samples in options.samples:
            project = begin(machine, Path(folder) / str(samples), samples)
            digests = []
            for row, way in zip(rows, ways.values(), strict=True):
                row["whole"].append(sketch(machine, project, way))
                digests.append(folder_digest(project.output("r001", "sketch")))
            if len(set(digests)) > 1:
                raise SystemExit(f"over {samples} samples the sketches differ: {digests}")
    more = options.samples[1] - options.samples[0]
    for row in rows:
        row["samples/s"] = more / (row["whole"][1] - row["whole"][0])
        row["whole, s"] = row["whole"][1]
    ratio = rows[1]["samples/s"] / rows[0]["samples/s"]
    print(table(rows, ["what", "samples/s", "whole, s"]))
    print(f"\ntwo / one: {ratio:.2f} (aim: {AIM}); sketches the same by hash")
    finish("launched_rate", {"rows": rows, "ratio": ratio}, options.json)


def begin(machine: Machine, home: Path, samples: int) -> Project:
    """A project whose first round has taken a drop of that many samples in."""
    home.mkdir()
    params = home / "params.yaml"
    params.write_text(set_values(definition("params.yaml"), {"git.commit": False}), encoding="utf-8")
    machine.run("adapt-inf", "init", str(home / "line"), "--params", str(params))
    project = Project(home / "line")
    drop = make_drop(home / "more", "more", train=samples, eval=0)
    machine.run("adapt-inf", "drop", str(drop), cwd=project.root)
    lineage.begin_round(project, "more")
    machine.run("adapt-inf", "stage", "ingest", "r001", cwd=project.root)
    return project


def sketch(machine: Machine, project: Project, launcher: str | None) -> float:
    """Seconds of the stage; on one core where there is no launcher."""
    params = project.params_of("r001")
    params.write_text(set_values(params.read_text(encoding="utf-8"), {"executor.launcher": launcher}), encoding="utf-8")
    remove_folder(project.output("r001", "sketch"))
    cores = sorted(os.sched_getaffinity(0))
    limited = ["taskset", "--cpu-list", str(cores[0])] if launcher is None else []
    begun = time.perf_counter()
    subprocess.run(
        [*limited, "adapt-inf", "stage", "sketch", "r001"],
        cwd=project.root,
        env=machine.environment() | {"GLOO_SOCKET_IFNAME": "lo"},
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
