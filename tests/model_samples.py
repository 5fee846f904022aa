"""Samples made in memory, for tests of models and of stages that run on them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from adapt_inf.data.samples import Sample


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
        images=tuple(png(seed_of(name, i)) for i in range(n_images)),
        messages=messages,
        skill=skill,
        metric="exact_match",
        answers=(turns[-1][1],),
    )


def seed_of(name: str, i: int) -> int:
    return sum(ord(letter) * 31**k for k, letter in enumerate(name)) % 100_000 + i
