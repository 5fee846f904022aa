"""Which samples of each cluster a page shows: typical ones, extremes, what was selected, what was pruned and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.review.choosing import name_of
from adapt_inf.review.tables import Review, score_of
from adapt_inf.review.thumbnails import Shown, look_up

_CLUSTERS = 24  # shown
_SURE = 4  # of the largest, and of those with most that is new, before any other
_EACH = 3  # samples of a kind in a cluster


@dataclass(frozen=True)
class Card:
    """A sample and what is to be said of it; `beside` is the sample that it duplicates."""

    sample: Shown
    note: str = ""
    beside: Shown | None = None


@dataclass(frozen=True)
class Cluster:
    """A cluster of the gallery: its row of selectors.json, a title, and rows of cards by what they show."""

    about: dict[str, Any]
    title: str
    rows: dict[str, list[Card]]


def cluster_gallery(review: Review) -> list[Cluster]:
    """The clusters of `clusters_to_show` with a few samples of each kind; empty where the clusters are not known."""
    samples = review.samples
    if "cluster" not in samples or not review.clusters:
        return []
    shown = clusters_to_show(review)
    picks = {cluster["cluster"]: _picks(samples, cluster) for cluster in shown}
    rows = {row for kinds in picks.values() for chosen in kinds.values() for row, _ in chosen}
    names = set(samples["sample_id"].iloc[sorted(rows)])
    if "duplicate_of" in samples:
        names |= set(samples["duplicate_of"].iloc[sorted(rows)].dropna())
    found = look_up(samples[samples["sample_id"].isin(names)], review.params.ingest.max_pixels)
    gallery = []
    for cluster in shown:
        kinds = {
            kind: [_card(samples, found, row, note, paired=kind.startswith("pruned")) for row, note in chosen]
            for kind, chosen in picks[cluster["cluster"]].items()
            if chosen
        }
        gallery.append(Cluster(cluster, name_of(review, cluster), kinds))
    return gallery


def clusters_to_show(review: Review) -> list[dict[str, Any]]:
    """The clusters of the gallery, the largest first.

    Some of the largest and of the newest; the largest of each main skill; then the next largest and newest in turn. By
    size alone, rare skills would have no example.
    """
    new = review.per_cluster("new")
    share = {cluster["cluster"]: new.get(cluster["cluster"], 0) / cluster["size"] for cluster in review.clusters}
    largest = [cluster["cluster"] for cluster in review.clusters]
    newest = sorted((number for number in largest if share[number]), key=lambda number: -share[number])
    of_skills: dict[str, int] = {}
    for number in largest:
        of_skills.setdefault(review.contents.get(number, ("", 0.0))[0], number)
    in_turn = [number for pair in zip_longest(largest, newest) for number in pair if number is not None]
    order = dict.fromkeys([*largest[:_SURE], *newest[:_SURE], *of_skills.values(), *in_turn])
    chosen = set(list(order)[:_CLUSTERS])
    return [cluster for cluster in review.clusters if cluster["cluster"] in chosen]


def _picks(samples: pd.DataFrame, cluster: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """For each kind the rows of `samples` to show, with a note."""
    members = np.flatnonzero((samples["cluster"] == cluster["cluster"]).to_numpy())
    closeness = samples["similarity"].to_numpy()[members]
    near = members[np.argsort(-closeness, kind="stable")[:_EACH]]
    kinds = {"nearest to the middle": [(int(row), f"cosine {samples['similarity'].iat[row]:.2f}") for row in near]}
    name = cluster["selector"]
    if score_of(name) in samples:
        score = samples[score_of(name)].to_numpy(dtype=np.float64)
        known = members[np.isfinite(score[members])]
        known = known[np.argsort(score[known], kind="stable")]
        note = {row: f"{name} {score[row]:.2f}" for row in known.tolist()}
        kinds[f"highest {name}"] = [(row, note[row]) for row in known[::-1][:_EACH].tolist()]
        kinds[f"lowest {name}"] = [(row, note[row]) for row in known[:_EACH].tolist()]
    else:
        known, note = members, {}
    if "selected" in samples:
        chosen = known[samples["selected"].to_numpy(dtype=bool)[known]]
        spread = np.unique(np.linspace(0, len(chosen) - 1, min(_EACH, len(chosen))).round().astype(int))
        kinds["selected, from low to high"] = [(row, note.get(row, "")) for row in chosen[spread].tolist()]
    if "pruned" in samples:
        gone = members[samples["pruned"].to_numpy(dtype=bool)[members]]
        alike = samples["alike"].to_numpy(dtype=np.float64)[gone]
        order = np.argsort(-np.nan_to_num(alike, nan=-2.0), kind="stable")[:_EACH]
        kinds["pruned, beside what was kept"] = [
            (int(gone[at]), f"cosine {alike[at]:.3f}" if np.isfinite(alike[at]) else "") for at in order
        ]
    return kinds


def _card(samples: pd.DataFrame, found: dict[str, Shown], row: int, note: str, *, paired: bool) -> Card:
    name = str(samples["sample_id"].iat[row])
    other = samples["duplicate_of"].iat[row] if paired else None
    beside = found.get(other, Shown(other)) if isinstance(other, str) else None
    return Card(found[name], note, beside)
