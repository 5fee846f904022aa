"""Stage prune: the pool that the round leaves behind, within its cap, without what is most redundant in each cluster.

A core prunes one cluster at a time, read from the sketches as often as its share of `memory_mb` makes necessary. With
no cap nothing is read but the manifests. Candidates that the model cannot read have no sketch to be like others by:
they stay where the cap leaves room beside all that can be read, and otherwise are the first to go.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.data.manifest import candidates
from adapt_inf.data.pool import build_pool, no_pruned
from adapt_inf.errors import StageInputError
from adapt_inf.executors.parts import Table
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
    clusters = PruneWorker(ctx, frame["sample_id"], cap)
    similarity = np.full(len(frame), np.nan, dtype=np.float32)
    duplicate_of = np.full(len(frame), -1, dtype=np.int64)
    gone = np.zeros(len(frame), dtype=bool)
    gone[clusters.never_stay] = True
    with progress("prune", int(clusters.sizes[clusters.giving].sum())) as bar:

        def take(number: int, found: Table) -> None:
            goes = found["member"]
            gone[goes] = True
            similarity[goes] = found["similarity"]
            duplicate_of[goes] = found["duplicate_of"]
            bar.update(int(clusters.sizes[number]))

        if ctx.params.executor.kind == "ray" and clusters.giving:
            from adapt_inf.executors.ray import on_ray

            for number, found in on_ray(ctx.params.executor, partial(_on_a_node, ctx, cap), clusters.giving):
                take(number, found)
        else:
            on_every_core(lambda number: take(number, clusters(number)), clusters.giving)
    sample_ids = frame["sample_id"]
    return pd.DataFrame(
        {
            "sample_id": sample_ids[gone].array,
            "cluster": clusters.cluster[gone].astype(np.int32),
            "similarity": similarity[gone],
            "duplicate_of": sample_ids.array.take(duplicate_of[gone], allow_fill=True),
        }
    )


class PruneWorker:
    """Chooses what goes from each cluster, one at a time.

    Args:
        sample_ids: (n,) of the candidates, in their order.
        cap: how many may stay.

    Attributes:
        cluster: (n,) of each candidate.
        sizes: (k,) candidates of each cluster that the model can read.
        giving: the clusters that are to shrink, the largest first.
        never_stay: the candidates that go without being looked at: for those that the model cannot read there is no
            room.
    """

    def __init__(self, ctx: StageContext, sample_ids: pd.Series, cap: int) -> None:
        sketch = ctx.input("sketch")
        assignments = table_of(sample_ids, ctx.input("cluster") / "assignments.parquet", ["cluster"])
        self._store = SketchStore(sketch, ctx.params.prune.features)
        if len(self._store) != len(sample_ids):
            problem = f"has {len(self._store)} rows for {len(sample_ids)} candidates"
            raise StageInputError(sketch / "sketch.json", problem)
        selected = pd.read_parquet(ctx.input("select") / "selected.parquet", columns=["sample_id"])["sample_id"]
        self.cluster = assignments["cluster"].to_numpy(dtype=np.int64)
        legible = readable(ctx, sample_ids)
        unselected = ~sample_ids.isin(selected).to_numpy(dtype=bool)
        by_id = np.empty(len(sample_ids), dtype=np.int64)
        by_id[sample_ids.argsort().to_numpy()] = np.arange(len(sample_ids))
        # The fixed order: selected this round first, then by id; cluster by cluster, at the end what cannot be read.
        self._order = np.lexsort((by_id, unselected, self.cluster, ~legible))
        self.sizes = np.bincount(self.cluster[legible])
        self._starts = np.cumsum(self.sizes) - self.sizes
        self._keep = cluster_budgets(self.sizes, cap)
        giving = np.flatnonzero(self._keep < self.sizes)
        self.giving: list[int] = giving[np.argsort(-self.sizes[giving], kind="stable")].tolist()
        self.never_stay = self._order[max(cap, int(self.sizes.sum())) :]
        self._memory = ctx.params.memory_mb * MB // max(1, min(cores(), len(giving)))

    def __call__(self, number: int) -> Table:
        """What goes from one cluster, by candidate: member, similarity, and duplicate_of, -1 where nobody stays."""
        members = self._order[self._starts[number] : self._starts[number] + self.sizes[number]]
        found = prune_redundant(SomeRows(self._store, members), int(self._keep[number]), self._memory)
        like = np.where(found.duplicate_of < 0, -1, members[found.duplicate_of])
        return {"member": members[found.positions], "similarity": found.similarity, "duplicate_of": like}


def _on_a_node(ctx: StageContext, cap: int) -> PruneWorker:
    return PruneWorker(ctx, candidates(ctx, ["sample_id"])["sample_id"], cap)
