"""A map of the sketches: samples that pull the model the same way lie near each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from adapt_inf.errors import StageInputError
from adapt_inf.files import read_array
from adapt_inf.review.charts import Marks, point_map
from adapt_inf.review.picture import Picture
from adapt_inf.review.svg import COLOURS, GREEN, ORANGE, PINK
from adapt_inf.review.tables import NO_CLUSTER, Review
from adapt_inf.sketching.store import SketchStore

_POINTS = 1500  # of the map
_NAMED = 7  # groups with a colour of their own
_LABELLED = 30  # clusters whose number stands in the map
_GREY = "#9aa3ad"
_STEPS = 100  # of the layout of clusters; places hardly move after some fifty
_TEMPERATURE = 0.05  # of a dot's weights: cosines of a sample differ by some tenths between its own cluster and others


def sketch_map(review: Review) -> Picture | None:
    """A seeded subsample of the candidates in the two directions in which the clusters differ most, coloured thrice."""
    samples = review.samples
    if "cluster" not in samples or not len(samples):
        return None
    try:
        store = SketchStore(review.files.path("sketch", "").parent / "sketch", review.params.cluster.features)
        centroids = read_array(review.files.path("cluster", "centroids.npy"))
    except (FileNotFoundError, StageInputError):
        return None
    if len(store) != len(samples):
        return None
    rng = np.random.default_rng(review.params.seed)
    rows = np.sort(rng.permutation(len(samples))[:_POINTS])
    shown = samples.iloc[rows]
    placed = place(store.take(rows.astype(np.int64)), centroids, lay_out(centroids))
    points = [(x, y) for x, y in _in_unit_square(placed).tolist()]
    panels = [
        point_map("by cluster", _by_cluster(shown, points), named=False),
        point_map("by dataset", _by_drop(shown, points), named=True),
        point_map("by what became of it", _by_fate(shown, points), named=True),
    ]
    return Picture(
        "A map of the candidates",
        "Each dot is a candidate. Clusters whose samples pull the model in like directions lie near each other, as far "
        "as a plane allows; a dot lies between the clusters that it is like, mostly near its own. The same dots three "
        "times: by cluster (the numbers of the largest in their middle), by the dataset that brought them, by what "
        f"became of them.{_repeats(shown)}",
        _shows(shown, len(samples)),
        tuple(panels),
    )


def _shows(shown: pd.DataFrame, of: int) -> str:
    """What the map comes to in words: how much of the new and of the old was selected, and how many were drawn."""
    drawn = f"{len(shown):,} of {of:,} candidates are drawn, taken at random."
    new = shown["new"]
    if "selected" not in shown or new.all() or not new.any():
        return drawn
    shares = [shown.loc[which, "selected"].mean() for which in (new, ~new)]
    return f"{drawn} Of the new ones {shares[0]:.0%} were selected, of those from the pool {shares[1]:.0%}."


def _repeats(shown: pd.DataFrame) -> str:
    """That a colour is not a cluster's own, where there are more clusters than colours."""
    clusters = len(set(shown["cluster"].tolist()) - {NO_CLUSTER})
    if clusters <= len(COLOURS):
        return ""
    return f" {len(COLOURS)} colours serve {clusters} clusters: the same colour elsewhere is another cluster."


def lay_out(centroids: NDArray[np.float32]) -> NDArray[np.float64]:
    """Places for clusters in the plane, at distances as near to those of their centroids as a plane allows.

    Args:
        centroids: (k, d) unit rows.

    Returns:
        (k, 2) places; metric scaling by majorisation (SMACOF; De Leeuw 1977) from the classical solution.
    """
    cosines = np.asarray(centroids @ centroids.T, dtype=np.float64)
    apart = np.sqrt(np.maximum(2 - 2 * cosines, 0))
    k = len(apart)
    centre = np.eye(k) - 1 / k
    values, vectors = np.linalg.eigh(-centre @ apart**2 @ centre / 2)
    # An eigenvector is one up to its sign: fix it, so that another build of LAPACK gives the same map.
    vectors *= np.where(np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0) < 0, -1, 1)
    places = np.zeros((k, 2))
    places[:, : min(2, k)] = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    for _ in range(_STEPS):
        now = np.linalg.norm(places[:, None] - places[None], axis=2)
        ratio = np.divide(apart, now, out=np.zeros_like(now), where=now > 1e-9)
        places = (ratio.sum(axis=1)[:, None] * places - ratio @ places) / k
    return places


def place(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Samples between the clusters that they are like: (n, 2), means of places weighed by a softmax of cosines."""
    cosines = np.asarray(vectors @ centroids.T, dtype=np.float64)
    weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / _TEMPERATURE)
    return weights @ places / weights.sum(axis=1, keepdims=True)


def _in_unit_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1)


def _by_cluster(shown: pd.DataFrame, points: list[tuple[float, float]]) -> list[Marks]:
    groups = []
    for number in sorted(set(shown["cluster"].tolist()) - {NO_CLUSTER}):
        here = np.flatnonzero((shown["cluster"] == number).to_numpy()).tolist()
        label = str(number) if number < _LABELLED else ""  # the largest cluster is number 0
        groups.append(Marks(str(number), [points[at] for at in here], COLOURS[number % len(COLOURS)], label))
    return groups


def _by_drop(shown: pd.DataFrame, points: list[tuple[float, float]]) -> list[Marks]:
    new = shown["new"].to_numpy(dtype=bool)
    old = shown["drop"][~new].value_counts().index.tolist()
    groups, colours = [], [colour for colour in COLOURS if colour != ORANGE]
    for place, name in enumerate([*old[: _NAMED - 1], *(["others"] if len(old) >= _NAMED else [])]):
        within = shown["drop"].isin(old[_NAMED - 1 :]) if name == "others" else shown["drop"] == name
        here = np.flatnonzero(within.to_numpy() & ~new).tolist()
        groups.append(Marks(name, [points[at] for at in here], colours[place % len(colours)]))
    came = ", ".join(dict.fromkeys(shown["drop"][new].tolist()))
    groups.append(Marks(f"{came} (new)", [points[at] for at in np.flatnonzero(new).tolist()], ORANGE))
    return groups


def _by_fate(shown: pd.DataFrame, points: list[tuple[float, float]]) -> list[Marks]:
    nothing = np.zeros(len(shown), dtype=bool)
    chosen = shown["selected"].to_numpy(dtype=bool) if "selected" in shown else nothing
    gone = shown["pruned"].to_numpy(dtype=bool) if "pruned" in shown else nothing
    groups = (
        ("kept, not selected", ~chosen & ~gone, _GREY),
        ("pruned", gone, PINK),
        ("selected", chosen & ~gone, GREEN),
    )
    return [Marks(name, [points[at] for at in np.flatnonzero(which)], colour) for name, which, colour in groups]
