"""What `adapt-inf gc` frees after ten rounds, against `du`, and whether all that it keeps can still be used.

    python benchmarks/room.py [--rounds N] [--dir DIR] [--json FILE]

Ten rounds of the miniature model of the tests, in a temporary folder that goes afterwards (or in DIR, where a run that
was cut off goes on); then `gc`; then `verify` of all; then, for base and every round that was kept, a rollback to it,
and a child round on it with a dataset of its own. What the project takes on disk is measured by `du` over rounds/ and
DVC's cache before and after gc. A child must have the parent that was rolled back to and end finished.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import Machine
from make_drop import make_drop
from miniature import make_miniature
from projects import make_project
from third_round import disk_use

from adapt_inf import lineage
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.dir:
        options.dir.mkdir(exist_ok=True)
        figures = measure(options.dir.resolve(), options.rounds)
    else:
        with tempfile.TemporaryDirectory(prefix="room-") as home:
            figures = measure(Path(home), options.rounds)
    for line in table(figures):
        print(line)
    if options.json:
        write_json(options.json, figures)


def measure(home: Path, rounds: int) -> dict[str, Any]:
    machine, root, noted = Machine(home), home / "new", home / "figures.json"
    if not root.exists():
        make_project(machine, make_miniature(home / "model"), [f"drop{number:02d}" for number in range(rounds)])
    project = Project(root)
    if not noted.exists():
        machine.run("adapt-inf", "round", cwd=root)
        write_json(noted, collect(machine, root) | {"rounds": rounds, "children": []})
        print(*table(read_json(noted))[:-1], sep="\n", file=sys.stderr, flush=True)
    figures = read_json(noted)
    for parent in list(figures["verified"])[len(figures["children"]) :]:
        name = f"child-of-{parent}"
        if lineage.head(project) != parent and not project.drop(name).exists():
            machine.run("adapt-inf", "rollback", parent, cwd=root)
        if not project.drop(name).exists():
            machine.run("adapt-inf", "drop", str(make_drop(home / name, name, train=96, eval=16, seed=1)), cwd=root)
        machine.run("adapt-inf", "round", cwd=root)
        child = machine.lineage(project)[-1]
        figures["children"].append({"parent": parent, "child": child["round"], "ok": fine(child, parent, name)})
        write_json(noted, figures)
        print(figures["children"][-1], file=sys.stderr, flush=True)
    return figures | {"verified_with_children": verified(machine, root)}


def collect(machine: Machine, root: Path) -> dict[str, Any]:
    """What gc says and does, and what is right afterwards."""
    before = disk_use(root)
    said = json.loads(machine.run("adapt-inf", "gc", "--yes", "--json", cwd=root).stdout)
    after = disk_use(root)
    whats = dict.fromkeys(part["what"] for part in said["parts"])
    return {
        "bytes_before": before,
        "bytes_after": after,
        "freed_by_du": before - after,
        "freed_said": said["freed"],
        "announced": said["bytes"],
        "by_part": {what: sum(each["bytes"] for each in said["parts"] if each["what"] == what) for what in whats},
        "verified": verified(machine, root),
    }


def verified(machine: Machine, root: Path) -> dict[str, bool]:
    done = machine.run("adapt-inf", "verify", "--json", cwd=root, check=False)
    return {each["round"]: each["ok"] for each in json.loads(done.stdout)["rounds"]}


def fine(child: dict[str, Any], parent: str, drop: str) -> bool:
    return child["status"] == "finished" and child["parent"] == parent and child["drop"] == drop


def table(figures: dict[str, Any]) -> list[str]:
    good = sum(each["ok"] for each in figures["children"])
    return [
        f"{figures['rounds']} rounds: {figures['bytes_before'] / 1e6:,.2f} MB",
        *(f"  {part:<10} {size / 1e6:8.2f} MB" for part, size in figures["by_part"].items()),
        f"gc said {figures['freed_said']:,} bytes, du says {figures['freed_by_du']:,}",
        f"verify: {_ok(figures['verified'])} ok",
        f"rolled back to and trained on: {good} of {len(figures['children'])} ok",
        f"verify with the children: {_ok(figures.get('verified_with_children', {}))} ok",
    ]


def _ok(found: dict[str, bool]) -> str:
    return f"{sum(found.values())} of {len(found)}"


if __name__ == "__main__":
    main()
