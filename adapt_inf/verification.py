"""Check a round against what it recorded: every byte of its pool, model and evaluation, and every hash in its manifest.

Files are hashed anew; DVC's own memory of hashes goes by times and sizes and would not see a flipped bit. A file that
several pool versions share is one file on disk: it is read and its samples are looked at once, whatever the number of
rounds. In memory are 16 bytes for each sample of the shards seen, and one manifest's plain columns.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf import lineage
from adapt_inf.data.images import decode_image, pixel_hash
from adapt_inf.data.intake import SUITES
from adapt_inf.data.manifest import MANIFEST, SHARDS, read_image_hashes, read_manifest
from adapt_inf.data.pool import POOL
from adapt_inf.data.samples import BadSample, Sample, content_hash
from adapt_inf.data.shards import ROW_GROUP, SampleStore
from adapt_inf.errors import RoundError
from adapt_inf.files import read_json
from adapt_inf.project import BASE, PROXY, Project
from adapt_inf.stages.runner import OUTPUTS
from adapt_inf.storage import Cache, Record, md5_of, records

LASTING = ("pool", "model", "evaluate")
"""What a round must keep to be built on, evaluated and rolled back to."""

_DIGEST = 16  # bytes for a sample
_NO_RECORD = "DVC has no record of it"
_NO_LIMIT = 1 << 62  # pixels: the limit was applied when the sample came in


@dataclass(frozen=True)
class Fault:
    """A file that is not what it was, and the hash that DVC knows it by, where it has one."""

    file: str
    problem: str
    md5: str | None = None


@dataclass
class Verdict:
    """What there was to check of a round, and what is wrong with it."""

    round: str
    files: int = 0
    bytes: int = 0
    samples: int = 0
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"round": self.round, "ok": not self.faults, **asdict(self)} | {
            "faults": [{"file": fault.file, "problem": fault.problem} for fault in self.faults]
        }


def rounds_here(project: Project) -> list[str]:
    """base and the finished rounds that ran on this machine or were pulled to it, oldest first."""
    finished = [record.round for record in lineage.rounds(project) if record.status == "finished"]
    return [BASE, *(each for each in finished if project.log(each).is_dir() or project.output(each, "pool").exists())]


class Verifier:
    """Checks rounds of a project one after the other; what they share is read once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cache = Cache.of(project)
        self._records = records(project)
        self._hashes: dict[tuple[int, int], str] = {}
        self._shards: dict[tuple[int, int], bytes] = {}
        self._suites: dict[tuple[int, int], dict[str, list[str]]] = {}

    def check(self, round_id: str) -> Verdict:
        """Check the pool, model and evaluation of a round.

        Raises:
            RoundError: there is no such round, or it is not finished.
        """
        if round_id != BASE and lineage.read_round(self._project, round_id).status != "finished":
            raise RoundError(round_id, "it is not finished", "`adapt-inf round` goes on with it.")
        verdict = Verdict(round_id)
        also = (PROXY,) if f"rounds/{round_id}/{PROXY}" in self._records else ()
        for name in (*LASTING, *also):
            record = self._records.get(f"rounds/{round_id}/{name}")
            if record is None:
                verdict.faults.append(Fault(f"rounds/{round_id}/{name}", _NO_RECORD))
            elif round_id != BASE or self._was_here(record):  # who pulled a round has base's model without its pool
                self._check_files(record, verdict)
        if not verdict.faults and self._project.output(round_id, "pool").is_dir():
            self._check_pool(self._project.output(round_id, "pool"), verdict)
        return verdict

    # --- files --------------------------------------------------------------------------------------------------------

    def _was_here(self, record: Record) -> bool:
        return (self._project.root / record.path).exists() or self._cache.object(record.md5).exists()

    def _check_files(self, record: Record, verdict: Verdict) -> None:
        """Hash every file of an output, and its twin in the cache where that is another file."""
        folder = self._project.root / record.path
        if not folder.is_dir():
            verdict.faults.append(Fault(record.path, "is not there"))
            return
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        found = {name: self._hash(path) for name, path in files.items()}
        verdict.files += len(files)
        verdict.bytes += sum(path.stat().st_size for path in files.values())
        wanted = self._cache.listing(record.md5)
        if wanted is None:
            self._check_without_listing(record, found, verdict)
            return
        for name in sorted({*wanted, *found}):
            place, md5 = f"{record.path}/{name}", wanted.get(name)
            if md5 is None:
                verdict.faults.append(Fault(place, "is no part of what the round left"))
            elif name not in found:
                verdict.faults.append(Fault(place, "is not there"))
            elif found[name] != md5:
                verdict.faults.append(Fault(place, f"has other content than the round left (md5 {found[name]})", md5))
            elif (twin := self._cache.object(md5)).is_file() and self._hash(twin) != md5:
                problem = f"DVC's copy of {place} has other content"
                verdict.faults.append(Fault(os.path.relpath(twin, self._project.root), problem, md5))

    def _check_without_listing(self, record: Record, found: dict[str, str], verdict: Verdict) -> None:
        """Without DVC's list of a folder's files only the whole can be compared."""
        if (listing := self._cache.object(record.md5)).exists():
            problem = f"DVC's list of the files in {record.path} is broken"
            verdict.faults.append(Fault(os.path.relpath(listing, self._project.root), problem, record.md5))
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        tree = Tree()
        for name, md5 in found.items():
            tree.add(tuple(name.split("/")), None, HashInfo("md5", md5))
        tree.digest()
        if tree.hash_info.value != record.md5:
            problem = "has other content than the round left; which file is unknown, DVC's list of them is gone"
            verdict.faults.append(Fault(record.path, problem, record.md5))

    def _hash(self, path: Path) -> str:
        key = _identity(path)
        if key not in self._hashes:
            self._hashes[key] = md5_of(path)
        return self._hashes[key]

    # --- samples ------------------------------------------------------------------------------------------------------

    def _check_pool(self, pool: Path, verdict: Verdict) -> None:
        """Hold the manifest against the shards, sample by sample, and the suites against their hashes."""
        frame = read_manifest(
            pool / MANIFEST, ["sample_id", "skill", "shard", "row", "n_images", "content_hash", "live"]
        )
        verdict.samples = len(frame)
        where = self._project.root

        def fault(path: Path, problem: str) -> None:
            verdict.faults.append(Fault(str(path.relative_to(where)), problem))

        twice = frame["sample_id"].duplicated()
        if twice.any():
            fault(pool / MANIFEST, f"names {frame.loc[twice, 'sample_id'].iloc[0]} twice")
        if (lost := frame["live"] & frame["shard"].isna()).any():
            fault(pool / MANIFEST, f"says that {frame.loc[lost, 'sample_id'].iloc[0]} is live, but in no shard")
        counts = read_json(pool / POOL)
        if (counts["live"], counts["tombstones"]) != (int(frame["live"].sum()), int((~frame["live"]).sum())):
            fault(pool / POOL, "counts other samples than the manifest has")
        named = set(frame["shard"].dropna())
        for path in sorted((pool / SHARDS).iterdir()):
            if path.name not in named:
                fault(path, "is in no row of the manifest")
        hashes = read_image_hashes(pool / MANIFEST)
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; the pixels are what counts
            for shard, rows in frame.groupby("shard", sort=True):
                path = pool / SHARDS / str(shard)
                if not path.is_file():
                    fault(path, "is not there")
                elif problem := self._check_shard(path, rows.sort_values("row"), hashes, threads):
                    fault(path, problem)
            for path in sorted((pool / SUITES).glob("*.parquet")):
                verdict.samples += pq.read_metadata(path).num_rows
                if self._suite(path, threads) != read_json(path.with_suffix(".json")):
                    fault(path, "holds other samples than the hashes beside it say")

    def _check_shard(
        self, path: Path, rows: pd.DataFrame, image_hashes: pa.ChunkedArray, threads: ThreadPoolExecutor
    ) -> str | None:
        """What is wrong between a shard and its rows of the manifest, or None."""
        key = _identity(path)
        if key not in self._shards:
            self._shards[key] = b"".join(_digest(*each) for each in _read(path, threads))
        held = self._shards[key]
        if rows["row"].tolist() != list(range(len(held) // _DIGEST)):
            return f"holds {len(held) // _DIGEST} samples, the manifest has {len(rows)} rows for it"
        images = image_hashes.take(pa.array(rows.index)).to_pylist()
        columns = zip(rows["sample_id"], rows["skill"], rows["n_images"], rows["content_hash"], images, strict=True)
        for place, (sample_id, skill, n_images, content, own) in enumerate(columns):
            if _digest(sample_id, skill, int(n_images), content, own) != held[place * _DIGEST : (place + 1) * _DIGEST]:
                return f"its row {place} is not the {sample_id} of the manifest"
        return None

    def _suite(self, path: Path, threads: ThreadPoolExecutor) -> dict[str, list[str]]:
        """A suite's hashes, computed anew, as its JSON file has them."""
        key = _identity(path)
        if key not in self._suites:
            content, images = [], set()
            for _, _, _, digest, own in _read(path, threads):
                content.append(digest)
                images.update(own)
            self._suites[key] = {"content": sorted(content), "images": sorted(images)}
        return self._suites[key]


Looked = tuple[str, str, int, str, list[str]]  # sample_id, skill, number of images, content hash, image hashes


def _read(path: Path, threads: ThreadPoolExecutor) -> Iterator[Looked]:
    """Look at every sample of a shard or suite, a row group at a time."""
    total = pq.read_metadata(path).num_rows
    store = SampleStore(pd.DataFrame({"shard": str(path), "row": range(total)}), cache_bytes=0)
    for start in range(0, total, ROW_GROUP):
        yield from threads.map(_look, store.samples(start, start + ROW_GROUP))


def _look(sample: Sample) -> Looked:
    try:
        own = [pixel_hash(decode_image(data, _NO_LIMIT)) for data in sample.images]
        return sample.sample_id, sample.skill, len(sample.images), content_hash(sample.messages, own), own
    except BadSample as error:
        return sample.sample_id, sample.skill, len(sample.images), error.reason, []


def _digest(sample_id: str, skill: str, n_images: int, content: str, images: Sequence[str]) -> bytes:
    text = json.dumps([sample_id, skill, n_images, content, list(images)])
    return hashlib.sha256(text.encode()).digest()[:_DIGEST]


def _identity(path: Path) -> tuple[int, int]:
    """Which file on disk it is, whatever its name."""
    about = path.stat()
    return about.st_dev, about.st_ino


# --- the mend ---------------------------------------------------------------------------------------------------------


def mend(project: Project, verdicts: Sequence[Verdict]) -> str:
    """What to do about the faults: which folders and objects of the cache to remove, and what brings them back.

    A broken file has a name in each pool version that shares it, and as a rule one in the cache: all must go, or the
    broken content comes back with the next link. Objects of the cache that are sound stay: they are what is left.
    """
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    lost = [fault.file for fault in faults if fault.problem == _NO_RECORD]
    if lost:
        files = shlex.join(_record_of(project, file) for file in lost)
        return f"In {project.root}: `git checkout {files}` brings the records back; then `adapt-inf verify` again."
    broken = {fault.file for fault in faults}
    cache = Cache.of(project)
    bad = {_identity(project.root / file) for file in broken if (project.root / file).is_file()}
    objects = {cache.object(fault.md5): fault.md5 for fault in faults if fault.md5 is not None}
    spoilt = [path for path, md5 in objects.items() if path.is_file() and md5_of(path) != md5.removesuffix(".dir")]
    inside = project.root.resolve()
    remove = {os.path.relpath(path, inside) if path.is_relative_to(inside) else str(path) for path in spoilt}
    rounds = [verdict.round for verdict in verdicts if verdict.faults]
    for folder in sorted(project.rounds.glob("*/*")):
        name = str(folder.relative_to(project.root))
        if folder.name in OUTPUTS.values() and folder.is_dir() and _spoilt(project, folder, broken, bad):
            remove.add(name)
    again = "`adapt-inf round`, which computes them again" if BASE not in rounds else "your own copy of the project"
    first = f"`rm -rf {shlex.join(sorted(remove))}`, then " if remove else ""
    return f"In {project.root}: {first}`adapt-inf pull {' '.join(rounds)}`, or without a remote {again}."


def _record_of(project: Project, output: str) -> str:
    """The file in which DVC notes an output."""
    _, round_id, _ = output.split("/")
    return f"{output}.dvc" if round_id == BASE else f"rounds/{round_id}/dvc.lock"


def _spoilt(project: Project, folder: Path, broken: set[str], bad: set[tuple[int, int]]) -> bool:
    for path in folder.rglob("*"):
        if path.is_file() and (str(path.relative_to(project.root)) in broken or _identity(path) in bad):
            return True
    return str(folder.relative_to(project.root)) in broken
