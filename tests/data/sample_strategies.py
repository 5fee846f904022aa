"""Hypothesis strategies for samples: what may stand in a drop, whatever its format."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from make_drop import png

from adapt_inf.data.samples import METRICS, Sample

# Text as people write it, any script; surrogates and null cannot be stored and the image token means an image.
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
words = st.text(letters, max_size=20).filter(lambda text: "<image>" not in text)
spoken = words.map(str.strip).filter(bool)
pictures = st.integers(0, 2**32 - 1).map(
    lambda seed: png(np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8))
)


@st.composite
def samples(draw: st.DrawFn, number: int = 0) -> Sample:
    """A valid sample with images placed among the texts of its user turns, in the shape that ingest gives it."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": [{"type": "text", "text": draw(spoken)}]})
    n_images = 0
    for _ in range(draw(st.integers(1, 3))):
        parts: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(0, 2))):
            parts.append({"type": "image"})
            n_images += 1
        parts.append({"type": "text", "text": draw(spoken)})
        messages.append({"role": "user", "content": parts})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": draw(spoken)}]})
    answers = draw(st.lists(spoken, min_size=1, max_size=3, unique=True))
    return Sample(
        sample_id=f"drop/{number}",
        images=tuple(draw(pictures) for _ in range(n_images)),
        messages=messages,
        skill=draw(st.sampled_from(["naming", "counting"])),
        metric=draw(st.sampled_from(METRICS)),
        answers=tuple(answers),
    )


@st.composite
def sample_lists(draw: st.DrawFn, max_size: int = 8) -> list[Sample]:
    """Samples with ids of their own."""
    return [draw(samples(number)) for number in range(draw(st.integers(0, max_size)))]
