"""Figures over time against plain double loops, and one lineage worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapt_inf.evaluation.figures import FIGURES, Accuracies, figures, rare_skills

SCORE = st.integers(0, 20).map(lambda n: n / 20)


@st.composite
def lineages(draw: st.DrawFn) -> Accuracies:
    """Rounds that each bring some skills (perhaps none), every score drawn."""
    rounds = ["base", *(f"r{n:03d}" for n in range(1, draw(st.integers(1, 5))))]
    brought: dict[str, str] = {}
    for name in rounds:
        for n in range(draw(st.integers(0, 3))):
            brought[f"{name}/s{n}"] = name
    values: dict[str, dict[str, float]] = {}
    for t, name in enumerate(rounds):
        known = [skill for skill, at in brought.items() if rounds.index(at) <= t + 1]  # the parent's row has new skills
        values[name] = {skill: draw(SCORE) for skill in known}
    base = {skill: draw(SCORE) for skill in brought}
    upper = {skill: draw(SCORE) for skill in brought if draw(st.booleans())}
    return Accuracies(rounds, brought, values, base, upper)


def by_loops(a: Accuracies) -> dict[str, Any]:
    """The definitions, read aloud."""
    t = len(a.rounds) - 1
    seen, lost, moved, ahead, gain = [], [], [], [], []
    for skill, at in a.brought.items():
        t_s = a.rounds.index(at)
        now = a.values[a.rounds[t]][skill]
        seen.append(now)
        if t_s < t:
            best = -1.0
            for tau in range(t):
                if skill in a.values[a.rounds[tau]] and a.values[a.rounds[tau]][skill] > best:
                    best = a.values[a.rounds[tau]][skill]
            lost.append(best - now)
            moved.append(now - a.values[a.rounds[t_s]][skill])
        if t_s == t and t > 0:
            ahead.append(a.values[a.rounds[t - 1]][skill] - a.base[skill])
        if a.upper.get(skill, 0) > 0:
            gain.append(100 * now / a.upper[skill])
    names = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "relative_gain")
    parts = (seen, lost, moved, ahead, gain)
    return {name: sum(part) / len(part) if part else None for name, part in zip(names, parts, strict=True)}


@given(lineages())
def test_figures_are_those_of_plain_loops(a: Accuracies) -> None:
    assert figures(a) == pytest.approx(by_loops(a))


@given(lineages(), st.data())
def test_a_part_of_the_skills_is_as_if_there_were_no_others(a: Accuracies, data: st.DataObject) -> None:
    kept = [skill for skill in a.brought if data.draw(st.booleans())]
    alone = Accuracies(
        a.rounds,
        {skill: a.brought[skill] for skill in kept},
        {at: {skill: score for skill, score in row.items() if skill in kept} for at, row in a.values.items()},
        {skill: a.base[skill] for skill in kept},
        {skill: score for skill, score in a.upper.items() if skill in kept},
    )
    assert figures(a.of(kept)) == figures(alone)


@given(lineages())
def test_forgetting_is_at_least_the_loss_since_a_skills_own_round(a: Accuracies) -> None:
    found = figures(a)
    if found["forgetting"] is not None and found["backward_transfer"] is not None:
        assert found["forgetting"] >= -found["backward_transfer"] - 1e-12


def test_a_lineage_by_hand() -> None:
    a = Accuracies(
        rounds=["base", "r001", "r002"],
        brought={"b/x": "base", "d1/y": "r001", "d2/z": "r002"},
        values={
            "base": {"b/x": 0.5, "d1/y": 0.1},
            "r001": {"b/x": 0.6, "d1/y": 0.8, "d2/z": 0.3},
            "r002": {"b/x": 0.4, "d1/y": 0.9, "d2/z": 0.7},
        },
        base={"b/x": 0.5, "d1/y": 0.1, "d2/z": 0.2},
        upper={"b/x": 0.8, "d1/y": 0.9, "d2/z": 0.0},
    )
    assert figures(a) == pytest.approx(
        {
            "average_accuracy": 2.0 / 3,
            "forgetting": ((0.6 - 0.4) + (0.8 - 0.9)) / 2,
            "backward_transfer": ((0.4 - 0.5) + (0.9 - 0.8)) / 2,
            "forward_transfer": 0.1,
            "relative_gain": (50 + 100) / 2,
        }
    )


def test_a_skill_that_was_lost_and_came_back_by_hand() -> None:
    """Three rounds; x falls and recovers, y falls for good, z and w come last and one of them rises before it came.

    |      | x (base) | y (r001) | z (r003) | w (r003) |
    |------|----------|----------|----------|----------|
    | base | .5       | .2       |          |          |
    | r001 | .9       | .6       |          |          |
    | r002 | .1       | .7       | .4       | .0       |
    | r003 | .8       | .3       | .5       | .6       |
    """
    a = Accuracies(
        rounds=["base", "r001", "r002", "r003"],
        brought={"b/x": "base", "d1/y": "r001", "d3/z": "r003", "d3/w": "r003"},
        values={
            "base": {"b/x": 0.5, "d1/y": 0.2},
            "r001": {"b/x": 0.9, "d1/y": 0.6},
            "r002": {"b/x": 0.1, "d1/y": 0.7, "d3/z": 0.4, "d3/w": 0.0},
            "r003": {"b/x": 0.8, "d1/y": 0.3, "d3/z": 0.5, "d3/w": 0.6},
        },
        base={"b/x": 0.5, "d1/y": 0.2, "d3/z": 0.1, "d3/w": 0.2},
        upper={"b/x": 1.0, "d1/y": 0.6, "d3/z": 0.4, "d3/w": 0.8},
    )
    assert figures(a) == pytest.approx(
        {
            "average_accuracy": 0.55,  # (.8 + .3 + .5 + .6) / 4
            "forgetting": 0.25,  # x: .9 - .8; y: .7 - .3, from after its own round
            "backward_transfer": 0.0,  # x: .8 - .5; y: .3 - .6
            "forward_transfer": 0.05,  # z: .4 - .1; w: .0 - .2
            "relative_gain": 82.5,  # (80 + 50 + 125 + 75) / 4
        }
    )
    assert figures(a.of(["d1/y", "d3/w"])) == pytest.approx(
        {
            "average_accuracy": 0.45,
            "forgetting": 0.4,
            "backward_transfer": -0.3,
            "forward_transfer": -0.2,
            "relative_gain": 62.5,
        }
    )


def test_a_base_without_suites_has_no_figures() -> None:
    assert figures(Accuracies(["base"], {}, {"base": {}}, {})) == dict.fromkeys(FIGURES)


def test_rare_is_under_a_twentieth_of_the_pool() -> None:
    assert rare_skills({"a/x": 0.05, "a/y": 0.0499, "a/z": 0.0, "b/x": 0.9}) == ["a/y", "a/z"]
