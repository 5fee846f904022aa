"""Take a drop in: look at every sample once, keep the good ones as shards, and say of every other one why not.

The drop is read as a stream. In memory are the pictures of some hundred samples, the hashes of what is known, and the
manifest's rows (some 700 bytes each); the pictures' bytes go on as they came. Pictures are decoded by a thread a core
(Pillow lets go of the interpreter while it decodes), in order: the number of threads does not show in the result.

Evaluation comes first: a training sample that shows a picture of any suite of the lineage, or says word for word what a
text-only sample of a suite says, is a leak and set aside; so is an evaluation sample whose picture or text any sample
that was ever in the pool has. After each whole shard the state is written beside it, so a killed run goes on there.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf.config import Ingest
from adapt_inf.data.drops import Drop
from adapt_inf.data.formats import RawSample, Reject, count_split, read_split
from adapt_inf.data.images import decode_image, pixel_hash
from adapt_inf.data.manifest import MANIFEST, SHARDS, manifest_frame, read_pool, write_manifest
from adapt_inf.data.samples import BadSample, Sample, content_hash
from adapt_inf.data.shards import ShardWriter, write_shard
from adapt_inf.errors import DropError
from adapt_inf.files import read_json, remove_folder, write_json, write_whole
from adapt_inf.progress import progress

SUITE = "suite.parquet"
SUITE_HASHES = "suite_hashes.json"
SUITES = "suites"
REPORT = "report.json"
REJECTS = "rejects.parquet"
_STATE = ".state"  # inside the output while it is unfinished

_TOGETHER = 64  # samples whose pictures are decoded at the same time
_REASONS = 10  # shown where a drop is refused, and in report.json
_REJECT_SCHEMA = pa.schema([(name, pa.string()) for name in ("split", "sample_id", "file", "reason", "kind")])


@dataclass
class Known:
    """Hashes of what a lineage holds already: what a new sample may not repeat.

    Attributes:
        live: content of live samples of the pool; equal training samples are duplicates.
        content, images: of every sample that ever was in the pool; an evaluation sample may not have them.
        suite_content, suite_images: of the evaluation suites; a training sample may not have them.
        drops: names of the drops that the pool and its suites came from.
    """

    live: set[str] = field(default_factory=set)
    content: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    suite_content: set[str] = field(default_factory=set)
    suite_images: set[str] = field(default_factory=set)
    drops: set[str] = field(default_factory=set)

    @classmethod
    def of_pool(cls, pool: Path) -> Known:
        """What a pool version holds, tombstones and suites included."""
        rows = read_pool(pool)
        known = cls(
            live=set(rows.loc[rows["live"], "content_hash"]),
            content=set(rows["content_hash"]),
            images={digest for hashes in rows["image_hashes"] for digest in hashes},
            drops=set(rows["drop"]),
        )
        for file in sorted((pool / SUITES).glob("*.json")):
            known.add_suite(read_json(file))
            known.drops.add(file.stem)
        return known

    def add_suite(self, hashes: dict[str, list[str]]) -> None:
        """Add a suite's hashes as in suite_hashes.json."""
        self.suite_content.update(hashes["content"])
        self.suite_images.update(hashes["images"])


@dataclass
class _Part:
    """What became of a run of records: those of one shard, or those after a split's last shard. JSON-able."""

    read: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    duplicates: int = 0


@dataclass(frozen=True)
class Checked:
    """A sample whose pictures decode, with their hashes."""

    raw: RawSample
    images: tuple[bytes, ...]
    image_hashes: list[str]
    content: str


