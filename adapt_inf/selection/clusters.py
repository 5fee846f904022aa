"""Pseudo-skills: spherical k-means on sketches by FAISS, and the choice of k by simplified silhouette.

k-means trains on a subsample (at most so many points a centroid), so its cost does not grow with the pool; assigning is
one matrix product. A million sketches of 512 numbers take about 5 s on one core at k = 50. The subsample is kept in
float16, as the sketches are on disk, and FAISS decodes it a few thousand rows at a time: half the memory, the same
centroids to the last bit. Assignments use exact cosines (see `arrays`), so equal sketches always share a cluster,
whatever the block in which they are assigned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from adapt_inf.selection.arrays import Float32Array, Grid, IntArray, column_scaled_cosines, to_grid

ITERATIONS = 20
SILHOUETTE_SAMPLES = 16_384  # of which half train centroids and half are measured
_RATIO = math.sqrt(2)
_DECODED = 4096  # rows of the subsample in float32 at a time; centroids do not depend on it
_GPUS = Path("/proc/driver/nvidia/gpus")


def k_grid(n: int) -> list[int]:
    """The values of k that `auto` tries for n samples: five, from sqrt(n) / 4 to sqrt(n), each sqrt(2) times the last.

    Both ends grow with the pool: a cluster then holds sqrt(n) to 4 sqrt(n) samples on average, so that skills become
    finer as there are more samples to tell them apart. From 2 upwards, and 1 alone for fewer than four samples.
    """
    if n < 4:
        return [1]
    low = max(2.0, math.sqrt(n) / 4)
    return sorted({min(round(low * _RATIO**step), n // 2) for step in range(5)})


def subsample(n: int, size: int, seed: int) -> IntArray:
    """min(size, n) of n positions, ascending, without replacement."""
    return np.sort(np.random.default_rng([seed, n]).permutation(n)[:size])


def device() -> str:
    """Where FAISS trains, and what it lacks where there is a GPU that it cannot use."""
    if found := faiss.get_num_gpus():
        return f"{found} GPU" + "s" * (found > 1)
    if _GPUS.is_dir() and not hasattr(faiss, "StandardGpuResources"):
        return "CPU: this FAISS has no GPU code, replace faiss-cpu by `pip install adapt-inf[gpu]`"
    return "CPU"


def fit_centroids(sketches: NDArray[np.floating], k: int, seed: int, points_per_centroid: int = 256) -> Float32Array:
    """Train min(k, n) unit centroids, on the GPUs that FAISS finds or else on the CPU.

    Args:
        sketches: (n, d) unit rows, n >= 1, rounded to float16; at most k * points_per_centroid of them are used (FAISS
            draws them, seeded).

    Returns:
        (min(k, n), d) float32. Some may be near copies of others where there are fewer distinct sketches than
        centroids; `assign` leaves all but one of those empty.
    """
    n, dim = sketches.shape
    k = min(k, n)
    knobs = faiss.ClusteringParameters()
    knobs.niter = ITERATIONS
    knobs.seed = seed % (2**31 - 1)  # FAISS keeps it in a C int
    knobs.spherical = True
    knobs.min_points_per_centroid = 1
    knobs.max_points_per_centroid = points_per_centroid
    knobs.decode_block_size = _DECODED
    kmeans = faiss.Clustering(dim, k, knobs)
    index: faiss.Index = faiss.IndexFlatIP(dim)
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    rows = np.ascontiguousarray(sketches, dtype=np.float16)
    codec = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)
    kmeans.train_encoded(rows.view(np.uint8).reshape(n, 2 * dim), codec, index)
    return np.asarray(faiss.vector_to_array(kmeans.centroids).reshape(k, dim), dtype=np.float32)


def assign(sketches: NDArray[np.floating], centroids: Float32Array, block: int = 8192) -> tuple[IntArray, Float32Array]:
    """The most similar centroid of every sketch, the first of equals.

    Returns:
        (n,) numbers of centroids and (n,) cosines to them, exact to about 1e-4.
    """
    best, _, label = _two_nearest(sketches, to_grid(centroids), block)
    return label, best


def _two_nearest(
    sketches: NDArray[np.floating], centroids: Grid, block: int = 8192
) -> tuple[Float32Array, Float32Array, IntArray]:
    """Cosines to the most and second most similar centroid (-1 where there is none), and the number of the first."""
    n = len(sketches)
    best, second = np.empty(n, dtype=np.float32), np.full(n, -1, dtype=np.float32)
    label = np.empty(n, dtype=np.int64)
    for start in range(0, n, block):
        rows = to_grid(sketches[start : start + block])
        values = column_scaled_cosines(rows, centroids)
        every = np.arange(len(rows))
        label[start : start + block] = first = values.argmax(axis=1)
        best[start : start + block] = values[every, first] * rows.inverse_norms
        if len(centroids) > 1:
            values[every, first] = -np.inf
            second[start : start + block] = values.max(axis=1) * rows.inverse_norms
    return best, second, label


def simplified_silhouette(sketches: NDArray[np.floating], centroids: Float32Array) -> float:
    """Mean of (b - a) / max(a, b), with a, b the cosine distances to the own and the next centroid; 0 for one centroid.

    Hruschka et al. 2004: the silhouette with distances to centroids in place of mean distances, O(n k) instead of
    O(n^2).
    """
    if len(centroids) < 2:
        return 0.0
    best, second, _ = _two_nearest(sketches, to_grid(centroids))
    # A cosine is exact to 1e-4: distances below that are none, and a point that lies on both centroids belongs to
    # neither.
    own = np.maximum(1.0 - best.astype(np.float64), 0.0)
    other = np.maximum(1.0 - second.astype(np.float64), 0.0)
    return float(np.divide(other - own, other, out=np.zeros(len(own)), where=other > 1e-4).mean())


def choose_k(
    sketches: NDArray[np.floating],
    grid: list[int],
    seed: int,
    points_per_centroid: int = 256,
    step: Callable[[], object] = lambda: None,
) -> tuple[int, list[tuple[int, float]]]:
    """The k of `grid` with the highest simplified silhouette; of equals the smallest.

    Centroids train on one half of `sketches` and are measured on the other: a centroid of few points is close to those
    points because it is their mean, and the silhouette would prefer the largest k for no reason.

    Args:
        sketches: (n, d) a seeded subsample; fewer than four are all used for both.
        grid: values of k, ascending.
        step: called after each k (progress).

    Returns:
        k, and the whole curve as (k, silhouette).
    """
    half = np.random.default_rng([seed, 1]).permutation(len(sketches))
    middle = len(sketches) // 2
    train, measure = (half, half) if len(sketches) < 4 else (np.sort(half[:middle]), np.sort(half[middle:]))
    curve = []
    for k in grid:
        centroids = fit_centroids(sketches[train], k, seed, points_per_centroid)
        curve.append((k, round(simplified_silhouette(sketches[measure], centroids), 6)))
        step()
    return max(curve, key=lambda point: (point[1], -point[0]))[0], curve


def renumber(label: IntArray, k: int) -> tuple[IntArray, IntArray]:
    """Number clusters by size, largest first (of equals the lower old number), and leave out empty ones.

    Returns:
        (n,) new numbers, and (k_new,) the old number of each new one.
    """
    sizes = np.bincount(label, minlength=k)
    old = np.argsort(-sizes, kind="stable")
    old = old[sizes[old] > 0]
    new = np.full(k, -1, dtype=np.int64)
    new[old] = np.arange(len(old))
    return new[label], old
