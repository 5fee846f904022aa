"""Stage train: tune the parent's adapter on the selected samples.

Checkpoints lie in the work folder while the stage runs, so a killed run goes on from the last one; they are not part of
the output, which holds the adapter, the processor, model.json and train_log.jsonl (a row per step).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from adapt_inf.data.manifest import candidates
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import StageInputError
from adapt_inf.files import folder_digest, read_json, remove_folder, write_json, write_text
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.sharding import shares_weights, spread
from adapt_inf.models.training import train
from adapt_inf.models.vlm import load_vlm, save_adapter
from adapt_inf.parallel import Team
from adapt_inf.stages.context import StageContext

LOG = "train_log.jsonl"
FIGURES = "figures.json"  # how fast it went: while the stage runs
CHECKPOINTS = ".checkpoints"


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/model; the report, which is no part of it, says how fast training was."""
    frame = selected_rows(ctx)
    knobs, seed = ctx.params.train, ctx.params.seed
    rows = hashlib.sha256("\n".join(frame["sample_id"] + "\t" + frame["content_hash"]).encode()).hexdigest()
    parent = ctx.parent_input("model")
    with ctx.output("model", [asdict(knobs), seed, folder_digest(parent), rows]) as out:
        if (launcher := ctx.params.executor.launcher) is None:
            tune(ctx, out)
        else:
            from adapt_inf.executors.launched import on_launched

            for _ in on_launched(launcher, tune, ctx, out, None):
                pass
        log = [json.loads(row) for row in (out / LOG).read_text(encoding="utf-8").splitlines()]
        figures = read_json(out / FIGURES)
        (out / FIGURES).unlink()
        remove_folder(out / CHECKPOINTS)
    last = log[-max(1, len(log) // 10) :]
    return {
        "samples": len(frame),
        "steps": len(log),
        "first_loss": log[0]["loss"],
        "last_loss": sum(row["loss"] for row in last) / len(last),  # of the last tenth
        **figures,
    }


def tune(ctx: StageContext, out: Path, team: Team | None = None) -> None:
    """Train, and write the adapter, the processor, LOG and FIGURES into `out`; all of a team call it, one writes."""
    knobs, seed = ctx.params.train, ctx.params.seed
    checkpoints = out / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    sharded = shares_weights()
    parent = load_vlm(ctx.parent_input("model"), device="auto", trainable=True, staged=sharded)
    vlm = spread(with_adapter(parent, knobs, seed))
    trained = train(vlm, SampleStore(selected_rows(ctx)), knobs, seed, checkpoints, team, sharded=sharded)
    if team is not None and team.rank:
        return
    save_adapter(vlm, out, home=ctx.project.output(ctx.round, "model"))
    write_text(out / LOG, "".join(json.dumps(row) + "\n" for row in trained.log))
    figures = {
        "trained_parameters": sum(p.numel() for p in vlm.model.parameters() if p.requires_grad),
        "trained_samples": trained.samples,  # in this start of the stage, as its seconds are
        "samples_per_second": round(trained.samples / trained.seconds, 1),
        "tokens_per_second": round(trained.tokens / trained.seconds, 1),
    }
    write_json(out / FIGURES, figures)


def selected_rows(ctx: StageContext) -> pd.DataFrame:
    """The candidates that were selected, in candidate order.

    Raises:
        StageInputError: nothing was selected, or something that is no candidate.
    """
    path: Path = ctx.input("select") / "selected.parquet"
    wanted = pd.read_parquet(path, columns=["sample_id"])["sample_id"]
    frame = candidates(ctx)
    chosen = frame[frame["sample_id"].isin(set(wanted))].reset_index(drop=True)
    if len(chosen) == 0:
        raise StageInputError(path, "selects nothing, so there is nothing to train on")
    if len(chosen) != len(wanted):
        raise StageInputError(path, f"names {len(wanted)} samples, {len(chosen)} of which are candidates")
    return chosen