def take_in(
    drop: Drop, known: Known, out: Path, params: Ingest, round_id: str, content: str | None = None
) -> dict[str, Any]:
    """Fill `out` with the accepted samples of `drop` and return report.json's content.

    Args:
        drop: as read by `read_drop`.
        known: what the lineage holds; the drop's own suite is added to it.
        out: a folder, empty or left by a killed run with the same inputs. Gets manifest.parquet, shards/,
            suite.parquet, suite_hashes.json, rejects.parquet and report.json.
        round_id: the round that brings the samples, for the manifest.
        content: the drop's digest, for the report.

    Raises:
        DropError: the drop's name is taken, a file of it cannot be read, too many samples are bad, or no training
            sample is good; with the first ten reasons. `out` is then gone.
    """
    try:
        return _take_in(drop, known, out, params, round_id, content)
    except DropError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _take_in(drop: Drop, known: Known, out: Path, params: Ingest, round_id: str, content: str | None) -> dict[str, Any]:
    if drop.name in known.drops:
        raise DropError(drop.name, "a drop of this name is in the pool already", "Give it another `name`.")
    taken: dict[str, int] = {}
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of sizes under its own limit; `max_pixels` is the limit here.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        suite = _take_split(drop, "eval", known, out, params, taken)
        hashes = {
            "content": sorted(row["content_hash"] for row in suite.rows),
            "images": sorted({digest for row in suite.rows for digest in row["image_hashes"]}),
        }
        known.add_suite(hashes)
        train = _take_split(drop, "train", known, out, params, taken)
    rejects = suite.rejects + train.rejects
    _refuse_bad(drop, rejects, suite.read + train.read, len(train.rows), params.max_reject_fraction)
    if not suite.rows:
        write_shard(out / SUITE, [])
    write_json(out / SUITE_HASHES, hashes)
    frame = manifest_frame([{**row, "drop": drop.name, "round": round_id} for row in train.rows])
    write_manifest(out / MANIFEST, frame)
    table = pa.Table.from_pylist(rejects, schema=_REJECT_SCHEMA)
    write_whole(out / REJECTS, lambda part: pq.write_table(table, part, compression="zstd"))
    kinds = Counter(reject["kind"] for reject in rejects)
    report = {
        "drop": drop.name,
        "content": content,
        "license": drop.license,
        "description": drop.description,
        "read": suite.read + train.read,
        "train": len(train.rows),
        "eval": len(suite.rows),
        "rejected": len(rejects),
        "rejected_by_kind": dict(sorted(kinds.items())),
        "leaks": kinds["leak"],
        "duplicates": {"train": train.duplicates, "eval": suite.duplicates},
        "untested_skills": sorted({row["skill"] for row in train.rows} - {row["skill"] for row in suite.rows}),
        "reasons": _reasons(rejects),
    }
    write_json(out / REPORT, report)
    remove_folder(out / _STATE)
    return report


def _take_split(drop: Drop, split: str, known: Known, out: Path, params: Ingest, taken: dict[str, int]) -> _Part:
    """Write the accepted samples of a split as shards, going on after the last one that an earlier run finished."""
    parts = _finished_parts(out, split)
    done = sum(part.read for part in parts)
    seen = {row["content_hash"] for part in parts for row in part.rows} | (known.live if split == "train" else set())
    leak = _leak_into_suite if split == "eval" else _leak_from_suite
    part, shard = _Part(), None
    if not (total := count_split(drop, split)):
        return part
    try:
        with progress(f"ingest {split}", total, done=done) as bar:
            for sample_id, item in _checked(drop, split, params.max_pixels, taken, done):
                bar.update(1)
                part.read += 1
                if isinstance(item, Checked) and (reason := leak(item, known)):
                    item = Reject(item.raw.id, item.raw.file, reason, "leak")
                if isinstance(item, Reject):
                    part.rejects.append(_reject_row(split, sample_id, item))
                    continue
                if item.content in seen:
                    part.duplicates += 1
                    continue
                seen.add(item.content)
                if shard is None:
                    shard = ShardWriter(_shard_path(out, drop, split, len(parts)))
                part.rows.append(_write(shard, sample_id, item))
                if split == "train" and shard.rows == params.shard_samples:
                    shard.close()
                    parts.append(_finish_part(out, split, len(parts), part))
                    part, shard = _Part(), None
        if shard is not None:
            shard.close()
            shard = None
    finally:
        if shard is not None:
            shard.abandon()
    parts.append(_finish_part(out, split, len(parts), part))
    return _Part(
        read=sum(part.read for part in parts),
        rows=[row for part in parts for row in part.rows],
        rejects=[row for part in parts for row in part.rejects],
        duplicates=sum(part.duplicates for part in parts),
    )


def _shard_path(out: Path, drop: Drop, split: str, number: int) -> Path:
    return out / SUITE if split == "eval" else out / SHARDS / f"{drop.name}-{number:05d}.parquet"


