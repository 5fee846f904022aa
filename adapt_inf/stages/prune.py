"""Stage prune: the pool that the round leaves behind, within its cap, without what is most redundant in each cluster.

A core prunes one cluster at a time, read from the sketches as often as its share of `memory_mb` makes necessary. With
no cap nothing is read but the manifests. Candidates that the model cannot read have no sketch to be like others by:
they stay where the cap leaves room beside all that can be read, and otherwise are the first to go.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.data.manifest import candidates
from adapt_inf.data.pool import build_pool, no_pruned
from adapt_inf.errors import StageInputError
from adapt_inf.progress import progress
from adapt_inf.selection.blocks import MB, SomeRows, cores, on_every_core
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.selection.dedup import prune_redundant
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.tables import readable, table_of


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/pool/, of at most `prune.pool_cap` live samples; see `data.pool.build_pool` for its files.

    Raises:
        StageInputError: clusters or sketches of other samples than the round's candidates, or no such features.
    """
    frame = candidates(ctx, ["sample_id"])
    cap = ctx.params.prune.pool_cap
    pruned = no_pruned() if cap is None or cap >= len(frame) else _prune(ctx, frame, cap)
    with ctx.output("pool", [asdict(ctx.params.prune)]) as out:
        summary = build_pool(out, ctx.parent_input("pool"), ctx.input("ingest"), ctx.round, pruned)
    return {"candidates": len(frame), "pruned": len(pruned), "live": summary["live"]}


def _prune(ctx: StageContext, frame: pd.DataFrame, cap: int) -> pd.DataFrame:
    """The candidates that become tombstones, in candidate order: sample_id, cluster, similarity, duplicate_of."""
    sample_ids = frame["sample_id"]
    assignments = table_of(sample_ids, ctx.input("cluster") / "assignments.parquet", ["cluster"])
    store = SketchStore(ctx.input("sketch"), ctx.params.prune.features)
    if len(store) != len(frame):
        raise StageInputError(ctx.input("sketch") / "sketch.json", f"has {len(store)} rows for {len(frame)} candidates")
    selected = pd.read_parquet(ctx.input("select") / "selected.parquet", columns=["sample_id"])["sample_id"]

    cluster = assignments["cluster"].to_numpy(dtype=np.int64)
    legible = readable(ctx, sample_ids)
    unselected = ~sample_ids.isin(selected).to_numpy(dtype=bool)
    by_id = np.empty(len(frame), dtype=np.int64)
    by_id[sample_ids.argsort().to_numpy()] = np.arange(len(frame))
    # The fixed order: selected this round first, then by id; cluster by cluster, and at the end what cannot be read.
    order = np.lexsort((by_id, unselected, cluster, ~legible))
    sizes = np.bincount(cluster[legible])
    keep = cluster_budgets(sizes, cap)
    starts = np.cumsum(sizes) - sizes

    similarity = np.full(len(frame), np.nan, dtype=np.float32)
    duplicate_of = np.full(len(frame), -1, dtype=np.int64)
    gone = np.zeros(len(frame), dtype=bool)
    gone[order[max(cap, int(sizes.sum())) :]] = True
    giving = np.flatnonzero(keep < sizes)
    memory = ctx.params.memory_mb * MB // max(1, min(cores(), len(giving)))
    with progress("prune", int(sizes[giving].sum())) as bar:

        def prune_cluster(number: int) -> None:
            members = order[starts[number] : starts[number] + sizes[number]]
            found = prune_redundant(SomeRows(store, members), int(keep[number]), memory)
            goes = members[found.positions]
            gone[goes] = True
            similarity[goes] = found.similarity
            duplicate_of[goes] = np.where(found.duplicate_of < 0, -1, members[found.duplicate_of])
            bar.update(len(members))

        on_every_core(prune_cluster, giving[np.argsort(-sizes[giving], kind="stable")].tolist())
    return pd.DataFrame(
        {
            "sample_id": sample_ids[gone].array,
            "cluster": cluster[gone].astype(np.int32),
            "similarity": similarity[gone],
            "duplicate_of": sample_ids.array.take(duplicate_of[gone], allow_fill=True),
        }
    )
