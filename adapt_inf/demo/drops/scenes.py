"""How many things there are and where they are, in images of up to four pictures; boxes are rare."""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan
from adapt_inf.demo.pictures import Bytes, Generator, Split, load_assets
from adapt_inf.demo.questions import CELLS, SCENE_CONCEPTS, Item, phrased

HALF = 4  # boxes count in eighths of the image, so half of it is four


def where(split: Split, rng: Generator) -> Item:
    image, cell, thing = _scene(int(rng.integers(1, 4)), split, rng)
    return Item((image,), f"Where is the {thing}?", CELLS[cell], "where")


def count(split: Split, rng: Generator) -> Item:
    number = int(rng.integers(1, 5))
    image, _, _ = _scene(number, split, rng)
    question = phrased(split, rng, ("How many things are there?", "How many do you see?"), "How many things are there?")
    return Item((image,), question, str(number), "count")


def box(split: Split, rng: Generator) -> Item:
    """Left, top, right and bottom of a thing, in eighths of the image."""
    image, cell, thing = _scene(int(rng.integers(1, 4)), split, rng)
    left, top = cell % 2 * HALF, cell // 2 * HALF
    return Item((image,), f"Box of the {thing}?", f"{left} {top} {left + HALF} {top + HALF}", "box")


def _scene(number: int, split: Split, rng: Generator) -> tuple[Bytes, int, str]:
    """An image of `number` different things, and the quarter and name of one of them."""
    cells = rng.permutation(4)[:number]
    things = rng.permutation(SCENE_CONCEPTS)[:number]
    drawn = {int(c): pictures.concept_picture(int(t), rng) for c, t in zip(cells, things, strict=True)}
    return pictures.grid(drawn, split, rng), int(cells[0]), load_assets().concepts[things[0]]


PLAN = Plan(
    name="scenes",
    description="Small scenes: how many things there are, where one is, and a few boxes.",
    license="Apache-2.0 AND CC-BY-4.0 AND MIT",
    skill="count",
    form="llava_jsonl",
    train={count: 1400, where: 800, box: 95},
    evaluation={count: 80, where: 80, box: 30},
    metrics={"box": "iou_50"},
)
