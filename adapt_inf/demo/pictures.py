"""The shipped pictures, and how they are drawn into the 64 x 64 images of the continuum.

A drawing takes a concept's picture at some size, at some place, on some background. Training draws at sizes of its own
and evaluation at others, so no evaluation image is ever equal to a training image; digits and silhouettes are split by
picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt_inf.demo.build_assets import PIXELS, SHEET_COLUMNS
from adapt_inf.demo.sources import ARTISTS, FLAG_ARTISTS

Bytes = NDArray[np.uint8]
Split = Literal["train", "eval"]
Generator = np.random.Generator

TRAIN_ARTISTS = ARTISTS[:-1]
NEW_ARTIST = ARTISTS[-1]
TRAIN_FLAG_ARTISTS = FLAG_ARTISTS[:-1]
NEW_FLAG_ARTIST = FLAG_ARTISTS[-1]

SIZES: dict[Split, tuple[int, ...]] = {"train": (64, 60, 56, 52, 48), "eval": (62, 58, 54, 50)}
"""Edge lengths of one whole picture in an image."""

CELL_SIZES: dict[Split, tuple[int, ...]] = {"train": (32, 30, 28), "eval": (31, 29)}
"""Edge lengths of a picture in one quarter of an image."""

EVERY_FIFTH = 5  # digits and silhouettes whose number divides by this are for evaluation
DIGIT_VALUES = 10

SHAPES = ("circle", "triangle", "square", "star", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (45, 85, 215),
    "yellow": (240, 205, 40),
    "black": (25, 25, 25),
    "orange": (245, 130, 30),
    "purple": (135, 60, 180),
    "brown": (125, 80, 45),
}


@dataclass(frozen=True)
class Assets:
    """Everything in demo/assets, unpacked (about 12 MB)."""

    pictures: dict[str, Bytes]  # artist -> (concepts, 64, 64, 4)
    flags: dict[str, Bytes]  # artist -> (countries, 64, 64, 4)
    digits: Bytes  # (5000, 28, 28)
    digit_values: NDArray[np.int64]  # (5000,)
    silhouettes: Bytes  # (classes, per class, 28, 28)
    shapes: dict[str, Bytes]  # easy-vqa split -> (n, 64, 64, 3)
    shape_questions: dict[str, list[list[Any]]]  # easy-vqa split -> [question, answer, picture]
    index: dict[str, Any]

    @property
    def concepts(self) -> list[str]:
        return self.index["concepts"]

    @property
    def names(self) -> dict[str, list[str]]:
        """Language -> name of each concept, in lower case."""
        return self.index["names"]

    @property
    def countries(self) -> list[tuple[str, str, str]]:
        """(name, capital, continent) of each country, in the order of the flags."""
        return [tuple(facts) for facts in self.index["countries"].values()]


@cache
def load_assets() -> Assets:
    folder = resources.files("adapt_inf") / "demo" / "assets"
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    concepts, countries = len(index["concepts"]), len(index["countries"])
    values = np.array([int(digit) for digit in index["digits"]])
    classes, each = len(index["silhouettes"]), index["silhouettes_per_class"]
    questions = json.loads((folder / "shape_questions.json").read_text(encoding="utf-8"))
    return Assets(
        pictures={artist: _unpack(folder, f"pictures_{artist}", PIXELS)[:concepts] for artist in ARTISTS},
        flags={artist: _unpack(folder, f"flags_{artist}", PIXELS)[:countries] for artist in FLAG_ARTISTS},
        digits=_unpack(folder, "digits", 28)[: len(values), ..., 0],
        digit_values=values,
        silhouettes=_unpack(folder, "silhouettes", 28)[: classes * each, ..., 0].reshape(classes, each, 28, 28),
        shapes={split: _unpack(folder, f"shapes_{split}", PIXELS) for split in questions},
        shape_questions=questions,
        index=index,
    )


def _unpack(folder: Any, name: str, edge: int) -> Bytes:
    """A sheet's pictures, (n, edge, edge, channels); empty places at its end included."""
    with (folder / f"{name}.webp").open("rb") as file:
        whole = np.asarray(Image.open(file))
    rows = whole.shape[0] // edge
    cells = whole.reshape(rows, edge, SHEET_COLUMNS, edge, -1).swapaxes(1, 2)
    return cells.reshape(rows * SHEET_COLUMNS, edge, edge, -1)


# --- drawing ----------------------------------------------------------------------------------------------------------


