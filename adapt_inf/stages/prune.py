"""Stage prune: the pool that the round leaves behind, within its cap, without what is most redundant in each cluster.

Clusters are pruned one after the other, each read once from the sketches; memory is the largest cluster that must give
something. With no cap nothing is read but the manifests.
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
from adapt_inf.selection.budgets import cluster_budgets
from adapt_inf.selection.dedup import prune_redundant
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages.context import StageContext


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/pool/, of at most `prune.pool_cap` live samples; see `data.pool.build_pool` for its files.

    Raises:
        StageInputError: clusters or sketches of other samples than the round's candidates.
    """
    frame = candidates(ctx)
    cap = ctx.params.prune.pool_cap
    pruned = no_pruned() if cap is None or cap >= len(frame) else _prune(ctx, frame, cap)
    with ctx.output("pool", [asdict(ctx.params.prune)]) as out:
        summary = build_pool(out, ctx.parent_input("pool"), ctx.input("ingest"), ctx.round, pruned)
    return {"candidates": len(frame), "pruned": len(pruned), "live": summary["live"]}


def _prune(ctx: StageContext, frame: pd.DataFrame, cap: int) -> pd.DataFrame:
    """The candidates that become tombstones, in candidate order: sample_id, cluster, similarity, duplicate_of."""
    path = ctx.input("cluster") / "assignments.parquet"
    assignments = pd.read_parquet(path)
    sample_ids = frame["sample_id"].to_numpy(dtype=object)
    if not np.array_equal(assignments["sample_id"].to_numpy(dtype=object), sample_ids):
        raise StageInputError(path, "its samples are not the round's candidates")
    store = SketchStore(ctx.input("sketch"), ctx.params.prune.features)
    if len(store) != len(frame):
        raise StageInputError(ctx.input("sketch") / "sketch.json", f"has {len(store)} rows for {len(frame)} candidates")
    selected = pd.read_parquet(ctx.input("select") / "selected.parquet", columns=["sample_id"])["sample_id"]

    cluster = assignments["cluster"].to_numpy(dtype=np.int64)
    unselected = ~frame["sample_id"].isin(selected).to_numpy(dtype=bool)
    # The fixed order: selected this round first, then by id; cluster by cluster.
    order = np.lexsort((pd.factorize(sample_ids, sort=True)[0], unselected, cluster))
    sizes = np.bincount(cluster)
    keep = cluster_budgets(sizes, cap)
    starts = np.cumsum(sizes) - sizes

    similarity = np.full(len(frame), np.nan, dtype=np.float32)
    duplicate_of = np.full(len(frame), None, dtype=object)
    gone = np.zeros(len(frame), dtype=bool)
    with progress("prune", len(frame)) as bar:
        for number, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            members = order[start : start + size]
            if keep[number] < size:
                found = prune_redundant(store.take(members), int(keep[number]))
                rows = members[found.positions]
                gone[rows] = True
                similarity[rows] = found.similarity
                has_kept = found.duplicate_of >= 0
                duplicate_of[rows[has_kept]] = sample_ids[members[found.duplicate_of[has_kept]]]
            bar.update(size)
    return pd.DataFrame(
        {
            "sample_id": sample_ids[gone],
            "cluster": cluster[gone].astype(np.int32),
            "similarity": similarity[gone],
            "duplicate_of": duplicate_of[gone],
        }
    )
