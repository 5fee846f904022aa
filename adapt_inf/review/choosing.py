"""Pictures of the choice: which expert took which cluster, how much of it, and from which levels of its score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from adapt_inf.review import charts
from adapt_inf.review.charts import Bar, Line, heat_map, strata_chart
from adapt_inf.review.picture import Picture
from adapt_inf.review.svg import BLUE, GREEN, PINK, Panel
from adapt_inf.review.tables import Review, score_of
from adapt_inf.selection.arrays import BoolArray, FloatArray
from adapt_inf.selection.coverage import HIGH_TAIL, HIGHEST, LOW_TAIL, stratify

_Row = TypeVar("_Row")

MOST_BARS = 90  # clusters that have a row of their own; beyond that the largest ones

_ROWS = 30  # of a panel
_MOST_STRATA = 12  # clusters whose score is shown


def cluster_entropies(review: Review) -> Picture | None:
    """Clusters x experts, the winner framed."""
    shown = review.clusters[:MOST_BARS]
    experts = list(dict.fromkeys(name for cluster in shown for name in cluster.get("entropies") or {}))
    if not experts:
        return None
    known = [value for cluster in shown for value in (cluster["entropies"] or {}).values() if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    panels = []
    for part in in_parts(shown):
        values = [[(cluster["entropies"] or {}).get(name) for name in experts] for cluster in part]
        framed = [(row, experts.index(c["selector"])) for row, c in enumerate(part) if c["selector"] in experts]
        names = [name_of(review, cluster) for cluster in part]
        panels.append(heat_map(names, experts, values, low, high, framed, "cluster, main skill, its share"))
    winners = Counter(cluster["selector"] for cluster in review.clusters)
    if not set(winners) & set(experts):
        title, chose = "How widely each expert's score spreads in each cluster", "No expert was asked"
    else:
        title, chose = "Which expert chose in which cluster", "Chosen"
    close = sum(1 for cluster in review.clusters if (margin := cluster.get("margin")) is not None and margin < 0.1)
    by = ", ".join(f"{name} in {count}" for name, count in winners.most_common())
    return Picture(
        f"{title}{_only(shown, review.clusters)}",
        "A row per cluster of samples that pull the model alike, a column per expert; a cell says in bits how widely "
        "the expert's score spreads there. The one that spreads widest tells the samples apart best and chooses: "
        "framed.",
        f"{chose}: {by}. In {close} of {len(review.clusters)} clusters the second was less than 0.1 bit behind.",
        tuple(panels),
    )


def cluster_sizes(review: Review) -> Picture | None:
    """Size, budget, selected and pruned of each cluster."""
    shown = review.clusters[:MOST_BARS]
    if not shown:
        return None
    pruned, both = review.per_cluster("pruned"), review.per_cluster("trained on and pruned")
    bars = []
    for cluster in shown:
        gone = pruned.get(cluster["cluster"], 0) - both.get(cluster["cluster"], 0)
        parts = [(cluster["selected"], GREEN), (cluster["size"] - cluster["selected"] - gone, ""), (gone, PINK)]
        bars.append(Bar(name_of(review, cluster), parts, cluster["budget"], cluster["selector"]))
    legend = [("selected", GREEN), ("kept in the pool, not selected", "")]
    legend += [("pruned", PINK)] if any(pruned.values()) else []
    twice = sum(both.values())
    also = f" {twice:,} of the selected were pruned after the round all the same." if twice else ""
    full = [cluster for cluster in review.clusters if cluster["selected"] == cluster["size"]]
    largest = review.clusters[0]
    return Picture(
        f"What each cluster gave{_only(shown, review.clusters)}",
        "A bar per cluster, as long as it has samples: what was selected to train on, what stays in the pool for later "
        "rounds, what was pruned for good. The mark is the cluster's budget; the word behind it is its selector.",
        f"Budgets are {_range([cluster['budget'] for cluster in review.clusters])} samples, clusters "
        f"{_range([cluster['size'] for cluster in review.clusters])}: of the largest ({name_of(review, largest)}) "
        f"{largest['selected'] / largest['size']:.0%} was selected; {len(full)} gave all they have.{also}",
        tuple(charts.bar_chart(part, legend, mark="budget", most=float(shown[0]["size"])) for part in in_parts(bars)),
    )


def strata(review: Review) -> Picture | None:
    """The chosen expert's score in the largest clusters, level by level, and what was selected from each level."""
    samples, knobs = review.samples, review.params.select
    panels: list[Panel] = []
    scored = [c for c in review.clusters if score_of(c["selector"]) in samples]
    if "cluster" not in samples or "selected" not in samples:
        return None
    shifts = []
    number, taken = samples["cluster"].to_numpy(), samples["selected"].to_numpy(dtype=bool)
    for place, cluster in enumerate(scored):
        members = np.flatnonzero(number == cluster["cluster"])
        values = samples[score_of(cluster["selector"])].to_numpy(dtype=np.float64)[members]
        shifts.append(_shift(values, taken[members]))
        if place >= _MOST_STRATA:
            continue
        level = stratify(values, knobs.strata, knobs.tail)
        order = [LOW_TAIL, *range(knobs.strata), HIGH_TAIL]
        counts = [[int((level[which] == each).sum()) for each in order] for which in (slice(None), taken[members])]
        note = f"{cluster['selector']}: {cluster['selected']:,} of {cluster['size']:,}"
        panels.append(strata_chart(name_of(review, cluster), note, counts[0], counts[1], tails=1))
    if not panels:
        return None
    only = f", the {len(panels)} largest clusters of {len(scored)}" if len(panels) < len(scored) else ""
    return Picture(
        f"From which levels of its score each cluster was selected{only}",
        f"The score of the cluster's expert from low to high in {knobs.strata} levels of equal width: grey all "
        "samples, green those selected. A flat green is the aim: an equal share from every level, so neither only "
        f"easy nor only hard ones. The outermost {knobs.tail:.0%} on each side are used last (pink)."
        + _from_the_top(review),
        f"In {sum(shift > 0.1 for shift in shifts)} of {len(shifts)} clusters the selected have a clearly higher score "
        "than the cluster on average: sparse high levels give a larger part, or the highest are all that is taken.",
        tuple(panels),
        columns=4,
    )


