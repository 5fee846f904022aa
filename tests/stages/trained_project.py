"""A lineage that grows by real drops up to the stage under test: for the tests of train and evaluate.

Drops are ingested and pools built by the data package; the selection, which other tests are about, is every second
candidate.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from make_drop import make_drop

from adapt_inf.config import load_params
from adapt_inf.data.manifest import candidates
from adapt_inf.data.pool import build_pool, create_base_pool, no_pruned
from adapt_inf.files import write_parquet
from adapt_inf.project import BASE, Project
from adapt_inf.stages import ingest
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.evaluate import evaluate_base

KNOBS: dict[str, Any] = {
    "seed": 5,
    "train": {"steps": 6, "batch_size": 4, "learning_rate": 0.02, "rank": 4, "alpha": 8, "checkpoint_steps": 2},
    "evaluate": {"batch_size": 8, "max_new_tokens": 3},
}


def make_lineage(root: Path, model: Path, base_eval: int = 6, **params: Any) -> Project:
    """A project with a base model, a base pool of a small drop (empty with `base_eval=0`) and its evaluation."""
    project = Project(root)
    shutil.copytree(model, project.output(BASE, "model"))
    values = KNOBS | params
    project.params_file.write_text(yaml.safe_dump(values), encoding="utf-8")
    drop = make_drop(root / "start", "start", train=12, eval=base_eval) if base_eval else None
    settings = load_params(project.params_file)
    create_base_pool(project.output(BASE, "pool"), drop, settings)
    evaluate_base(project, settings)
    return project


def begin_round(project: Project, round_id: str, parent: str, drop: str, **params: Any) -> StageContext:
    """A round with everything in place before train, and its pool."""
    make_drop(project.drop(drop), drop, train=16, eval=6, seed=len(drop))
    values = yaml.safe_load(project.params_file.read_text(encoding="utf-8")) | params
    values |= {"round": round_id, "parent": parent, "drop": drop}
    project.round(round_id).mkdir(parents=True)
    project.params_of(round_id).write_text(yaml.safe_dump(values), encoding="utf-8")
    ctx = context(project, round_id)
    ingest.run(ctx)
    write_selection(ctx, candidates(ctx).iloc[::2]["sample_id"].tolist())
    pool = project.output(round_id, "pool")
    build_pool(pool, ctx.parent_input("pool"), ctx.input("ingest"), round_id, no_pruned())
    return ctx


def context(project: Project, round_id: str) -> StageContext:
    return StageContext(project, round_id, load_params(project.params_of(round_id)))


def write_selection(ctx: StageContext, sample_ids: list[str]) -> None:
    path = ctx.project.output(ctx.round, "select") / "selected.parquet"
    write_parquet(path, pd.DataFrame({"sample_id": pd.Series(sample_ids, dtype="str"), "cluster": 0}))
