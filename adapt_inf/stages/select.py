"""Stage select: which candidates to train on this round, and why each of them.

A candidate that the model cannot read is never selected: budgets, experts and strategies see the readable ones only.
Everything is in memory: a few numbers per candidate. A million candidates take seconds.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from adapt_inf.data.manifest import candidates
from adapt_inf.errors import ConfigError, StageInputError
from adapt_inf.files import read_json, write_json, write_parquet
from adapt_inf.selection.strategies import ADAPT_INF, WITHOUT_EXPERTS, Candidates, Selection, is_strategy, select
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.tables import readable, table_of


def run(ctx: StageContext) -> dict[str, Any]:
    """Write rounds/<round>/select/.

    selected.parquet, in candidate order: sample_id, cluster (int32), selector, score (float64, null where there is
    none), stratum (int32: 0..strata-1 by rising score, `strata` without a score, -1 low tail, -2 high tail, -3 drawn
    without strata, -4 taken as one of the highest). selectors.json: the strategy, its counts (`candidates`, of them
    `unreadable`, `budget`, `selected`), a row per cluster (its readable size, budget, selected, selector, margin to the
    second expert in bits, bins of its histograms, entropy of every expert in bits, null where it may not be chosen),
    and candidates and selected per skill ("<drop>/<skill>") and per drop. A fraction as `select.budget` is one of the
    readable candidates.

    Raises:
        ConfigError: a strategy that is none.
        StageInputError: clusters, scores or faults of other samples than the round's candidates, or no faults.parquet.
    """
    params = ctx.params.select
    frame = candidates(ctx, ["sample_id", "drop", "skill", "round"])
    clusters = table_of(frame["sample_id"], ctx.input("cluster") / "assignments.parquet")
    scores = table_of(frame["sample_id"], ctx.input("score") / "scores.parquet")
    signals = table_of(frame["sample_id"], ctx.input("sketch") / "signals.parquet", ["nll"])
    draws = read_json(ctx.input("score") / "draws.json")
    names = [name for name in scores.columns if name != "sample_id"]
    rows = np.flatnonzero(readable(ctx, frame["sample_id"]))
    _check(ctx, names)
    known = Candidates(
        cluster=clusters["cluster"].to_numpy(dtype=np.int64)[rows],
        similarity=clusters["similarity"].to_numpy()[rows],
        is_new=(frame["round"] == ctx.round).to_numpy(dtype=bool)[rows],
        scores={name: scores[name].to_numpy(dtype=np.float64)[rows] for name in names},
        clusters=int(clusters["cluster"].max()) + 1 if len(clusters) else 0,
        loss=signals["nll"].to_numpy(dtype=np.float64)[rows],
        highest=frozenset(name for name, draw in draws.items() if draw == "highest"),
    )
    found = select(known, params, ctx.params.seed)

    cluster, chosen = known.cluster[found.positions], rows[found.positions]
    selected = pd.DataFrame(
        {
            "sample_id": frame["sample_id"].take(chosen).array,
            "cluster": cluster.astype(np.int32),
            "selector": pd.array(found.selectors, dtype="str").take(cluster),
            "score": found.score,
            "stratum": found.stratum,
        }
    )
    taken = np.zeros(len(frame), dtype=bool)
    taken[chosen] = True
    report = {
        "strategy": params.strategy,
        "candidates": len(frame),
        "unreadable": len(frame) - len(rows),
        "budget": found.budget,
        "selected": len(selected),
        "clusters": cluster_rows(known, found, params.scores),
        "skills": shares(frame["drop"] + "/" + frame["skill"], taken),
        "drops": shares(frame["drop"], taken),
    }
    with ctx.output("select", [asdict(params), ctx.params.seed]) as out:
        write_parquet(out / "selected.parquet", selected)
        write_json(out / "selectors.json", report)
    return {name: report[name] for name in ("strategy", "candidates", "unreadable", "budget", "selected")} | {
        "clusters": known.clusters,
        "new": int(known.is_new.sum()),
        "new_selected": int(known.is_new[found.positions].sum()),
    }


def cluster_rows(known: Candidates, found: Selection, experts: list[str]) -> list[dict[str, Any]]:
    """The clusters of selectors.json, by number."""
    gave = np.bincount(known.cluster[found.positions], minlength=known.clusters)
    sizes = known.sizes
    return [
        {
            "cluster": cluster,
            "size": int(sizes[cluster]),
            "budget": int(found.budgets[cluster]),
            "selected": int(gave[cluster]),
            "selector": found.selectors[cluster],
            "margin": _number(found.experts.margins[cluster]),
            "bins": int(found.experts.bins[cluster]),
            "entropies": {
                name: _number(value) for name, value in zip(experts, found.experts.entropies[cluster], strict=True)
            },
        }
        for cluster in range(known.clusters)
    ]


def shares(keys: pd.Series, taken: np.ndarray) -> dict[str, dict[str, int]]:
    """Candidates and selected of every key, keys in the order in which they come."""
    counts = pd.Series(taken).groupby(keys.to_numpy(), sort=False).agg(["size", "sum"])
    return {
        str(key): {"candidates": int(size), "selected": int(chosen)}
        for key, size, chosen in zip(counts.index, counts["size"], counts["sum"], strict=True)
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _check(ctx: StageContext, scores: list[str]) -> None:
    params, source = ctx.params.select, ctx.project.params_of(ctx.round)
    missing = [name for name in params.scores if name not in scores]
    if missing:
        raise StageInputError(ctx.input("score") / "scores.parquet", f"has no score {missing[0]}")
    if not is_strategy(params.strategy, scores):
        there = ", ".join([ADAPT_INF, *WITHOUT_EXPERTS, "or the name of a score"])
        raise ConfigError(source, "select.strategy", f"there is no strategy {params.strategy}; there are {there}")
