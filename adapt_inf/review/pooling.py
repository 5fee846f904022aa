"""Pictures of the pool over the rounds, of what they cost, and of how alike what was pruned is to what stayed."""

from __future__ import annotations

import numpy as np

from adapt_inf.review.charts import column_chart, histogram
from adapt_inf.review.picture import Picture
from adapt_inf.review.svg import BLUE, COLOURS, GREEN, PINK
from adapt_inf.review.tables import Review

_BINS = 20


def pool_history(review: Review) -> Picture | None:
    """Size of the pool, what each round selected and pruned, and how long it took."""
    line = review.line
    if not line:
        return None
    rounds = [entry["round"] for entry in line]
    columns = {key: [entry[key] for entry in line] for key in ("pool_size", "selected", "pruned", "seconds")}
    panels = [
        column_chart("samples in the pool", rounds, [("pool", BLUE, columns["pool_size"])]),
        column_chart(
            "selected and pruned",
            rounds,
            [("selected", GREEN, columns["selected"]), ("pruned", PINK, columns["pruned"])],
        ),
    ]
    seconds = [value for value in columns["seconds"] if value is not None]
    if seconds:
        long = max(seconds) >= 600
        shown = [None if value is None else value / 60 if long else value for value in columns["seconds"]]
        unit = "minutes" if long else "seconds"
        panels.append(column_chart(f"time of the stages, {unit}", rounds, [("time", COLOURS[4], shown)]))
    now = line[-1]
    cost = f" Its stages took {now['seconds']:,.0f} s." if now["seconds"] is not None else ""
    return Picture(
        "The pool and what the rounds cost",
        "A column per round of this line, the base left out: the live samples after it, what it trained on and pruned, "
        "and how long its eight stages took together.",
        f"After {now['round']}: {_count(now['pool_size'])} live samples, {_count(now['selected'])} selected, "
        f"{_count(now['pruned'])} pruned.{cost}",
        tuple(panels),
    )


def similarity(review: Review) -> Picture | None:
    """How alike the pruned samples are to those that were kept in their stead."""
    samples = review.samples
    if "pruned" not in samples or not samples["pruned"].any():
        return None
    alike = samples.loc[samples["pruned"], "alike"].dropna().to_numpy(dtype=np.float64)
    if not len(alike):
        return None
    edges = np.linspace(min(0.0, float(alike.min())), 1.0, _BINS + 1)
    counts = np.histogram(np.clip(alike, edges[0], 1.0), edges)[0]
    return Picture(
        "How alike the pruned samples are to what stayed",
        "For each pruned sample the cosine of its gradient with that of the sample kept in its stead: at 1 it would "
        "teach exactly the same, at 0 something else.",
        f"{len(alike):,} pruned; half of them are above {np.median(alike):.2f}, the least alike is at "
        f"{alike.min():.2f}.",
        (histogram("pruned samples", edges.tolist(), counts.tolist(), "cosine to the sample kept"),),
    )


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
