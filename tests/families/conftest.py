"""Every family that loads in this environment, bare and with a trained adapter, and samples that differ in shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from family_models import HERE, Family, save_family
from model_samples import make_sample, png, seed_of
from numpy.typing import NDArray

from adapt_inf.config import Train
from adapt_inf.data.samples import Sample
from adapt_inf.models.importing import import_model
from adapt_inf.models.lora import with_adapter
from adapt_inf.models.training import Trained, train
from adapt_inf.models.vlm import VLM, load_vlm, save_adapter

KNOBS = Train(steps=3, batch_size=4, learning_rate=2e-2, warmup=0, rank=3, alpha=6)


class Listed:
    """Samples in memory, as training takes them."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> list[Sample]:
        return [self._samples[int(i)] for i in indices]


def shaped(name: str, sizes: list[tuple[int, int]], turns: list[tuple[str, str]]) -> Sample:
    """A sample with a picture of each size (width, height)."""
    images = tuple(png(seed_of(name, i), size) for i, size in enumerate(sizes))
    return replace(make_sample(name, len(sizes), turns), images=images)


@pytest.fixture(scope="session", params=HERE, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(scope="session")
def project(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's rounds with the family's model, imported as `init --model` does."""
    folder = tmp_path_factory.mktemp("family")
    source = save_family(family, folder / "source")
    import_model(str(source), folder / "rounds" / "base" / "model")
    return folder


@pytest.fixture(scope="session")
def vlm(project: Path) -> VLM:
    return load_vlm(project / "rounds" / "base" / "model")


@pytest.fixture(scope="session")
def text() -> Sample:
    return shaped("text", [], [("What is two plus three?", "five")])


@pytest.fixture(scope="session")
def samples(family: Family, text: Sample) -> list[Sample]:
    """One picture of three shapes, two pictures, two turns and, where the family takes it, text alone."""
    found = [
        shaped("one", [(40, 36)], [("What colour is the square?", "red")]),
        shaped("wide", [(90, 30)], [("Which is the same?", "the second")]),
        shaped("two", [(40, 36), (30, 90)], [("How many pictures are there?", "two")]),
        shaped("turns", [(36, 40)], [("What colour is it?", "blue"), ("Name the capital.", "yes, left of the square")]),
        shaped("tall", [(30, 70)], [("How many? " * 6, "There are two pictures.")]),
    ]
    return [*found[:2], text, *found[2:]] if family.text_only else found


@pytest.fixture(scope="session")
def trained(project: Path, samples: list[Sample]) -> tuple[VLM, Trained]:
    """The family with an adapter after a few steps, and what they did."""
    vlm = with_adapter(load_vlm(project / "rounds" / "base" / "model"), KNOBS, seed=1)
    work = project / "work"
    work.mkdir()
    return vlm, train(vlm, Listed(samples), KNOBS, 2, work)


@pytest.fixture(scope="session")
def adapted(project: Path, trained: tuple[VLM, Trained]) -> VLM:
    """The trained family as a later round loads it."""
    save_adapter(trained[0], project / "rounds" / "r001" / "model")
    return load_vlm(project / "rounds" / "r001" / "model")
