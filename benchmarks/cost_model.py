"""What `adapt-inf plan --pool N` foretells, held against what rounds and stages of three sizes take.

    python benchmarks/cost_model.py [--skip-pool] [--skip-rounds] [--samples N ...] [--json FILE]

Rounds: the shipped base model and four rounds to take rates from (400 to 1,000 candidates); what they say of 1,500,
3,000 and 6,000 candidates is written down, then those rounds run. `seconds` are a round's stages together. Pool:
cluster (k auto), select a quarter and prune to three quarters of made-up sketches, 100,000, 300,000 and 1,000,000 by
512 unless --samples says otherwise, against `adapt_inf.costs.pool_seconds`; what k comes to is told by a first run
over 30,000. An estimate is aimed at 25% either way.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from pool_scale import ROUND, make_data, run_stage, set_params
from report import finish, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from machine import Machine
from make_drop import make_drop

from adapt_inf import lineage
from adapt_inf.config import load_params, set_values
from adapt_inf.costs import estimate_round, pool_seconds
from adapt_inf.creation import definition
from adapt_inf.project import Project
from adapt_inf.stages.runner import STAGES, stage_outcome

KNOWN, LEARNT, FORETOLD = 200, (400, 600, 800, 1000), (1500, 3000, 6000)
FIRST, SAMPLES, DIM, COPIES = 30_000, (100_000, 300_000, 1_000_000), 512, 0.1
AIM = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-pool", action="store_true")
    parser.add_argument("--skip-rounds", action="store_true")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    if not options.skip_rounds:
        with tempfile.TemporaryDirectory(prefix="cost-model-") as home:
            found["rounds"] = rounds(Path(home))
        _show("rounds", found["rounds"])
    if not options.skip_pool:
        _, by_root = pool(FIRST)
        found["pool"] = [row for count in options.samples for row in pool(count, by_root)[0]]
        _show("pool", found["pool"])
    finish("cost_model", found, options.json)


def _show(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"{title}\n{table(rows, ['candidates', 'what', 'foretold', 'seconds', 'ratio'])}")
    sums = [row["ratio"] for row in rows if row["what"] == "together"]
    print(f"together: {min(sums):.2f} to {max(sums):.2f} of what it took (aim: {1 - AIM:.2f} to {1 + AIM:.2f})\n")


def _row(candidates: int, what: str, foretold: float, seconds: float) -> dict[str, Any]:
    ratio = round(foretold / seconds, 2) if seconds else None
    return {"candidates": candidates, "what": what, "foretold": foretold, "seconds": seconds, "ratio": ratio}


def rounds(home: Path) -> list[dict[str, Any]]:
    machine, root = Machine(home), home / "line"
    values = {"train.epochs": 2, "train.learning_rate": 1e-3, "git.commit": False}
    (home / "params.yaml").write_text(set_values(definition("params.yaml"), values), encoding="utf-8")
    known = make_drop(home / "known", "known", train=KNOWN, eval=128)
    machine.run("adapt-inf", "init", str(root), "--pool", str(known), "--params", str(home / "params.yaml"))
    project, live, foretold, rows = Project(root), KNOWN, {}, []
    for place, size in enumerate((*LEARNT, *FORETOLD)):
        if place == len(LEARNT):
            before = live
            for each in FORETOLD:
                stages = estimate_round(project, pool=each, new=each - before).stages
                foretold[each] = {stage.stage: stage.seconds or 0.0 for stage in stages}
                before = each
        drop = make_drop(home / f"drop{size}", f"drop{size}", train=size - live, eval=0, seed=size)
        machine.run("adapt-inf", "drop", str(drop), cwd=root)
        machine.run("adapt-inf", "round", cwd=root)
        record = lineage.rounds(project)[-1]
        live = size
        if size in foretold:
            took = {stage: stage_outcome(project, record.round, stage, cached=False)["seconds"] for stage in STAGES}
            rows += [_row(size, stage, foretold[size][stage], took[stage]) for stage in STAGES]
            rows.append(_row(size, "together", sum(foretold[size].values()), sum(took.values())))
    return rows


def pool(samples: int, by_root: float | None = None) -> tuple[list[dict[str, Any]], float]:
    """Rows of the table, and what `auto` comes to, over the root of the samples."""
    with tempfile.TemporaryDirectory(prefix="cost-model-") as folder:
        root = Path(folder)
        (root / "rounds" / ROUND).mkdir(parents=True)
        make_data(root, samples, DIM, COPIES)
        set_params(root, "auto", samples * 3 // 4)
        (root / "params.yaml").write_text(
            set_values(definition("params.yaml"), {"sketch.dim": DIM, "prune.pool_cap": samples * 3 // 4})
        )
        foretold = pool_seconds(load_params(root / "params.yaml"), samples, by_root)
        ran = {stage: run_stage(root, stage) for stage in foretold}
    took = {stage: found["seconds"] for stage, found in ran.items()}
    rows = [_row(samples, stage, foretold[stage], took[stage]) for stage in foretold]
    rows.append(_row(samples, "together", sum(foretold.values()), sum(took.values())))
    return rows, ran["cluster"]["report"]["k"] / math.sqrt(samples)


if __name__ == "__main__":
    main()
