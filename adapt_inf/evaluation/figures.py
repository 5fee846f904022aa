"""The figures over time, from the scores of every skill after every round of a lineage.

A[t, s] is the score of skill s after round t, t_s the round that brought s, t the last round. A skill that a round
brings also has A[t_s - 1, s], the parent's score on it before any training. Where a figure has nothing to average, it
is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

RARE_SHARE = 0.05  # of the pool: a skill under it is rare


@dataclass(frozen=True)
class Accuracies:
    """What a lineage scored.

    Attributes:
        rounds: along the lineage, the base first; the last is the one that figures are for.
        brought: skill -> the round that brought it.
        values: round -> skill -> score in [0, 1]; a round lacks skills that came later than the round after it.
        base: skill -> score of the base model.
        upper: skill -> score of the same lineage trained on everything; empty where there is none.
    """

    rounds: Sequence[str]
    brought: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]
    base: Mapping[str, float]
    upper: Mapping[str, float] = field(default_factory=dict)

    @property
    def last(self) -> str:
        return self.rounds[-1]

    def of(self, skills: Iterable[str]) -> Accuracies:
        """The same with these skills only."""
        kept = set(skills)
        return Accuracies(
            self.rounds,
            {skill: at for skill, at in self.brought.items() if skill in kept},
            self.values,
            self.base,
            self.upper,
        )


def average_accuracy(a: Accuracies) -> float | None:
    """Mean over the skills seen so far of A[t, s]."""
    return _mean(a.values[a.last][skill] for skill in a.brought)


def forgetting(a: Accuracies) -> float | None:
    """Mean over earlier skills of the best score before the last round minus the last (Chaudhry et al. 2018).

    Negative where a skill is better than it ever was.
    """

    def lost(skill: str) -> float:
        before = [a.values[at][skill] for at in a.rounds[:-1] if skill in a.values[at]]
        return max(before) - a.values[a.last][skill]

    return _mean(map(lost, _earlier(a)))


def backward_transfer(a: Accuracies) -> float | None:
    """Mean over earlier skills of the last score minus that after their own round (Lopez-Paz & Ranzato 2017)."""
    return _mean(a.values[a.last][skill] - a.values[a.brought[skill]][skill] for skill in _earlier(a))


def forward_transfer(a: Accuracies) -> float | None:
    """Mean over the skills that the last round brings of the parent's score on them minus the base model's."""
    if len(a.rounds) < 2:
        return None
    parent = a.values[a.rounds[-2]]
    return _mean(parent[skill] - a.base[skill] for skill, at in a.brought.items() if at == a.last)


def relative_gain(a: Accuracies) -> float | None:
    """100 x mean of A[t, s] / U[s], with U the lineage trained on everything; over the skills where U is above zero."""
    last = a.values[a.last]
    return _mean(100 * last[skill] / a.upper[skill] for skill in a.brought if a.upper.get(skill, 0) > 0)


FIGURES: dict[str, Callable[[Accuracies], float | None]] = {
    "average_accuracy": average_accuracy,
    "forgetting": forgetting,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
    "relative_gain": relative_gain,
}


def figures(a: Accuracies) -> dict[str, float | None]:
    """Every figure by name."""
    return {name: figure(a) for name, figure in FIGURES.items()}


def rare_skills(shares: Mapping[str, float]) -> list[str]:
    """The skills with under 5% of the pool."""
    return [skill for skill, share in shares.items() if share < RARE_SHARE]


def _earlier(a: Accuracies) -> list[str]:
    return [skill for skill, at in a.brought.items() if at != a.last]


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None
