"""Compose the continuum on the user's machine: the base pool, and the drops one after the other, as drop folders.

Everything follows from the shipped assets and a seed: the same bytes each time, some seconds for all of it (a
millisecond a sample). docs/continuum.md says what in it is real and what is composed.
"""

from __future__ import annotations

from pathlib import Path

from adapt_inf.demo import questions
from adapt_inf.demo.drops import geography, handwriting, languages, pairs, scenes, shapes
from adapt_inf.demo.drops.plan import Plan, draw
from adapt_inf.demo.drops.writing import write_drop

PLANS = {
    plan.name: plan for plan in (shapes.PLAN, languages.PLAN, scenes.PLAN, handwriting.PLAN, geography.PLAN, pairs.PLAN)
}

DROPS: tuple[str, ...] = tuple(PLANS)
"""The drops in the order in which they arrive."""

BASE_POOL = 2000  # training samples

BASE = Plan(
    name="base",
    description="What the shipped model was trained on: naming, digits, silhouettes, colours, corners, and text alone.",
    license="Apache-2.0 AND CC-BY-4.0 AND MIT AND BSD-3-Clause",
    skill="name",
    form="llava_jsonl",
    train={
        task: round(BASE_POOL * share)
        for task, share in questions.BASE_TASKS.items()
        if task not in (questions.plus, questions.larger)  # too few different questions to keep some for evaluation
    },
    evaluation={
        questions.name: 60,
        questions.name_new_artist: 40,
        questions.digit: 40,
        questions.silhouette: 30,
        questions.colour: 40,
        questions.corner: 30,
        questions.one_of_two: 30,
        questions.nth_word: 20,
    },
    repeats=0.1,
)


def compose_base(out: Path, seed: int = 0) -> None:
    """Write what the base model was trained on, and a suite that tests it, as a drop folder at `out`."""
    write_drop(BASE, draw(BASE, seed), out)


def compose_drop(name: str, out: Path, seed: int = 0) -> None:
    """Write the drop `name`, one of DROPS, as a drop folder at `out`."""
    plan = PLANS[name]
    write_drop(plan, draw(plan, seed), out)
