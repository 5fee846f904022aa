"""A round whose candidates are ready: for the tests of the stages that pass over them.

Written by the data package's own writers, without its ingest stage, so that a fault there shows there. The parent's
pool has a tombstone, and its rows do not stand in the order of their shard.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from make_drop import draw_items

from adapt_inf.config import load_params
from adapt_inf.data.manifest import MANIFEST, SHARDS, manifest_frame, write_manifest
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import write_shard
from adapt_inf.project import Project
from adapt_inf.stages.context import StageContext

ROUND = "r001"


def make_round(root: Path, model: Path, old: int = 13, new: int = 20, **params: Any) -> StageContext:
    """A project at `root` with `model` as its base and a round whose pool and ingest are there.

    Args:
        old: samples in the parent's pool, one more of which is a tombstone.
        new: accepted samples of the round's drop.
        params: sections of params.yaml to change, e.g. sketch={"shard_samples": 4}.
    """
    shutil.copytree(model, root / "rounds" / "base" / "model")
    _fill(root / "rounds" / "base" / "pool", "old", old + 1, tombstone=min(3, old))
    _fill(root / "rounds" / ROUND / "ingest", "new", new, tombstone=None)
    values = {"round": ROUND, "parent": "base", "drop": "new", "seed": 5, **params}
    for folder in (root, root / "rounds" / ROUND):
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return context(root)


def context(root: Path) -> StageContext:
    project = Project(root)
    return StageContext(project, ROUND, load_params(project.params_of(ROUND)))


def _fill(folder: Path, name: str, count: int, tombstone: int | None) -> None:
    samples = []
    for item in draw_items(name, "train", count, 0):
        parts = [{"type": "image"}] * len(item.pictures) + [{"type": "text", "text": item.question}]
        answer = [{"type": "text", "text": item.answer}]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
        samples.append(
            Sample(f"{name}/{item.name}", tuple(item.pictures), messages, item.skill, "exact_match", (item.answer,))
        )
    shard = f"{name}-00000.parquet"
    write_shard(folder / SHARDS / shard, samples)
    rows = [
        {
            "sample_id": sample.sample_id,
            "drop": name,
            "skill": sample.skill,
            "round": "base" if tombstone is not None else ROUND,
            "shard": shard,
            "row": row,
            "n_images": len(sample.images),
            "content_hash": f"{row:032x}",
            "image_hashes": [],
            "live": row != tombstone,
        }
        for row, sample in enumerate(samples)
    ]
    write_manifest(folder / MANIFEST, manifest_frame(rows[::-1] if tombstone is not None else rows))
