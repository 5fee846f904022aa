"""The six datasets of the continuum: which questions each asks, how often, and how many.

Shares are uneven and samples repeat themselves (the same picture a few pixels further, the same fact in other words), as
in real pools; each drop has one skill under 5% of its samples. Evaluation draws pictures at sizes, digits and phrasings
that training never shows; skills that end in `_new_artist` show another artist's pictures altogether.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from adapt_inf.demo import pictures
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import (
    CELLS,
    SCENE_CONCEPTS,
    Item,
    Task,
    colour,
    corner,
    digit,
    join,
    name,
    name_new_artist,
    nth_word,
    one_of_two,
    phrased,
    pick,
    plus,
    same_words,
    silhouette,
)

NAMED_CONCEPTS = 30  # things that the languages drop names
LANGUAGE_NAMES = {"de": "German", "fr": "French", "es": "Spanish", "fi": "Finnish", "sw": "Swahili"}
SKEW = 0.7  # the n-th most frequent thing is drawn in proportion to (n + 5) ** -SKEW

OPENINGS = ("", "Tell me: ", "Quick: ", "Question: ", "Now: ", "And: ")
CAPITAL = ("What is the capital of {}?", "Capital of {}?", "{} has which capital?", "Which city is the capital of {}?")
CAPITAL_EVAL = "Name the capital of {}."
CONTINENT = ("On which continent is {}?", "{} is on which continent?", "Continent of {}?", "Where in the world is {}?")
CONTINENT_EVAL = "Which continent is {} on?"


@dataclass(frozen=True)
class Drop:
    """One dataset: its main skill, its tasks with their shares, how many samples, and what else evaluation asks."""

    description: str
    main: str
    train: int
    tasks: dict[str, tuple[float, Task]]
    form: str
    also_evaluated: dict[str, Task] = field(default_factory=dict)
    eval_per_skill: int = 50


# --- shapes: easy-vqa -------------------------------------------------------------------------------------------------


def shape_question(kind: str, split: Split, rng: Generator) -> Item:
    """One of easy-vqa's own questions of a kind; evaluation takes its own test split. Yes and no come equally often."""
    assets = load_assets()
    source = {"train": "train", "eval": "test"}[split]
    answer = pick(rng, ("yes", "no")) if kind in ("yes_no", "negation") else None
    asked = _shape_questions(source, kind, answer)
    question, right, number = asked[rng.integers(len(asked))]
    return Item((assets.shapes[source][number],), f"{question[0].upper()}{question[1:]}", right, kind)


def _shape_questions(source: str, kind: str, answer: str | None) -> list[list]:
    key = (source, kind, answer)
    if key not in _SHAPE_QUESTIONS:
        every = load_assets().shape_questions[source]
        _SHAPE_QUESTIONS[key] = [q for q in every if _shape_kind(q) == kind and answer in (None, q[1])]
    return _SHAPE_QUESTIONS[key]


_SHAPE_QUESTIONS: dict[tuple[str, str, str | None], list[list]] = {}


def _shape_kind(question: list) -> str:
    if question[1] in ("yes", "no"):
        return "negation" if " not " in question[0] else "yes_no"
    return "shape" if question[1] in ("circle", "rectangle", "triangle") else "colour"


# --- languages --------------------------------------------------------------------------------------------------------


def name_in(language: str, split: Split, rng: Generator, artist: str | None = None) -> Item:
    number = int(rng.integers(NAMED_CONCEPTS)) if split == "eval" else _skewed(NAMED_CONCEPTS, rng)
    image = pictures.concept(number, split, rng, artist)
    spoken = LANGUAGE_NAMES[language]
    question = phrased(split, rng, (f"Name this in {spoken}.", f"{spoken} name?"), f"What is this in {spoken}?")
    skill = f"name_{language}" + ("_new_artist" if artist else "")
    return Item((image,), question, load_assets().names[language][number], skill)


# --- scenes -----------------------------------------------------------------------------------------------------------


def _scene(split: Split, rng: Generator, least: int) -> tuple[list[int], list[str], pictures.Bytes]:
    """The cells that are filled, what stands in each, and the image."""
    count = int(rng.integers(least, 5))
    cells = [int(cell) for cell in rng.choice(4, count, replace=False)]
    shown = rng.choice(SCENE_CONCEPTS, count, replace=False)
    drawn = {cell: pictures.concept_picture(int(number), rng) for cell, number in zip(cells, shown, strict=True)}
    return cells, [load_assets().concepts[number] for number in shown], pictures.grid(drawn, split, rng)


