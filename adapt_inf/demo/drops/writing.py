"""A drawn drop as files, in the forms that datasets are found in: LLaVA JSON and JSONL, chat messages, Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from adapt_inf.demo.drops.plan import Named, Plan
from adapt_inf.demo.pictures import Bytes, Split
from adapt_inf.demo.questions import Item

IMAGES = "images"
SUFFIX = {"llava_json": ".json", "llava_jsonl": ".jsonl", "messages": ".jsonl", "parquet": ".parquet"}
FORMAT = {"llava_json": "llava", "llava_jsonl": "llava", "messages": "messages", "parquet": "parquet"}


def write_drop(plan: Plan, splits: Mapping[Split, Sequence[Named]], out: Path) -> None:
    """Write a drop folder: dataset.yaml, a file a split and, unless the form holds them, images/."""
    out.mkdir(parents=True, exist_ok=True)
    description: dict[str, Any] = {
        "name": plan.name,
        "license": plan.license,
        "description": plan.description,
        "skill": plan.skill,
        "metric": plan.metrics.get(plan.skill, "exact_match"),
    }
    for split, named in splits.items():
        description[split] = split + SUFFIX[plan.form]
        _write_split(plan, named, out, description[split])
    description["format"] = FORMAT[plan.form]
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (out / "dataset.yaml").write_text(text, encoding="utf-8")


def png(image: Bytes) -> bytes:
    """A (height, width, 3) image as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def chat(item: Item) -> list[dict[str, Any]]:
    """An item as chat messages."""
    shown: list[dict[str, str]] = [{"type": "image"} for _ in item.images]
    return [
        {"role": "user", "content": [*shown, {"type": "text", "text": item.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": item.answer}]},
    ]


def _write_split(plan: Plan, named: Sequence[Named], out: Path, file: str) -> None:
    if plan.form == "parquet":
        rows = [_in_parquet(entry) | _judged(plan, entry.item) for entry in named]
        pq.write_table(pa.Table.from_pylist(rows), out / file)
        return
    (out / IMAGES).mkdir(exist_ok=True)
    record = _as_messages if plan.form == "messages" else _as_llava
    rows = [record(entry, _write_images(entry, out)) | _judged(plan, entry.item) for entry in named]
    if file.endswith(".json"):
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / file).write_text(text, encoding="utf-8")


def _judged(plan: Plan, item: Item) -> dict[str, Any]:
    metric = plan.metrics.get(item.skill, "exact_match")
    return {"skill": item.skill, "metric": metric, "answers": [item.answer]}


def _write_images(entry: Named, out: Path) -> list[str]:
    paths = []
    for number, image in enumerate(entry.item.images):
        paths.append(f"{IMAGES}/{entry.id}-{number}.png")
        (out / paths[-1]).write_bytes(png(image))
    return paths


def _as_llava(entry: Named, paths: list[str]) -> dict[str, Any]:
    question = "<image>\n" * len(paths) + entry.item.question
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": entry.item.answer}]
    image = {} if not paths else {"image": paths[0] if len(paths) == 1 else paths}
    return {"id": entry.id, **image, "conversations": turns}


def _as_messages(entry: Named, paths: list[str]) -> dict[str, Any]:
    images = {"images": paths} if paths else {}
    return {"id": entry.id, **images, "messages": chat(entry.item)}


def _in_parquet(entry: Named) -> dict[str, Any]:
    images = [{"bytes": png(image), "path": None} for image in entry.item.images]
    return {"id": entry.id, "images": images, "messages": json.dumps(chat(entry.item), ensure_ascii=False)}
