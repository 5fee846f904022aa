"""Samples that a drop brought and no pool has: which sample a duplicate or a leak repeats.

Ingest keeps why it set a sample aside, and only counts duplicates. Both are looked at again here, in the drop as it
lies in drops/: its ids are given out as ingest gives them out, which reads the drop's text up to the sample that is
meant, and pictures are decoded of that sample and of the suites that have one of its hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adapt_inf.config import load_params
from adapt_inf.data.drops import read_drop
from adapt_inf.data.formats import read_split
from adapt_inf.data.images import decode_image, pixel_hash
from adapt_inf.data.intake import SUITE, SUITES, Checked, check_sample, unique_id
from adapt_inf.data.samples import Sample, content_hash
from adapt_inf.data.shards import read_shard
from adapt_inf.errors import DropError
from adapt_inf.files import read_json
from adapt_inf.project import Project


@dataclass(frozen=True)
class Brought:
    """A sample in its drop: its split, the file and place in it, the hashes by which it may repeat another."""

    split: str
    file: str
    content: str | None
    images: tuple[str, ...]


def look_up(project: Project, round_id: str, sample_id: str) -> Brought | None:
    """The sample as the drop of `round_id` has it; None where the drop is gone, or has no such sample.

    Without hashes where a picture of it does not decode.
    """
    params = load_params(project.params_of(round_id))
    if not sample_id.startswith(f"{params.drop}/") or not project.drop(params.drop).is_dir():
        return None
    taken: dict[str, int] = {}
    try:
        drop = read_drop(project.drop(params.drop), params.drop)
        for split in ("eval", "train"):
            for item in read_split(drop, split):
                if unique_id(drop.name, item.id, taken) != sample_id:
                    continue
                checked = check_sample(item, params.ingest.max_pixels)
                if isinstance(checked, Checked):
                    return Brought(split, item.file, checked.content, tuple(checked.image_hashes))
                return Brought(split, item.file, None, ())
    except DropError:  # the folder was changed since its round read it
        return None
    return None


def said_before(manifest: pd.DataFrame, sample: Brought) -> str | None:
    """The sample of a pool that is the same as `sample`."""
    return _first_id(manifest, manifest["content_hash"] == sample.content)


def shown_before(manifest: pd.DataFrame, sample: Brought) -> str | None:
    """The sample of a pool that shows a picture of `sample`, or is the same."""
    shown = [not set(sample.images).isdisjoint(hashes) for hashes in manifest["image_hashes"]]
    return _first_id(manifest, pd.Series(shown, manifest.index, dtype=bool)) or said_before(manifest, sample)


def _first_id(manifest: pd.DataFrame, rows: pd.Series) -> str | None:
    return str(manifest.loc[rows, "sample_id"].iloc[0]) if rows.any() else None


def suite_sample(project: Project, round_id: str, parent: str, sample: Brought, max_pixels: int) -> str | None:
    """The evaluation sample, of the round's own suite or its parent's, that `sample` repeats."""
    ingest, suites = project.output(round_id, "ingest"), project.output(parent, "pool") / SUITES
    for path in (ingest / SUITE, *sorted(suites.glob("*.parquet"))):
        hashes = ingest / "suite_hashes.json" if path.name == SUITE else path.with_suffix(".json")
        if not hashes.is_file() or not path.is_file():
            continue
        known = read_json(hashes)
        if sample.content in known["content"]:
            return _first(path, lambda found: found[0] == sample.content, max_pixels)
        if not set(sample.images).isdisjoint(known["images"]):
            return _first(path, lambda found: not set(sample.images).isdisjoint(found[1]), max_pixels)
    return None


def _first(suite: Path, fits: Callable[[tuple[str, Sequence[str]]], bool], max_pixels: int) -> str | None:
    return next((each.sample_id for each in read_shard(suite) if fits(_hashes(each, max_pixels))), None)


def _hashes(sample: Sample, max_pixels: int) -> tuple[str, list[str]]:
    images = [pixel_hash(decode_image(data, max_pixels)) for data in sample.images]
    return content_hash(sample.messages, images), images
