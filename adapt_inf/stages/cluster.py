"""Stage cluster: candidates into pseudo-skills by their sketches, and the curve from which k was chosen.

Centroids train on a seeded subsample of the candidates that the model can read; then every sketch is read once, block
by block, and assigned. Neither the subsample nor any result depends on `memory_mb`: a subsample that does not fit lies
in a file. There is nothing to resume: a killed run starts again.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.executors.parts import Table
from adapt_inf.files import read_array, write_array, write_json, write_parquet
from adapt_inf.progress import progress
from adapt_inf.selection.arrays import IntArray
from adapt_inf.selection.blocks import MB, cores, half, on_every_core, rows_within, spans
from adapt_inf.selection.clusters import (
    SILHOUETTE_SAMPLES,
    assign,
    choose_k,
    device,
    fit_centroids,
    k_grid,
    renumber,
    subsample,
)
from adapt_inf.sketching.store import SketchStore
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.tables import readable

ASSIGNED = 8192  # sketches in a block, which one thread or actor assigns


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/cluster/.

    assignments.parquet: sample_id, cluster (int32, 0 the largest) and similarity (float32, to its centroid), in
    candidate order; candidates that the model cannot read are assigned too, with similarity 0. centroids.npy:
    (clusters, dim) float32 unit rows. curve.json: k as given or chosen, `chosen_by` (given, silhouette, or size where
    the pool is too small for more than one k), `clusters` that hold samples, the curve.

    Raises:
        ConfigError: `cluster.k` below 1.
        StageInputError: the sketch stage left no sample, no such features, or signals or faults of other samples than
            sketches.
    """
    params, seed = ctx.params.cluster, ctx.params.seed
    if params.k != "auto" and params.k < 1:
        raise ConfigError(
            ctx.project.params_of(ctx.round), "cluster.k", f"there must be one cluster at least, not {params.k}"
        )
    store = SketchStore(ctx.input("sketch"), params.features)
    signals = ctx.input("sketch") / "signals.parquet"
    sample_ids = pd.read_parquet(signals, columns=["sample_id"])["sample_id"]
    if len(sample_ids) != len(store) or len(store) == 0:
        raise StageInputError(signals, f"has {len(sample_ids)} samples for {len(store)} sketches")
    rows = np.flatnonzero(readable(ctx, sample_ids))
    unreadable = len(store) - len(rows)
    if len(rows) == 0:
        rows = np.arange(len(store))  # a cluster of zeros: there is nothing to select, but a round to finish

    n = len(rows)
    curve: list[tuple[int, float]] = []
    if params.k == "auto":
        grid = k_grid(n)
        with progress("choose k", len(grid), unit="values of k") as bar:
            sample = _gather(ctx, store, rows[subsample(n, SILHOUETTE_SAMPLES, seed)])
            k, curve = choose_k(sample, grid, seed, params.points_per_centroid, step=lambda: bar.update(1))
        chosen_by = "silhouette" if len(grid) > 1 else "size"
    else:
        k, chosen_by = min(params.k, n), "given"
    sample = _gather(ctx, store, rows[subsample(n, k * params.points_per_centroid, seed)])
    trained_on = len(sample)
    centroids = fit_centroids(sample, k, seed, params.points_per_centroid)
    del sample

    label, similarity = _assign_all(ctx, store, centroids)
    cluster, old = renumber(label, k)

    with ctx.output("cluster", [asdict(params), seed]) as out:
        assignments = {"sample_id": sample_ids, "cluster": cluster.astype(np.int32), "similarity": similarity}
        write_parquet(out / "assignments.parquet", pd.DataFrame(assignments))
        write_array(out / "centroids.npy", centroids[old])
        points = [{"k": value, "silhouette": height} for value, height in curve]
        write_json(out / "curve.json", {"k": k, "chosen_by": chosen_by, "clusters": len(old), "curve": points})
    return {
        "samples": len(store),
        "unreadable": unreadable,
        "k": k,
        "clusters": len(old),
        "trained_on": trained_on,
        "features": params.features,
        "device": device(),
    }


def _assign_all(
    ctx: StageContext, store: SketchStore, centroids: NDArray[np.float32]
) -> tuple[IntArray, NDArray[np.float32]]:
    """(n,) the nearest centroid of every sketch, and its cosine to it."""
    label = np.empty(len(store), dtype=np.int64)
    similarity = np.empty(len(store), dtype=np.float32)
    with progress("cluster", len(store)) as bar:

        def take(number: int, found: Table) -> None:
            start = number * ASSIGNED
            stop = start + len(found["label"])
            label[start:stop], similarity[start:stop] = found["label"], found["similarity"]
            bar.update(stop - start)

        blocks = range(-(-len(store) // ASSIGNED))
        if ctx.params.executor.kind == "ray":
            from adapt_inf.executors.ray import on_ray

            with tempfile.TemporaryDirectory(dir=ctx.project.work(ctx.round)) as folder:
                file = Path(folder) / "centroids.npy"
                write_array(file, centroids)
                for number, found in on_ray(ctx.params.executor, partial(_on_a_node, ctx, file), blocks):
                    take(number, found)
        else:
            worker = AssignWorker(ctx, store, centroids)
            on_every_core(lambda number: take(number, worker(number)), blocks)
    return label, similarity


class AssignWorker:
    """Assigns blocks of ASSIGNED sketches to centroids."""

    def __init__(self, ctx: StageContext, store: SketchStore, centroids: NDArray[np.float32]) -> None:
        self._store, self._centroids = store, centroids
        row_bytes = 4 * (2 * store.dim + 2 * len(centroids))  # of a block: float32, its grid, its cosines
        self._rows = rows_within(ctx.params.memory_mb * MB // cores(), row_bytes, ASSIGNED)

    def __call__(self, number: int) -> Table:
        start = number * ASSIGNED
        found = [
            assign(self._store.block(start + part.start, start + part.stop), self._centroids)
            for part in spans(min(ASSIGNED, len(self._store) - start), self._rows)
        ]
        label, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
        return {"label": label, "similarity": similarity}


def _on_a_node(ctx: StageContext, centroids: Path) -> AssignWorker:
    return AssignWorker(ctx, SketchStore(ctx.input("sketch"), ctx.params.cluster.features), read_array(centroids))


def _gather(ctx: StageContext, store: SketchStore, rows: IntArray) -> NDArray[np.float16]:
    """`rows` of the store as float16, in memory where they take half of `memory_mb` at most, else in a file."""
    memory = ctx.params.memory_mb * MB // 2
    shape = (len(rows), store.dim)
    if 2 * shape[0] * shape[1] <= memory:
        out = np.empty(shape, dtype=np.float16)
    else:
        folder = ctx.project.work(ctx.round)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # A disk that fills up while a mapped file is written ends the process without a word.
            os.posix_fallocate(file.fileno(), 0, 2 * shape[0] * shape[1])
            out = np.memmap(file, np.float16, "w+", shape=shape)
    half(store, rows, out, rows_within(memory // 2, 4 * store.dim, ASSIGNED))
    return out
