"""What a drop consists of, and how its two splits are drawn.

A plan says how many items of each task go into each split. Real pools repeat themselves, so a share of every training
split is an earlier item again with its pictures moved by a pixel and lit a little differently; text alone comes back in
other words. Drawing costs about 0.3 ms an item.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from adapt_inf.demo.pictures import Bytes, Generator, Split
from adapt_inf.demo.questions import Item, Task

TRIES = 10_000  # draws in a row that repeat something, after which a task is known to be exhausted
SKEW, FLAT = 0.7, 5  # the n-th most frequent thing of a pool comes up in proportion to (n + FLAT) ** -SKEW
LIGHTER = 8  # largest change of brightness in a repeated picture, of 255


@dataclass(frozen=True)
class Plan:
    """A drop before it is drawn.

    Attributes:
        skill: the main skill, which dataset.yaml names as the default.
        form: of the files: `llava_json`, `llava_jsonl`, `messages` or `parquet`.
        train, evaluation: task -> number of items.
        metrics: skill -> metric, where it is not exact match.
        repeats: share of the training items with pictures that are near-duplicates of others.
    """

    name: str
    description: str
    license: str
    skill: str
    form: str
    train: Mapping[Task, int]
    evaluation: Mapping[Task, int]
    metrics: Mapping[str, str] = field(default_factory=dict)
    repeats: float = 0.3


@dataclass(frozen=True)
class Named:
    """An item with its id; near-duplicates carry the id of what they repeat, then `-again` and a number."""

    id: str
    item: Item


def draw(plan: Plan, seed: int) -> dict[Split, list[Named]]:
    """Both splits of a plan; within one and between both no item is there twice.

    Raises:
        ValueError: a task has fewer different items than the plan asks for.
    """
    seen: set[tuple[bytes, ...]] = set()
    return {split: _draw_split(plan, split, seed, seen) for split in ("eval", "train")}


def _draw_split(plan: Plan, split: Split, seed: int, seen: set[tuple[bytes, ...]]) -> list[Named]:
    rng = np.random.default_rng([seed, zlib.crc32(f"{plan.name}/{split}".encode())])
    drawn: list[Named] = []
    for task, count in (plan.train if split == "train" else plan.evaluation).items():
        originals: list[Named] = []
        while len(originals) < count:
            number = len(originals)
            if split == "train" and number and number >= round(count * (1 - plan.repeats)) and originals[0].item.images:
                break
            originals.append(Named(f"{split}-{task.__name__}-{number:04d}", _new_item(task, split, rng, seen)))
        again: list[Named] = []
        while len(originals) + len(again) < count:
            source = originals[rng.integers(len(originals))]
            item = replace(source.item, images=tuple(nudged(image, rng) for image in source.item.images))
            again.append(Named(f"{source.id}-again{len(again)}", item))
        drawn += originals + again
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _new_item(task: Task, split: Split, rng: Generator, seen: set[tuple[bytes, ...]]) -> Item:
    for _ in range(TRIES):
        item = task(split, rng)
        key = (item.question.encode(), *(image.tobytes() for image in item.images))
        if key not in seen:
            seen.add(key)
            return item
    raise ValueError(f"{task.__name__}: no new item for {split} in {TRIES} draws")


def frequent(things: int, split: Split, rng: Generator) -> int:
    """A number below `things`: in training the first ones come up more often, in evaluation all equally."""
    if split == "eval":
        return int(rng.integers(things))
    weights = (np.arange(things) + FLAT) ** -SKEW
    return int(rng.choice(things, p=weights / weights.sum()))


def nudged(image: Bytes, rng: Generator) -> Bytes:
    """The image moved by at most a pixel each way, its border stretched, and a little lighter or darker."""
    down, right = rng.integers(0, 3, 2)
    height, width = image.shape[:2]
    moved = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")[down : down + height, right : right + width]
    light = int(rng.integers(1, LIGHTER + 1)) * (1 if rng.random() < 0.5 else -1)
    return np.clip(moved.astype(np.int16) + light, 0, 255).astype(np.uint8)
