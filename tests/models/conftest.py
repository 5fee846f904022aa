"""Samples and a loaded model for the tests of adapt_inf.models."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_samples import make_sample

from adapt_inf.data.samples import Sample
from adapt_inf.models.vlm import VLM, load_vlm


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
