"""What `random`, `sequential` and `full` need instead of sketches: who can be read, and the draw.

The sketch pass sets down whom the model cannot read, and selection never sees those. All of them but one kind are known
without a gradient: whom the template, the processor or the longest length refuses. The one kind, a sample whose loss or
gradient is no finite number, is met in training here, which then stops and says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.data.manifest import candidates
from adapt_inf.data.shards import SampleStore
from adapt_inf.errors import SampleError
from adapt_inf.files import write_json, write_parquet
from adapt_inf.models.vlm import load_reader
from adapt_inf.progress import progress
from adapt_inf.project import BASE
from adapt_inf.proxy import asks_proxy
from adapt_inf.selection.budgets import resolve_budget
from adapt_inf.selection.strategies import draw_over_all
from adapt_inf.sketching.store import spans
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.select import shares
from adapt_inf.stages.sketch import FAULTS_FILE, encode_for_both
from adapt_inf.stages.tables import readable

_PART = 256  # samples read at a time


def read(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/sketch/faults.parquet, as the sketch pass does, and nothing else there.

    Only the drop is read where the parent round left a list: what it holds of the pool stays true, for all models of a
    lineage read alike.
    """
    frame = candidates(ctx)
    before = ctx.project.output(ctx.parent, "sketch") / FAULTS_FILE
    known = pd.read_parquet(before) if before.is_file() else None
    unread = frame if known is None else frame[frame["round"] == ctx.round].reset_index(drop=True)
    own = load_reader(ctx.project.output(BASE, "model"))
    proxy = load_reader(ctx.looking_model()) if asks_proxy(ctx.params) else None
    store = SampleStore(unread)
    found: list[tuple[str, str]] = []
    with progress("read", len(unread)) as bar:
        for start, stop in spans(len(unread), _PART):
            read = encode_for_both(proxy or own, own if proxy else None, store.samples(start, stop))
            found += [(item.sample_id, item.problem) for item in read if isinstance(item, SampleError)]
            bar.update(stop - start)
    faults = pd.concat([known, pd.DataFrame(found, columns=["sample_id", "fault"], dtype="str")], ignore_index=True)
    with ctx.output("sketch", []) as out:
        write_parquet(out / FAULTS_FILE, faults)
    return {"samples": len(frame), "read": len(unread), "unreadable": len(faults)}


def draw(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/select/: selected.parquet with the column sample_id, selectors.json without clusters."""
    params = ctx.params.select
    frame = candidates(ctx, ["sample_id", "drop", "skill", "round"])
    rows = np.flatnonzero(readable(ctx, frame["sample_id"]))
    budget = resolve_budget(params.budget, len(rows))
    is_new = (frame["round"] == ctx.round).to_numpy(dtype=bool)
    chosen = rows[draw_over_all(is_new[rows], params.strategy, budget, ctx.params.seed)]
    taken = np.zeros(len(frame), dtype=bool)
    taken[chosen] = True
    counts = {
        "strategy": params.strategy,
        "candidates": len(frame),
        "unreadable": len(frame) - len(rows),
        "budget": len(chosen),
        "selected": len(chosen),
    }
    with ctx.output("select", []) as out:
        write_parquet(out / "selected.parquet", frame[["sample_id"]].take(chosen).reset_index(drop=True))
        by_skill = shares(frame["drop"] + "/" + frame["skill"], taken)
        write_json(out / "selectors.json", {**counts, "skills": by_skill, "drops": shares(frame["drop"], taken)})
    return counts
