"""A picture of what came: how much of each cluster the new dataset fills."""

from __future__ import annotations

import numpy as np

from adapt_inf.review.charts import Bar, bar_chart
from adapt_inf.review.choosing import MOST_BARS, in_parts, name_of
from adapt_inf.review.picture import Picture
from adapt_inf.review.svg import BLUE, ORANGE
from adapt_inf.review.tables import NO_CLUSTER, Review

NOVEL = 0.8  # share of a cluster that is new, from which on the cluster is


def cluster_fill(review: Review) -> Picture | None:
    """Each cluster's samples, those of the pool and those of the new drop."""
    new, clusters = review.per_cluster("new"), review.clusters
    if not new or not clusters:
        return None
    share = {cluster["cluster"]: new.get(cluster["cluster"], 0) / cluster["size"] for cluster in clusters}
    touched = [cluster for cluster in clusters if share[cluster["cluster"]]]
    bars = []
    for cluster in sorted(touched, key=lambda cluster: -share[cluster["cluster"]])[:MOST_BARS]:
        fresh = new[cluster["cluster"]]
        bars.append(Bar(name_of(review, cluster), [(fresh, ORANGE), (cluster["size"] - fresh, BLUE)]))
    legend = [(f"new: {review.params.drop}", ORANGE), ("from the pool", BLUE)]
    novel = [cluster["cluster"] for cluster in clusters if share[cluster["cluster"]] >= NOVEL]
    moved = drift(review)
    far = "" if moved is None else f" Drift {moved:.2f}: 0 is the mixture that the pool had, 1 nothing in common."
    named = f" ({', '.join(map(str, novel[:12]))})" if novel else ""
    return Picture(
        "Where the new dataset went",
        "A bar per cluster that holds new samples, those with the largest new share on top. A cluster that is nearly "
        "all new is a skill that the pool had nothing like; new samples among old ones repeat what was there.",
        f"{len(novel)} of {len(clusters)} clusters are at least {NOVEL:.0%} new{named}, {len(clusters) - len(touched)} "
        f"hold none of it.{far}",
        tuple(bar_chart(part, legend, most=float(clusters[0]["size"])) for part in in_parts(bars)),
    )


def drift(review: Review) -> float | None:
    """Total variation between the shares of the clusters among new and among old samples: 0 alike, 1 disjoint."""
    samples = review.samples
    if "cluster" in samples:
        samples = samples[samples["cluster"] != NO_CLUSTER]
    if "cluster" not in samples or samples["new"].all() or not samples["new"].any():
        return None
    counts = [np.bincount(samples["cluster"][samples["new"] == which], minlength=1) for which in (True, False)]
    width = max(map(len, counts))
    new, old = (np.pad(count, (0, width - len(count))) / count.sum() for count in counts)
    return float(np.abs(new - old).sum() / 2)
