"""What became of samples: `explain` tells one's life, `selected` writes out what a round trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from adapt_inf.commands import Commands, in_project


def add(commands: Commands) -> None:
    explain = in_project(
        commands, "explain", "a sample's life: rounds, clusters, ranks, why it was selected", _explain, json=True
    )
    explain.add_argument("sample", metavar="SAMPLE", help="drop/id, or an end of it that no other has")
    explain.add_argument("--round", metavar="ROUND", help="on the line of rounds to this one (default: the head)")

    selected = in_project(commands, "selected", "write out what a round trained on, with scores", _selected)
    selected.add_argument("round", nargs="?", metavar="ROUND", help="r004 (default: the head)")
    out = "FILE.json: LLaVA's form, pictures in FILE-images/; FILE.parquet: pictures inside"
    selected.add_argument("--out", type=Path, required=True, metavar="FILE", help=out)


def _explain(options: argparse.Namespace) -> None:
    from adapt_inf.explaining.life import explain
    from adapt_inf.explaining.words import life_lines
    from adapt_inf.project import Project

    life = explain(Project.find(options.project), options.sample, options.round)
    print(json.dumps(life, indent=2, ensure_ascii=False) if options.json else "\n".join(life_lines(life)))


def _selected(options: argparse.Namespace) -> None:
    from adapt_inf.lineage import head
    from adapt_inf.project import Project
    from adapt_inf.selected import write_selected

    project = Project.find(options.project)
    round_id = options.round or head(project)
    count = write_selected(project, round_id, options.out)
    print(f"The {count:,} samples that {round_id} trained on are in {options.out}.")
