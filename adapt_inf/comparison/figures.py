"""What the lineages of a comparison came to: figures of every round, and of each strategy over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adapt_inf.comparison.plan import Lineage, Variant
from adapt_inf.comparison.statistics import Difference, Mean, difference_of, mean_of
from adapt_inf.comparison.store import Store
from adapt_inf.comparison.walk import Walk
from adapt_inf.evaluation.figures import Accuracies, figures, rare_skills
from adapt_inf.files import read_json

BASELINE = "random"
UPPER = "full"  # what the relative gain is relative to
FIGURES = (
    "average_accuracy",
    "relative_gain",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "rare_accuracy",
    "rare_forgetting",
)
COSTS = ("samples", "seconds", "cpu_seconds")


@dataclass(frozen=True)
class Outcome:
    """A lineage that is done, with the figures of its rounds, in order.

    Each round has `round`, `drop`, the FIGURES (None where there is nothing to average), `samples` (selected, up to and
    with it), `seconds` and `cpu_seconds` (of all stages that the strategy needs, up to and with it), `skills`.
    """

    line: Lineage
    rounds: list[dict[str, Any]]

    def last(self, name: str) -> float | None:
        value: float | None = self.rounds[-1][name]
        return value


Left = dict[str, Any]
"""What a round left: `round`, `drop`, the COSTS up to and with it, `metrics` and `matrix` of the evaluate stage."""


def read_rounds(walks: Sequence[Walk], store: Store) -> dict[Lineage, list[Left]]:
    """The rounds of the lineages that are done, in the order of the walks."""
    return {walk.line: _read(walk, store) for walk in walks if walk.done}


def outcomes(found: Mapping[Lineage, list[Left]], first: Variant = ()) -> list[Outcome]:
    """Of lineages that are done, each beside others at the same seed.

    The gain is relative to UPPER under the same variant. Rare are the skills that are so in the pool of BASELINE under
    the `first` variant, or of the same strategy under it, or else in the lineage's own: with a cap pools differ, and a
    difference must be one over the same skills.
    """
    found_outcomes = []
    for line, rounds in found.items():
        upper = found.get(replace(line, strategy=UPPER))
        same = replace(line, variant=first)
        rare = found.get(replace(same, strategy=BASELINE)) or found.get(same, rounds)
        found_outcomes.append(Outcome(line, [_with_figures(n, rounds, upper, rare) for n in range(len(rounds))]))
    return found_outcomes


def _read(walk: Walk, store: Store) -> list[Left]:
    rounds: list[Left] = []
    samples, seconds, cpu_seconds = 0, 0.0, 0.0
    for step, result in zip(walk.steps, walk.results, strict=True):
        seconds += result.seconds
        cpu_seconds += result.cpu_seconds
        samples += result.report["samples"] if step.stage.name == "train" else 0
        if step.stage.name == "evaluate":
            folder = store.content(result.name)
            rounds.append(
                {
                    "round": step.round_id,
                    "drop": step.drop,
                    "samples": samples,
                    "seconds": round(seconds, 1),
                    "cpu_seconds": round(cpu_seconds, 1),
                    "metrics": read_json(folder / "metrics.json"),
                    "matrix": read_json(folder / "accuracy_matrix.json"),
                }
            )
    return rounds


def _with_figures(n: int, rounds: list[Left], upper: list[Left] | None, rare: list[Left]) -> dict[str, Any]:
    metrics, matrix = rounds[n]["metrics"], rounds[n]["matrix"]
    accuracies = Accuracies(
        rounds=matrix["rounds"],
        brought=_by_skill(matrix, "round"),
        values=matrix["values"],
        base=matrix["base"],
        upper=upper[n]["metrics"]["skills"] if upper else {},
    )
    of_rare = figures(accuracies.of(rare_skills(_by_skill(rare[n]["matrix"], "pool_share"))))
    found = figures(accuracies) | {
        "rare_accuracy": of_rare["average_accuracy"],
        "rare_forgetting": of_rare["forgetting"],
    }
    kept = ("round", "drop", *COSTS)
    return {key: rounds[n][key] for key in kept} | found | {"skills": metrics["skills"]}


def _by_skill(matrix: dict[str, Any], key: str) -> dict[str, Any]:
    return {f"{entry['suite']}/{entry['skill']}": entry[key] for entry in matrix["skills"]}


@dataclass(frozen=True)
class Row:
    """A strategy under a variant, over the seeds at which it is done.

    Attributes:
        means: figure or cost -> its mean at the lineage's end; None where some seed has none.
        against: figure -> its difference to BASELINE at the seeds that both have; empty for BASELINE itself.
        against_first: figure -> its difference to the same strategy under the first variant; empty for that itself.
        skills: skill -> its mean accuracy at the lineage's end, and the difference to BASELINE where there is one.
    """

    variant: Variant
    strategy: str
    seeds: list[int]
    means: dict[str, Mean | None]
    against: dict[str, Difference | None]
    against_first: dict[str, Difference | None]
    skills: dict[str, tuple[Mean, Difference | None]]


def rows(found: Sequence[Outcome], first: Variant = ()) -> list[Row]:
    """A row for each variant and strategy of which some seed is done, in the order in which they come.

    Args:
        first: the variant that the others are held against.
    """
    by_row: dict[tuple[Variant, str], dict[int, Outcome]] = {}
    for outcome in found:
        by_row.setdefault((outcome.line.variant, outcome.line.strategy), {})[outcome.line.seed] = outcome
    found_rows = []
    for (variant, strategy), seeds in by_row.items():
        others = by_row.get((variant, BASELINE), {}) if strategy != BASELINE else {}
        same = by_row.get((first, strategy), {}) if variant != first else {}
        found_rows.append(
            Row(
                variant,
                strategy,
                list(seeds),
                means={name: _mean(seeds, name) for name in (*FIGURES, *COSTS)},
                against=_against(seeds, others),
                against_first=_against(seeds, same),
                skills=_skills(seeds, others),
            )
        )
    return found_rows


def _mean(seeds: dict[int, Outcome], name: str) -> Mean | None:
    values = [outcome.last(name) for outcome in seeds.values()]
    numbers = [value for value in values if value is not None]
    return mean_of(np.array(numbers)) if len(numbers) == len(values) else None


def _against(seeds: dict[int, Outcome], baseline: dict[int, Outcome]) -> dict[str, Difference | None]:
    both = [seed for seed in seeds if seed in baseline]
    differences: dict[str, Difference | None] = {}
    for name in FIGURES:
        pairs = [(seeds[seed].last(name), baseline[seed].last(name)) for seed in both]
        known = [(own, other) for own, other in pairs if own is not None and other is not None]
        whole = known and len(known) == len(pairs)
        differences[name] = difference_of(*np.array(known).T) if whole else None
    return differences if both else {}


def _skills(seeds: dict[int, Outcome], baseline: dict[int, Outcome]) -> dict[str, tuple[Mean, Difference | None]]:
    own = {seed: outcome.rounds[-1]["skills"] for seed, outcome in seeds.items()}
    pairs = [(own[seed], baseline[seed].rounds[-1]["skills"]) for seed in own if seed in baseline]
    found: dict[str, tuple[Mean, Difference | None]] = {}
    for skill in next(iter(own.values())):
        gap = difference_of(*np.array([(mine[skill], other[skill]) for mine, other in pairs]).T) if pairs else None
        found[skill] = mean_of(np.array([each[skill] for each in own.values()])), gap
    return found