def _from_the_top(review: Review) -> str:
    """What to say of experts that take the highest; nothing where there are none."""
    table = pd.read_parquet(review.files.path("select", "selected.parquet"), columns=["selector", "stratum"])
    names = sorted(set(table["selector"][table["stratum"] == HIGHEST]))
    return f" With {' and '.join(names)}, green lies at the right end: they take the highest." if names else ""


def _shift(values: FloatArray, taken: BoolArray) -> float:
    """How far the mean of the selected lies above that of all, in standard deviations; 0 where there is no telling."""
    known = np.isfinite(values)
    spread = float(values[known].std()) if known.any() else 0.0
    return (
        float(values[known & taken].mean() - values[known].mean()) / spread if spread and (known & taken).any() else 0.0
    )


def curve_of_k(review: Review) -> Picture | None:
    """Silhouette over the number of clusters."""
    curve = review.files.curve
    if not curve.get("curve"):
        return None
    points = sorted((point["k"], point["silhouette"]) for point in curve["curve"])
    line = Line("", [height for _, height in points], BLUE)
    heights = dict(points)
    mark = list(heights).index(curve["k"]) if curve["k"] in heights else None
    panel = charts.line_chart("silhouette over k", [str(k) for k, _ in points], [line], fixed=False, mark=mark)
    best = max(heights.values())
    near = [k for k, height in points if height > best - 0.01]
    return Picture(
        "How many clusters",
        "For each number of clusters that was tried, how much closer a sample is to its own cluster than to the next "
        "(1: far closer, 0: no difference). The highest is taken.",
        f"{curve['k']} clusters, {curve['chosen_by']}; within 0.01 of the best lie k = {', '.join(map(str, near))}.",
        (panel,),
    )


def in_parts(rows: Sequence[_Row]) -> list[Sequence[_Row]]:
    """Rows in as few parts of about the same length as fit under each other in a panel."""
    parts = -(-len(rows) // _ROWS)
    size = -(-len(rows) // parts)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def name_of(review: Review, cluster: dict[str, Any]) -> str:
    """A cluster's number and its most frequent skill, with the share of it: it may be well under half."""
    content, share = review.contents.get(cluster["cluster"], ("", 1.0))
    of = f"{share:.0%}"
    return f"{cluster['cluster']} {content}{'' if of == '100%' else f' {of}'}".rstrip()


def _only(shown: Sequence[Any], all_of_them: Sequence[Any]) -> str:
    return "" if len(shown) == len(all_of_them) else f", the {len(shown)} largest of {len(all_of_them)}"


def _range(values: Sequence[int]) -> str:
    return f"{min(values):,} to {max(values):,}" if min(values) != max(values) else f"{values[0]:,}"
