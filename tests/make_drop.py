"""A small drop of coloured squares in each of the formats that drops come in: for tests that need real data on disk.

Three skills: `colour` (one picture, 5 in 8 samples), `same` (two pictures, 2 in 8) and `order` (text only, 1 in 8). No
two pictures are equal and no two text-only questions, across splits and names, so a drop as made here ingests without
a reject, a duplicate or a leak.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

FORMS = ("llava", "llava_jsonl", "messages", "messages_parquet", "parquet")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 60),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
PIXELS = 32


@dataclass(frozen=True)
class Item:
    """One question as drawn, before it takes a format."""

    name: str
    pictures: list[bytes]
    question: str
    answer: str
    skill: str


def make_drop(folder: Path, name: str, train: int = 40, eval: int = 12, seed: int = 0, form: str = "llava") -> Path:
    """Write a drop called `name` into `folder` (made when missing) and return the folder.

    Args:
        train: samples of the training split.
        eval: samples of the evaluation split; 0: the drop has none.
        form: `llava` (one JSON list), `llava_jsonl`, `messages` (JSONL with image paths), `messages_parquet`
            (messages as lists, images as {"bytes", "path"}) or `parquet` (LLaVA conversations as JSON, image bytes).
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta: dict[str, Any] = {
        "name": name,
        "license": "CC0-1.0",
        "description": f"Coloured squares, set {name}.",
        "skill": "colour",
    }
    for split, count in (("train", train), ("eval", eval)):
        if split == "train" or count:
            meta[split] = write_split(folder, split, list(draw_items(name, split, count, seed)), form)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(meta, sort_keys=False), encoding="utf-8")
    return folder


def draw_items(name: str, split: str, count: int, seed: int) -> Iterator[Item]:
    """Yield `count` questions, the same for the same arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{name}/{split}".encode())])
    words = list(COLOURS)
    for i in range(count):
        first, second, third = (words[j] for j in rng.permutation(len(words))[:3])
        if i % 8 in (2, 6):
            other = first if i % 8 == 2 else second
            pictures = [square(first, rng), square(other, rng)]
            item = Item(
                f"{split}-{i:04d}", pictures, "Is it the same colour?", "yes" if other == first else "no", "same"
            )
        elif i % 8 == 4:
            question = f"Which is second in {name} {split} {i}? {first}, {second}, {third}."
            item = Item(f"{split}-{i:04d}", [], question, second, "order")
        else:
            item = Item(f"{split}-{i:04d}", [square(first, rng)], "What colour is the square?", first, "colour")
        yield item


def square(colour: str, rng: np.random.Generator) -> bytes:
    """A PNG of a square in `colour` on grey noise: no two are equal."""
    pixels = rng.integers(96, 160, size=(PIXELS, PIXELS, 3), dtype=np.uint8)
    size = int(rng.integers(12, 24))
    top, left = (int(v) for v in rng.integers(0, PIXELS - size, size=2))
    pixels[top : top + size, left : left + size] = COLOURS[colour]
    return png(pixels)


def png(pixels: np.ndarray) -> bytes:
    """Encode (height, width, 3) uint8 pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_split(folder: Path, split: str, items: list[Item], form: str) -> str:
    """Write a split in `form`, with its pictures where the format wants files, and return the split file's name."""
    if form in ("messages_parquet", "parquet"):
        rows = [_messages_row(item) if form == "messages_parquet" else _conversation_row(item) for item in items]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
        return f"{split}.parquet"
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for item in items:
        paths = [f"images/{item.name}-{k}.png" for k in range(len(item.pictures))]
        for path, data in zip(paths, item.pictures, strict=True):
            (folder / path).write_bytes(data)
        rows.append(_messages(item, paths) if form == "messages" else _llava(item, paths))
    if form == "llava":
        (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        return f"{split}.json"
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"{split}.jsonl"


def _conversations(item: Item) -> list[dict[str, str]]:
    return [
        {"from": "human", "value": "<image>\n" * len(item.pictures) + item.question},
        {"from": "gpt", "value": item.answer},
    ]


def _llava(item: Item, paths: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.name, "conversations": _conversations(item), "skill": item.skill}
    if paths:
        row["image"] = paths[0] if len(paths) == 1 else paths
    return row


def _message_list(item: Item) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = [{"type": "image", "text": None} for _ in item.pictures]
    return [
        {"role": "user", "content": [*pictures, {"type": "text", "text": item.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": item.answer}]},
    ]


def _messages(item: Item, paths: list[str]) -> dict[str, Any]:
    return {"id": item.name, "images": paths, "messages": _message_list(item), "skill": item.skill}


def _messages_row(item: Item) -> dict[str, Any]:
    pictures = [{"bytes": data, "path": None} for data in item.pictures]
    return {"id": item.name, "images": pictures, "messages": _message_list(item), "skill": item.skill}


def _conversation_row(item: Item) -> dict[str, Any]:
    conversations = json.dumps(_conversations(item))
    return {"id": item.name, "images": item.pictures, "conversations": conversations, "skill": item.skill}
