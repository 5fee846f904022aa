"""Lineages of two rounds and three skills that are done, with scores worked out by hand; no model, no file."""

from __future__ import annotations

from typing import Any

from adapt_inf.comparison.figures import Outcome, outcomes
from adapt_inf.comparison.plan import Lineage, Plan, Variant

SINCE = {"base/old": "base", "one/a": "r001", "two/b": "r002"}
BASE = {"base/old": 0.5, "one/a": 0.1, "two/b": 0.2}
RANDOM = [{"base/old": 0.6, "one/a": 0.6, "two/b": 0.3}, {"base/old": 0.3, "one/a": 0.7, "two/b": 0.4}]
FULL = [{"base/old": 0.5, "one/a": 0.8, "two/b": 0.1}, {"base/old": 0.4, "one/a": 1.0, "two/b": 0.5}]


def left(scores: list[dict[str, float]], shift: float = 0.0, rare: str = "base/old") -> list[dict[str, Any]]:
    """What two rounds with these scores left.

    Args:
        shift: added to the scores of the last round.
        rare: the one skill that is so after that.
    """
    last = {skill: score + shift for skill, score in scores[1].items()}
    first = {skill: scores[0][skill] for skill in ("base/old", "one/a")}
    values = [{"base": {s: BASE[s] for s in first}, "r001": first}, {"base": BASE, "r001": scores[0], "r002": last}]
    return [
        {
            "round": round_id,
            "drop": drop,
            "samples": 100 * (n + 1),
            "seconds": 10.0 * (n + 1),
            "cpu_seconds": 9.0 * (n + 1),
            "metrics": {"skills": row},
            "matrix": {
                "rounds": ["base", "r001", "r002"][: n + 2],
                "skills": [
                    {
                        "suite": skill.split("/")[0],
                        "skill": skill.split("/")[1],
                        "round": SINCE[skill],
                        "pool_share": 0.03 if n and skill == rare else 0.3,
                    }
                    for skill in row
                ],
                "values": values[n],
                "base": BASE,
            },
        }
        for n, (round_id, drop, row) in enumerate([("r001", "one", first), ("r002", "two", last)])
    ]


def line(strategy: str, seed: int = 0, variant: Variant = ()) -> Lineage:
    return Lineage(variant, strategy, seed)


def plan(*strategies: str, seeds: int = 2, vary: dict[str, list[Any]] | None = None) -> Plan:
    return Plan(list(strategies), list(range(seeds)), {}, vary or {}, {"one": "", "two": ""}, {}, {})


def found_of(shifts: list[float], strategy: str = "adapt_inf") -> list[Outcome]:
    """`random`, and a strategy that is above it by `shifts` at the seeds."""
    return outcomes(
        {
            line(name, seed): left(RANDOM, shift + seed / 10)
            for seed, own in enumerate(shifts)
            for name, shift in ((strategy, own), ("random", 0.0))
        }
    )
