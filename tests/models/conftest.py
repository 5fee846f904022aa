"""Samples and a loaded model for the tests of adapt_inf.models."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt_inf.data.samples import Sample
from adapt_inf.models.vlm import VLM, load_vlm


def png(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_sample(name: str, n_images: int, turns: list[tuple[str, str]], skill: str = "colour") -> Sample:
    """A chat of (question, answer) turns; its images come first in the first question."""
    messages = []
    for i, (question, answer) in enumerate(turns):
        parts = [{"type": "image"}] * (n_images if i == 0 else 0) + [{"type": "text", "text": question}]
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return Sample(
        sample_id=f"drop/{name}",
        images=tuple(png(hash_of(name, i)) for i in range(n_images)),
        messages=messages,
        skill=skill,
        metric="exact_match",
        answers=(turns[-1][1],),
    )


def hash_of(name: str, i: int) -> int:
    return sum(ord(letter) * 31**k for k, letter in enumerate(name)) % 100_000 + i


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """One image, two images, text only, many turns, of different lengths."""
    return [
        make_sample("one", 1, [("What colour is the square?", "red")]),
        make_sample("two", 2, [("Which is the same?", "the second")]),
        make_sample("text", 0, [("What is two plus three?", "five")]),
        make_sample("turns", 1, [("What colour is it?", "blue"), ("Name the capital.", "yes, left of the square")]),
        make_sample("long", 1, [("How many pictures are there? " * 4, "There are two pictures.")]),
    ]


@pytest.fixture(scope="session")
def vlm(miniature_model: Path) -> VLM:
    return load_vlm(miniature_model)