def background(rng: Generator) -> Bytes:
    """A plain light image, (64, 64, 3)."""
    return np.full((PIXELS, PIXELS, 3), rng.integers(200, 256, 3), np.uint8)


def draw(canvas: Bytes, picture: Bytes, size: int, left: int, top: int) -> None:
    """Put an RGBA `picture` at `size` pixels onto `canvas`, its upper left corner at (left, top)."""
    scaled = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))
    alpha = scaled[..., 3:].astype(np.float32) / 255
    region = canvas[top : top + size, left : left + size]
    region[:] = (scaled[..., :3] * alpha + region * (1 - alpha)).round()


def alone(picture: Bytes, split: Split, rng: Generator) -> Bytes:
    """One RGBA picture in an image, somewhere, at one of the split's sizes."""
    canvas = background(rng)
    size = int(rng.choice(SIZES[split]))
    left, top = rng.integers(0, PIXELS - size + 1, 2)
    draw(canvas, picture, size, int(left), int(top))
    return canvas


def grid(pictures: dict[int, Bytes], split: Split, rng: Generator) -> Bytes:
    """Up to four RGBA pictures in the quarters of an image: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    canvas = background(rng)
    half = PIXELS // 2
    for cell, picture in pictures.items():
        size = int(rng.choice(CELL_SIZES[split]))
        left, top = rng.integers(0, half - size + 1, 2)
        draw(canvas, picture, size, (cell % 2) * half + int(left), (cell // 2) * half + int(top))
    return canvas


def ink(strokes: Bytes, colour: tuple[int, int, int]) -> Bytes:
    """A grey (28, 28) picture, bright where there is ink, as RGBA in `colour`."""
    return np.dstack([np.broadcast_to(np.array(colour, np.uint8), (*strokes.shape, 3)), strokes])


def digit(value: int, split: Split, rng: Generator) -> Bytes:
    """A handwritten digit; evaluation takes digits that training never shows."""
    assets = load_assets()
    numbers = np.flatnonzero(assets.digit_values == value)
    numbers = numbers[(numbers % EVERY_FIFTH == 0) == (split == "eval")]
    return alone(ink(assets.digits[rng.choice(numbers)], (30, 30, 60)), split, rng)


def silhouette(label: int, split: Split, rng: Generator) -> Bytes:
    """The outline of an animal; evaluation takes animals that training never shows."""
    shapes = load_assets().silhouettes[label]
    numbers = np.arange(len(shapes))
    numbers = numbers[(numbers % EVERY_FIFTH == 0) == (split == "eval")]
    return alone(ink(shapes[rng.choice(numbers)], (20, 20, 20)), split, rng)


def concept(number: int, split: Split, rng: Generator, artist: str | None = None) -> Bytes:
    """A concept's picture alone, by one of the training artists unless `artist` is given."""
    return alone(concept_picture(number, rng, artist), split, rng)


def concept_picture(number: int, rng: Generator, artist: str | None = None) -> Bytes:
    """(64, 64, 4) of a concept, by one of the training artists unless `artist` is given."""
    return load_assets().pictures[artist or TRAIN_ARTISTS[rng.integers(len(TRAIN_ARTISTS))]][number]


def flag(number: int, split: Split, rng: Generator, artist: str | None = None) -> Bytes:
    """A country's flag alone, by one of the training artists unless `artist` is given."""
    who = artist or TRAIN_FLAG_ARTISTS[rng.integers(len(TRAIN_FLAG_ARTISTS))]
    return alone(load_assets().flags[who][number], split, rng)


@cache
def plain_shape(shape: str, colour: str) -> Bytes:
    """(64, 64, 4) of one of SHAPES in one of COLOURS, drawn here."""
    y, x = np.mgrid[0:PIXELS, 0:PIXELS] - (PIXELS - 1) / 2
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    edge = PIXELS / 2 - 1
    inside = {
        "circle": radius < edge,
        "ring": (radius < edge) & (radius > edge * 0.55),
        "square": np.maximum(np.abs(x), np.abs(y)) < edge * 0.85,
        "triangle": (y < edge * 0.9) & (np.abs(x) < (y + edge) / 2),
        "cross": (np.minimum(np.abs(x), np.abs(y)) < edge * 0.28) & (np.maximum(np.abs(x), np.abs(y)) < edge),
        "star": radius < edge * (0.62 + 0.36 * np.cos(5 * (angle + np.pi / 2))),
    }[shape]
    return np.dstack([np.broadcast_to(np.array(COLOURS[colour], np.uint8), (*inside.shape, 3)), inside * np.uint8(255)])
