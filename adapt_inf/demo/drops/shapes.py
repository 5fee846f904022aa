"""Attributes and yes/no questions of easy-vqa, on its own pictures and its own split.

As published, "is there a red shape?" is answered "no" six times of seven, and the negated forms "yes": a model that
never looks would score .85. Here each form has as many of either answer.
"""

from __future__ import annotations

from functools import cache

from adapt_inf.demo.drops.plan import Plan
from adapt_inf.demo.pictures import SHAPES as DRAWN_SHAPES
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import Item, pick

YES_NO = ("yes", "no")
NEGATED = (" not ", " no ")
SHAPES = (*DRAWN_SHAPES, "rectangle")


def attribute(split: Split, rng: Generator) -> Item:
    return _question(split, "attribute", pick(rng, ("shape", "colour")), rng)


def yes_no(split: Split, rng: Generator) -> Item:
    return _question(split, "yes_no", pick(rng, YES_NO), rng)


def yes_no_negated(split: Split, rng: Generator) -> Item:
    return _question(split, "yes_no_negated", pick(rng, YES_NO), rng)


def _question(split: Split, skill: str, stratum: str, rng: Generator) -> Item:
    """A question of the skill, equally likely to be about colour or shape."""
    own = _strata(split)
    about = "any" if skill == "attribute" else pick(rng, ("shape", "colour"))
    questions = own[skill, about, stratum]
    question, answer, picture = questions[rng.integers(len(questions))]
    return Item((load_assets().shapes[_source(split)][picture],), question.capitalize(), answer, skill)


@cache
def _strata(split: Split) -> dict[tuple[str, str, str], list[tuple[str, str, int]]]:
    """(skill, what it is about, answer or asked attribute) -> questions; pictures that training has are left out."""
    assets = load_assets()
    known = set() if split == "train" else {picture.tobytes() for picture in assets.shapes["train"]}
    strata: dict[tuple[str, str, str], list[tuple[str, str, int]]] = {}
    for question, answer, picture in assets.shape_questions[_source(split)]:
        if assets.shapes[_source(split)][picture].tobytes() in known:
            continue
        if answer in YES_NO:
            skill = "yes_no_negated" if any(word in question for word in NEGATED) else "yes_no"
            key = (skill, "colour" if "shape" in question else "shape", answer)
        else:
            key = ("attribute", "any", "shape" if answer in SHAPES else "colour")
        strata.setdefault(key, []).append((question, answer, picture))
    return strata


def _source(split: Split) -> str:
    return "train" if split == "train" else "test"


PLAN = Plan(
    name="shapes",
    description="Colours and shapes of single figures, asked for and asked about: easy-vqa.",
    license="MIT",
    skill="attribute",
    form="llava_json",
    train={attribute: 1400, yes_no: 510, yes_no_negated: 90},
    evaluation={attribute: 100, yes_no: 60, yes_no_negated: 40},
    repeats=0.0,  # a dozen questions a picture are repetition enough
)
