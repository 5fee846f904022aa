"""Questions as the continuum asks them: an item is pictures, a question, an answer; a task draws items without end.

The base model's tasks stand here: what it sees in pictures, and text alone over every word that any drop uses, since a
tied embedding that was never an answer cannot be taught by a LoRA round later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from adapt_inf.demo import pictures
from adapt_inf.demo.pictures import Bytes, Generator, Split, load_assets

CELLS = ("top left", "top right", "bottom left", "bottom right")
CONTINENTS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")
SCENE_CONCEPTS = 24  # the first so many concepts are drawn small, in quarters of an image

WORDS = (
    *("yes", "no", "first", "second", "both", "neither", "none", "same", "different", "one", "two", "three", "four"),
    *("top", "bottom", "left", "right", "circle", "triangle", "rectangle", "gray", "teal", "plus", "is", "the", "of"),
)


PHRASES = (
    *("What is this in German?", "What is this in French?", "What is this in Spanish?"),
    *("What is this in Finnish?", "What is this in Swahili?", "Where is the thing?", "Box of the thing?"),
    *("How many things are there?", "How many do you see?", "Which number is this?", "What is the sum?"),
    *("Which digit is larger?", "Is the thing first or second?", "Is the first the same as the second?"),
    *(
        "What is the first and the second?",
        "Which country has this flag?",
        "Whose flag is this?",
        "Which city is the capital of it?",
    ),
    *("Which continent is this flag from?", "What is the capital of it?", "Capital of it?", "The capital of it is"),
    *("Name the capital of it.", "What is it's capital?", "On which continent is it?", "Continent of it?"),
    *("It is on the continent of", "Where is it?", "Which continent is it on?", "What color is the shape?"),
    *("What is the color of the shape?", "What shape is in the image?", "What shape does the image contain?"),
    *("What shape is present?", "Does the image contain a red shape?", "Does the image not contain a blue shape?"),
    *(
        "Is there a gray shape?",
        "Is there not a teal shape in the image?",
        "Is no black shape present?",
        "What is the circle?",
    ),
)
"""How the drops ask. The base model only repeats these words, to tell them apart before a drop gives them meaning."""


@dataclass(frozen=True)
class Item:
    """One question: (64, 64, 3) images, the text that follows them, the answer, and the skill that it tests."""

    images: tuple[Bytes, ...]
    question: str
    answer: str
    skill: str


Task = Callable[[Split, Generator], Item]


def pick(rng: Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def phrased(split: Split, rng: Generator, train: Sequence[str], evaluation: str) -> str:
    """One of the training phrasings, or the one that only evaluation uses."""
    return evaluation if split == "eval" else pick(rng, train)


# --- what the base model sees -----------------------------------------------------------------------------------------


def name(split: Split, rng: Generator) -> Item:
    number = int(rng.integers(len(load_assets().concepts)))
    question = pick(rng, ("What is this?", "Name this."))
    return Item((pictures.concept(number, split, rng),), question, load_assets().concepts[number], "name")


def name_new_artist(split: Split, rng: Generator) -> Item:
    """The same by an artist whose pictures no training split shows."""
    number = int(rng.integers(len(load_assets().concepts)))
    image = pictures.concept(number, split, rng, pictures.NEW_ARTIST)
    return Item((image,), "What is this?", load_assets().concepts[number], "name_new_artist")


def digit(split: Split, rng: Generator) -> Item:
    value = int(rng.integers(pictures.DIGIT_VALUES))
    question = pick(rng, ("Which digit is this?", "Read the digit."))
    return Item((pictures.digit(value, split, rng),), question, str(value), "digit")


def silhouette(split: Split, rng: Generator) -> Item:
    animals = load_assets().index["silhouettes"]
    label = int(rng.integers(len(animals)))
    return Item((pictures.silhouette(label, split, rng),), "Which animal is this?", animals[label], "silhouette")


def colour(split: Split, rng: Generator) -> Item:
    shade, shape = pick(rng, tuple(pictures.COLOURS)), pick(rng, pictures.SHAPES)
    image = pictures.alone(pictures.plain_shape(shape, shade), split, rng)
    if rng.random() < 0.5:
        return Item((image,), "What colour is this?", shade, "colour")
    return Item((image,), "What shape is this?", shape, "shape")


def corner(split: Split, rng: Generator) -> Item:
    """What stands in one quarter of an image of one to four pictures."""
    count = int(rng.integers(1, 5))
    cells = rng.choice(4, count, replace=False)
    shown = rng.choice(SCENE_CONCEPTS, count, replace=False)
    drawn = {int(cell): pictures.concept_picture(int(number), rng) for cell, number in zip(cells, shown, strict=True)}
    question = f"What is at the {CELLS[cells[0]]}?"
    return Item((pictures.grid(drawn, split, rng),), question, load_assets().concepts[shown[0]], "corner")


def one_of_two(split: Split, rng: Generator) -> Item:
    """What the first or the second of two images shows: a thing or a digit."""
    parts = [(digit if rng.random() < 0.4 else name)(split, rng) for _ in range(2)]
    which = int(rng.integers(2))
    images = (parts[0].images[0], parts[1].images[0])
    return Item(images, f"What is the {('first', 'second')[which]}?", parts[which].answer, "one_of_two")


# --- text alone -------------------------------------------------------------------------------------------------------


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word or name that an answer of the continuum may hold."""
    assets = load_assets()
    words = {word for names in assets.names.values() for word in names}
    words |= {part for facts in assets.countries for part in facts}
    words |= {*assets.concepts, *assets.index["silhouettes"], *CELLS, *WORDS, *pictures.SHAPES, *pictures.COLOURS}
    words |= {str(number) for number in range(100)}
    return tuple(sorted(words))


