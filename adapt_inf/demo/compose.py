"""Compose the continuum on the user's machine: the base pool, and the drops one after the other, as drop folders.

Everything follows from the shipped assets and a seed: the same bytes each time, some seconds for all of it (a
millisecond a sample). docs/continuum.md says what in it is real and what is composed.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from adapt_inf.demo import questions
from adapt_inf.demo.drops import geography, handwriting, languages, pairs, scenes, shapes
from adapt_inf.demo.drops.plan import Named, Plan, Split, draw
from adapt_inf.demo.drops.writing import write_drop

PLANS = {
    plan.name: plan for plan in (shapes.PLAN, languages.PLAN, scenes.PLAN, handwriting.PLAN, geography.PLAN, pairs.PLAN)
}

DROPS: tuple[str, ...] = tuple(PLANS)
"""The drops in the order in which they arrive."""

BASE_POOL = 2000  # training samples
HELD_OUT = 8  # of a training split that is carved, one part of so many

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


def compose_base(out: Path, seed: int = 0, *, development: bool = False) -> None:
    """Write what the base model was trained on, and a suite that tests it, as a drop folder at `out`.

    Args:
        development: see `compose_drop`.
    """
    write_drop(BASE, carve(BASE, seed) if development else draw(BASE, seed), out)


def compose_drop(name: str, out: Path, seed: int = 0, *, development: bool = False) -> None:
    """Write the drop `name`, one of DROPS, as a drop folder at `out`.

    Args:
        development: both splits are carved from its training split, so that settings can be chosen by what they bring
            without a look at the evaluation split.
    """
    plan = PLANS[name]
    write_drop(plan, carve(plan, seed) if development else draw(plan, seed), out)


def carve(plan: Plan, seed: int = 0) -> dict[Split, list[Named]]:
    """A plan's training split in two: every HELD_OUT-th original is held out, its near-duplicates are in neither part.

    Questions on one picture of shapes stay on one side.
    """
    parts: dict[Split, list[Named]] = {"train": [], "eval": []}
    for named in draw(plan, seed)["train"]:
        repeated = named.id.split("-again")[0]
        original = named.item.images[0].tobytes() if plan.name == "shapes" else repeated.encode()
        if zlib.crc32(original) % HELD_OUT:
            parts["train"].append(named)
        elif repeated == named.id:
            parts["eval"].append(named)
    return parts
