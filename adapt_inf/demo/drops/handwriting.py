"""Two handwritten digits, a picture each: read as one number, added, or (rarely) compared."""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan
from adapt_inf.demo.pictures import Generator, Split
from adapt_inf.demo.questions import Item


def read_number(split: Split, rng: Generator) -> Item:
    left, right = (int(value) for value in rng.integers(0, pictures.DIGIT_VALUES, 2))
    return _two(left, right, "Join the first and the second", f"{left}{right}", "read_number", split, rng)


def add(split: Split, rng: Generator) -> Item:
    left, right = (int(value) for value in rng.integers(0, pictures.DIGIT_VALUES, 2))
    return _two(left, right, "The first plus the second?", str(left + right), "add", split, rng)


def larger_digit(split: Split, rng: Generator) -> Item:
    left, right = (int(value) for value in rng.permutation(pictures.DIGIT_VALUES)[:2])
    return _two(left, right, "Which digit is larger?", str(max(left, right)), "larger_digit", split, rng)


def _two(left: int, right: int, question: str, answer: str, skill: str, split: Split, rng: Generator) -> Item:
    images = (pictures.digit(left, split, rng), pictures.digit(right, split, rng))
    return Item(images, question, answer, skill)


PLAN = Plan(
    name="handwriting",
    description="Handwritten digits in pairs: two-digit numbers, sums, and which is larger.",
    license="BSD-3-Clause",
    skill="read_number",
    form="parquet",
    train={read_number: 1500, add: 300, larger_digit: 80},
    evaluation={read_number: 100, add: 50, larger_digit: 30},
)
