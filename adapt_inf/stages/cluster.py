"""Stage cluster: candidates into pseudo-skills by their sketches, and the curve from which k was chosen.

Centroids train on a seeded subsample; then every sketch is read once, block by block, and assigned. Memory is the
subsample and one block. There is nothing to resume: a killed run starts again.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.files import write_array, write_json, write_parquet
from adapt_inf.progress import progress
from adapt_inf.selection.clusters import (
    SILHOUETTE_SAMPLES,
    assign,
    choose_k,
    fit_centroids,
    k_grid,
    renumber,
    subsample,
)
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages.context import StageContext

_BLOCK = 8192  # sketches assigned at a time


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/cluster/.

    assignments.parquet: sample_id, cluster (int32, 0 the largest) and similarity (float32, to its centroid), in
    candidate order. centroids.npy: (clusters, dim) float32 unit rows. curve.json: k as given or chosen, `chosen_by`
    (given, silhouette, or size where the pool is too small for more than one k), `clusters` that hold samples, the
    curve.

    Raises:
        ConfigError: `cluster.k` below 1.
        StageInputError: the sketch stage left no sample, or signals of other samples than sketches.
    """
    params, seed = ctx.params.cluster, ctx.params.seed
    if params.k != "auto" and params.k < 1:
        raise ConfigError(
            ctx.project.params_of(ctx.round), "cluster.k", f"there must be one cluster at least, not {params.k}"
        )
    store = SketchStore(ctx.input("sketch"))
    signals = ctx.input("sketch") / "signals.parquet"
    sample_ids = pd.read_parquet(signals, columns=["sample_id"])["sample_id"]
    if len(sample_ids) != len(store) or len(store) == 0:
        raise StageInputError(signals, f"has {len(sample_ids)} samples for {len(store)} sketches")

    n = len(store)
    curve: list[tuple[int, float]] = []
    if params.k == "auto":
        grid = k_grid(n)
        with progress("choose k", len(grid), unit="values of k") as bar:
            sample = store.take(subsample(n, SILHOUETTE_SAMPLES, seed))
            k, curve = choose_k(sample, grid, seed, params.points_per_centroid, step=lambda: bar.update(1))
        chosen_by = "silhouette" if len(grid) > 1 else "size"
    else:
        k, chosen_by = min(params.k, n), "given"
    trained_on = store.take(subsample(n, k * params.points_per_centroid, seed))
    centroids = fit_centroids(trained_on, k, seed, params.points_per_centroid)

    label = np.empty(n, dtype=np.int64)
    similarity = np.empty(n, dtype=np.float32)
    with progress("cluster", n) as bar:
        for start in range(0, n, _BLOCK):
            block = store.block(start, start + _BLOCK)
            label[start : start + _BLOCK], similarity[start : start + _BLOCK] = assign(block, centroids)
            bar.update(len(block))
    cluster, old = renumber(label, k)

    with ctx.output("cluster", [asdict(params), seed]) as out:
        assignments = {"sample_id": sample_ids, "cluster": cluster.astype(np.int32), "similarity": similarity}
        write_parquet(out / "assignments.parquet", pd.DataFrame(assignments))
        write_array(out / "centroids.npy", centroids[old])
        points = [{"k": value, "silhouette": height} for value, height in curve]
        write_json(out / "curve.json", {"k": k, "chosen_by": chosen_by, "clusters": len(old), "curve": points})
    return {"samples": n, "k": k, "clusters": len(old), "trained_on": len(trained_on)}