def _words(rng: Generator, count: int) -> list[str]:
    return [vocabulary()[i] for i in rng.integers(len(vocabulary()), size=count)]


def copy(split: Split, rng: Generator) -> Item:
    phrase = " ".join(_words(rng, int(rng.integers(1, 4))))
    return Item((), f"Say {phrase}", phrase, "copy")


def repeat(split: Split, rng: Generator) -> Item:
    """Say some neighbouring words of a question again."""
    words = pick(rng, PHRASES).split()
    start = int(rng.integers(len(words)))
    part = " ".join(words[start : start + int(rng.integers(1, 5))])
    return Item((), f"{part} Say it", part, "repeat")


def nth_word(split: Split, rng: Generator) -> Item:
    words, which = _words(rng, 3), int(rng.integers(3))
    return Item((), f"The {('first', 'second', 'third')[which]} of {', '.join(words)}", words[which], "nth_word")


def same_words(split: Split, rng: Generator) -> Item:
    left, right = _words(rng, 2)
    right = left if rng.random() < 0.5 else right
    return Item((), f"Is {left} the same as {right}?", "yes" if left == right else "no", "same_words")


def which_word(split: Split, rng: Generator) -> Item:
    """Which of two words is the first, which the second."""
    words, which = _words(rng, 2), int(rng.integers(2))
    question = f"{words[0]} and {words[1]}. Is the {words[which]} first or second?"
    return Item((), question, ("first", "second")[which], "which_word")


def larger(split: Split, rng: Generator) -> Item:
    left, right = rng.choice(100, 2, replace=False)
    return Item((), f"Which is larger, {left} or {right}?", str(max(left, right)), "larger")


def plus(split: Split, rng: Generator) -> Item:
    left, right = rng.integers(0, 10, 2)
    return Item((), f"{left} plus {right}?", str(left + right), "plus")


def join(split: Split, rng: Generator) -> Item:
    """Write two words, or two digits as one number."""
    if rng.random() < 0.5:
        left, right = rng.integers(0, 10, 2)
        return Item((), f"Join {left} and {right}", f"{left}{right}", "join")
    words = _words(rng, 2)
    return Item((), f"Join {words[0]} and {words[1]}", " ".join(words), "join")


BASE_TASKS: dict[Task, float] = {
    name: 0.16,
    digit: 0.11,
    silhouette: 0.06,
    colour: 0.05,
    corner: 0.13,
    one_of_two: 0.12,
    copy: 0.06,
    repeat: 0.07,
    nth_word: 0.05,
    same_words: 0.06,
    which_word: 0.05,
    larger: 0.02,
    plus: 0.03,
    join: 0.03,
}
"""What the base model is trained on, with the share of each task."""


def base_item(split: Split, rng: Generator) -> Item:
    """One item of the base model's tasks, by their shares."""
    tasks = list(BASE_TASKS)
    return tasks[rng.choice(len(tasks), p=list(BASE_TASKS.values()))](split, rng)