def _finished_parts(out: Path, split: str) -> list[_Part]:
    files = sorted((out / _STATE).glob(f"{split}-*.json"))
    return [_Part(**read_json(file)) for file in files]


def _finish_part(out: Path, split: str, number: int, part: _Part) -> _Part:
    write_json(out / _STATE / f"{split}-{number:05d}.json", vars(part))
    return part


def _checked(
    drop: Drop, split: str, max_pixels: int, taken: dict[str, int], start: int
) -> Iterator[tuple[str, Checked | Reject]]:
    """Yield (sample id, outcome) of the records from number `start` on; earlier ones only give out their ids again."""
    items = ((unique_id(drop.name, item.id, taken), item) for item in read_split(drop, split))
    for _ in islice(items, start):
        pass
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        while together := list(islice(items, _TOGETHER)):
            outcomes = threads.map(lambda pair: check_sample(pair[1], max_pixels), together)
            yield from zip((sample_id for sample_id, _ in together), outcomes, strict=True)


def unique_id(drop: str, own: str, taken: dict[str, int]) -> str:
    """ "<drop>/<id>"; an id that came before gets `~2`, `~3`, ... ."""
    name = own
    while name in taken:
        taken[own] += 1
        name = f"{own}~{taken[own]}"
    taken[name] = 1
    return f"{drop}/{name}"


def check_sample(item: RawSample | Reject, max_pixels: int) -> Checked | Reject:
    if isinstance(item, Reject):
        return item
    try:
        images = tuple(_load(image, max_pixels) for image in item.images)
        hashes = [pixel_hash(decode_image(data, max_pixels)) for data in images]
    except BadSample as error:
        return Reject(item.id, item.file, error.reason, error.kind)
    return Checked(item, images, hashes, content_hash(item.messages, hashes))


def _load(image: bytes | Path, max_pixels: int) -> bytes:
    """An image's bytes. No honest encoding is much larger than its raw pixels, so a larger file is not read at all."""
    size = len(image) if isinstance(image, bytes) else image.stat().st_size
    if size > 8 * max_pixels + (1 << 20):
        raise BadSample("pixels", f"the image takes {size} bytes, too many for {max_pixels} pixels")
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        raise BadSample("missing_image", f"{image.name!r} cannot be read ({error.strerror})") from None


def _leak_into_suite(item: Checked, known: Known) -> str | None:
    if not known.images.isdisjoint(item.image_hashes):
        return "an image of this evaluation sample has been in the pool"
    return "this evaluation sample has been in the pool" if item.content in known.content else None


def _leak_from_suite(item: Checked, known: Known) -> str | None:
    if not known.suite_images.isdisjoint(item.image_hashes):
        return "an image of this training sample is in an evaluation suite"
    return "this training sample is in an evaluation suite" if item.content in known.suite_content else None


def _write(shard: ShardWriter, sample_id: str, item: Checked) -> dict[str, Any]:
    raw = item.raw
    row = shard.add(Sample(sample_id, item.images, raw.messages, raw.skill, raw.metric, raw.answers))
    return {
        "sample_id": sample_id,
        "skill": raw.skill,
        "shard": shard.path.name,
        "row": row,
        "n_images": len(item.images),
        "content_hash": item.content,
        "image_hashes": item.image_hashes,
    }


def _reject_row(split: str, sample_id: str, reject: Reject) -> dict[str, str]:
    return {
        "split": split,
        "sample_id": sample_id,
        "file": reject.file,
        "reason": reject.reason,
        "kind": reject.kind,
    }


def _reasons(rejects: list[dict[str, str]]) -> list[str]:
    return [f"{row['sample_id']} ({row['file']}): {row['reason']}" for row in rejects[:_REASONS]]


def _refuse_bad(drop: Drop, rejects: list[dict[str, str]], read: int, good: int, most: float) -> None:
    listed = "".join(f"\n  {reason}" for reason in _reasons(rejects))
    mend = f"The first reasons:{listed}" if rejects else "Every training sample is in the pool already."
    if rejects and len(rejects) > most * read:
        problem = f"{len(rejects)} of {read} samples are bad, more than `ingest.max_reject_fraction` ({most:g}) allows"
        raise DropError(drop.name, problem, mend)
    if not good:
        raise DropError(drop.name, "no training sample is good", mend)