def where(split: Split, rng: Generator) -> Item:
    cells, shown, image = _scene(split, rng, least=1)
    question = phrased(
        split, rng, (f"Where do you see the {shown[0]}?", f"Find the {shown[0]}."), f"Where is the {shown[0]}?"
    )
    return Item((image,), question, CELLS[cells[0]], "where")


def count(split: Split, rng: Generator) -> Item:
    cells, _, image = _scene(split, rng, least=1)
    question = phrased(split, rng, ("How many things do you see?", "Count the things."), "How many things are there?")
    return Item((image,), question, str(len(cells)), "count")


def box(split: Split, rng: Generator) -> Item:
    """The quarter that a thing stands in, as left, top, right, bottom pixels."""
    cells, shown, image = _scene(split, rng, least=1)
    half = pictures.PIXELS // 2
    left, top = (cells[0] % 2) * half, (cells[0] // 2) * half
    question = phrased(split, rng, (f"Box around the {shown[0]}?", f"Box the {shown[0]}."), f"Box of the {shown[0]}?")
    return Item((image,), question, f"{left} {top} {left + half} {top + half}", "box")


# --- handwriting ------------------------------------------------------------------------------------------------------


def _two_digits(split: Split, rng: Generator) -> tuple[list[int], tuple[pictures.Bytes, ...]]:
    values = [int(value) for value in rng.integers(0, pictures.DIGIT_VALUES, 2)]
    return values, tuple(pictures.digit(value, split, rng) for value in values)


def read_number(split: Split, rng: Generator) -> Item:
    values, images = _two_digits(split, rng)
    question = phrased(split, rng, ("Read the number.", "Which number do they make?"), "Which number is this?")
    return Item(images, question, f"{values[0]}{values[1]}", "read")


def add(split: Split, rng: Generator) -> Item:
    values, images = _two_digits(split, rng)
    question = phrased(split, rng, ("Add the digits.", "What do they add to?"), "What is the sum?")
    return Item(images, question, str(sum(values)), "sum")


def larger_digit(split: Split, rng: Generator) -> Item:
    values, images = _two_digits(split, rng)
    question = phrased(split, rng, ("Which is more?", "Say the larger one."), "Which digit is larger?")
    return Item(images, question, str(max(values)), "larger")


# --- comparing --------------------------------------------------------------------------------------------------------


def which(split: Split, rng: Generator) -> Item:
    """Which of two images shows a thing: the first, the second, both or neither."""
    answer = int(rng.integers(4))
    asked, *others = (int(number) for number in rng.choice(NAMED_CONCEPTS, 3, replace=False))
    shown = (asked if answer in (0, 2) else others[0], asked if answer in (1, 2) else others[1])
    thing = load_assets().concepts[asked]
    question = phrased(
        split, rng, (f"Where is a {thing} shown?", f"Which one is a {thing}?"), f"Which shows a {thing}?"
    )
    images = tuple(pictures.concept(number, split, rng) for number in shown)
    return Item(images, question, ("first", "second", "both", "neither")[answer], "which")


def same(split: Split, rng: Generator) -> Item:
    left, right = (int(number) for number in rng.choice(NAMED_CONCEPTS, 2, replace=False))
    equal = bool(rng.integers(2))
    images = (pictures.concept(left, split, rng), pictures.concept(left if equal else right, split, rng))
    question = phrased(
        split, rng, ("Do both show the same?", "Is it the same thing twice?"), "Are these the same thing?"
    )
    return Item(images, question, "yes" if equal else "no", "same")


def both_names(split: Split, rng: Generator) -> Item:
    numbers = [int(number) for number in rng.choice(NAMED_CONCEPTS, 2, replace=False)]
    images = tuple(pictures.concept(number, split, rng) for number in numbers)
    question = phrased(split, rng, ("Name both things.", "Say what both are."), "What are both?")
    return Item(images, question, " ".join(load_assets().concepts[number] for number in numbers), "both_names")


# --- geography --------------------------------------------------------------------------------------------------------


def flag_of(split: Split, rng: Generator, artist: str | None = None) -> Item:
    countries = load_assets().countries
    number = int(rng.integers(len(countries))) if split == "eval" else _skewed(len(countries), rng)
    image = pictures.flag(number, split, rng, artist)
    question = phrased(split, rng, ("Whose flag is this?", "Name the country."), "Which country has this flag?")
    return Item((image,), question, countries[number][0], "flag_new_artist" if artist else "flag")


def capital_by_flag(split: Split, rng: Generator) -> Item:
    countries = load_assets().countries
    number = int(rng.integers(len(countries)))
    question = phrased(split, rng, ("Capital of this country?", "Name its capital."), "What is its capital?")
    return Item((pictures.flag(number, split, rng),), question, countries[number][1], "capital_by_flag")


def fact(which_fact: int, forms: Sequence[str], held_out: str, skill: str, split: Split, rng: Generator) -> Item:
    """A capital or a continent, asked in words alone."""
    facts = load_assets().countries[rng.integers(len(load_assets().countries))]
    question = phrased(split, rng, [pick(rng, OPENINGS) + pick(rng, forms)], held_out).format(facts[0])
    return Item((), question, facts[which_fact], skill)


def _skewed(things: int, rng: Generator) -> int:
    weights = (np.arange(things) + 5.0) ** -SKEW
    return int(rng.choice(things, p=weights / weights.sum()))


def _shapes(kind: str) -> Callable[[Split, Generator], Item]:
    return partial(shape_question, kind)


BASE = Drop(
    description="What the shipped base model was trained on: things, digits, silhouettes, colours, corners, words.",
    main="name",
    train=3000,
    form="llava",
    tasks={
        "name": (0.30, name),
        "digit": (0.15, digit),
        "silhouette": (0.10, silhouette),
        "colour": (0.08, colour),
        "corner": (0.13, corner),
        "one_of_two": (0.12, one_of_two),
        "nth_word": (0.04, nth_word),
        "same_words": (0.03, same_words),
        "plus": (0.02, plus),
        "join": (0.03, join),
    },
    also_evaluated={"name_new_artist": name_new_artist},
)

DROPS = {
    "shapes": Drop(
        description="Questions on shapes and colours with yes, no, a shape or a colour as the answer (easy-vqa).",
        main="yes_no",
        train=1500,
        form="llava",
        tasks={
            "yes_no": (0.60, _shapes("yes_no")),
            "colour": (0.20, _shapes("colour")),
            "shape": (0.16, _shapes("shape")),
            "negation": (0.04, _shapes("negation")),
        },
    ),
    "languages": Drop(
        description="Names of things in German, French and Spanish, and a few in Finnish and Swahili.",
        main="name_de",
        train=2600,
        form="messages",
        tasks={
            "name_de": (0.40, partial(name_in, "de")),
            "name_fr": (0.27, partial(name_in, "fr")),
            "name_es": (0.25, partial(name_in, "es")),
            "name_fi": (0.04, partial(name_in, "fi")),
            "name_sw": (0.04, partial(name_in, "sw")),
        },
        also_evaluated={"name_de_new_artist": partial(name_in, "de", artist=pictures.NEW_ARTIST)},
    ),
    "scenes": Drop(
        description="Where things stand in a picture, how many there are, and boxes around a few.",
        main="where",
        train=1200,
        form="llava_jsonl",
        tasks={"where": (0.56, where), "count": (0.40, count), "box": (0.04, box)},
    ),
    "handwriting": Drop(
        description="Two handwritten digits in two pictures: the number they make, their sum, the larger one.",
        main="read",
        train=1500,
        form="llava",
        tasks={"read": (0.56, read_number), "sum": (0.40, add), "larger": (0.04, larger_digit)},
    ),
    "geography": Drop(
        description="Countries by their flags; capitals and continents in words alone.",
        main="flag",
        train=2000,
        form="messages",
        tasks={
            "flag": (0.50, flag_of),
            "capital": (0.26, partial(fact, 1, CAPITAL, CAPITAL_EVAL, "capital")),
            "continent": (0.20, partial(fact, 2, CONTINENT, CONTINENT_EVAL, "continent")),
            "capital_by_flag": (0.04, capital_by_flag),
        },
        also_evaluated={"flag_new_artist": partial(flag_of, artist=pictures.NEW_FLAG_ARTIST)},
    ),
    "compare": Drop(
        description="Two pictures: which one shows a thing, whether both show the same, what both are.",
        main="which",
        train=1500,
        form="parquet",
        tasks={"which": (0.56, which), "same": (0.40, same), "both_names": (0.04, both_names)},
    ),
}
"""In the order in which they are dropped."""
