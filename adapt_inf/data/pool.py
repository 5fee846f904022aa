"""Pool versions: the parent's samples, the new ones, and what is no longer trained on.

A version is a folder that never changes: a manifest, the shards that it names, the evaluation suites of its lineage.
Shards are hard links to the parent's, so a version costs what it adds. A shard of which less than half is alive is
rewritten with its live samples under a new name; the tombstones' bytes go, their rows stay. Two builds from the same
inputs are the same, byte by byte.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf.config import Params
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import REPORT, SUITE, SUITE_HASHES, SUITES, Known, take_in
from adapt_inf.data.manifest import (
    MANIFEST,
    SCHEMA,
    SHARDS,
    empty_manifest,
    read_image_hashes,
    read_manifest,
    write_manifest,
)
from adapt_inf.data.shards import SampleStore, write_shard
from adapt_inf.errors import StageInputError
from adapt_inf.files import link_or_copy, read_json, write_json
from adapt_inf.project import BASE

POOL = "pool.json"
_LEAST_ALIVE = 0.5  # of a shard; below, it is rewritten


def build_pool(out: Path, parent_pool: Path, ingest: Path, round_id: str, pruned: pd.DataFrame) -> dict[str, Any]:
    """Build the pool version that a round leaves behind.

    Args:
        out: the folder to fill; files that an earlier run left in it are replaced.
        parent_pool: the parent's pool version.
        ingest: the round's ingest output.
        round_id: the round that prunes, for the tombstones.
        pruned: columns sample_id, cluster (int), similarity (float) and duplicate_of (the sample kept in its stead) of
            the samples that become tombstones; may be empty.

    Returns:
        The content of pool.json: round, live, tombstones, pruned (by this round), and the live samples of each drop and
        of each skill ("<drop>/<skill>").

    Raises:
        StageInputError: `pruned` names a sample twice, or one that is no live sample of the pool.
    """
    for name in (SHARDS, SUITES):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    manifests = [folder / MANIFEST for folder in (parent_pool, ingest)]
    plain = [name for name in SCHEMA.names if name != "image_hashes"]
    parts = [read_manifest(path, plain) for path in manifests]
    homes = {
        str(shard): path.parent / SHARDS / shard
        for path, part in zip(manifests, parts, strict=True)
        for shard in part["shard"].dropna().unique()
    }
    frame = pd.concat(parts, ignore_index=True)
    del parts
    frame = _bury(frame, pruned, round_id, out)
    frame = _place_shards(frame, homes, out / SHARDS, round_id)
    _place_suites(out / SUITES, parent_pool, ingest)
    hashes = [chunk for path in manifests for chunk in read_image_hashes(path).chunks]
    write_manifest(out / MANIFEST, frame, pa.chunked_array(hashes, SCHEMA.field("image_hashes").type).combine_chunks())
    summary = _summary(frame, round_id, len(pruned))
    write_json(out / POOL, summary)
    return summary


def create_base_pool(out: Path, drop_dir: Path | None, params: Params) -> dict[str, Any]:
    """Build the pool where a lineage starts: empty, or with the samples and the suite of a drop folder.

    Returns:
        The content of pool.json, as `build_pool`.

    Raises:
        DropError: the drop is refused; `out` is not made.
    """
    work = out.with_name(f".{out.name}.base")
    shutil.rmtree(work, ignore_errors=True)
    empty, ingest = work / "empty", work / "ingest"
    write_manifest(empty / MANIFEST, empty_manifest())
    try:
        if drop_dir is None:
            write_manifest(ingest / MANIFEST, empty_manifest())
        else:
            take_in(read_drop(drop_dir), Known(), ingest, params.ingest, BASE)
        return build_pool(out, empty, ingest, BASE, no_pruned())
    finally:
        shutil.rmtree(work)


def no_pruned() -> pd.DataFrame:
    """The `pruned` of a round that prunes nothing."""
    types = {"sample_id": "str", "cluster": "int32", "similarity": "float32", "duplicate_of": "str"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def _bury(frame: pd.DataFrame, pruned: pd.DataFrame, round_id: str, out: Path) -> pd.DataFrame:
    """Turn the rows of `pruned` into tombstones."""
    if len(pruned) == 0:
        return frame
    rows = pd.Index(frame["sample_id"]).get_indexer(pd.Index(pruned["sample_id"]))
    known = (rows >= 0) & frame["live"].to_numpy()[rows]
    if not known.all():
        name = pruned.loc[~known, "sample_id"].iloc[0]
        raise StageInputError(out, f"{round_id} would prune {name}, which is no live sample of its pool")
    if (twice := pruned["sample_id"].duplicated()).any():
        raise StageInputError(out, f"{round_id} would prune {pruned.loc[twice, 'sample_id'].iloc[0]} twice")
    frame.loc[rows, "live"] = False
    frame.loc[rows, "pruned_round"] = round_id
    frame.loc[rows, "pruned_cluster"] = pruned["cluster"].to_numpy()
    frame.loc[rows, "similarity"] = pruned["similarity"].to_numpy(dtype="float32")
    frame.loc[rows, "duplicate_of"] = pruned["duplicate_of"].to_numpy()
    return frame


def _place_shards(frame: pd.DataFrame, homes: dict[str, Path], target: Path, round_id: str) -> pd.DataFrame:
    """Link each shard, or rewrite it where too little of it is alive; `shard` and `row` follow."""
    for shard, rows in frame.groupby("shard", sort=False):
        name, home = str(shard), homes[str(shard)]
        alive = rows[rows["live"]].sort_values("row")
        if len(alive) >= _LEAST_ALIVE * pq.read_metadata(home).num_rows:
            link_or_copy(home, target / name)
            continue
        frame.loc[rows.index, "shard"] = None
        frame.loc[rows.index, "row"] = -1
        if len(alive):
            renamed = f"{_plain_name(name)}.{round_id}.parquet"
            store = SampleStore(pd.DataFrame({"shard": str(home), "row": alive["row"]}), cache_bytes=0)
            write_shard(target / renamed, (store.take([place])[0] for place in range(len(store))))
            frame.loc[alive.index, "shard"] = renamed
            frame.loc[alive.index, "row"] = range(len(alive))
    return frame


def _plain_name(shard: str) -> str:
    """ "<drop>-<number>" of a shard's file name, without the round that rewrote it."""
    return re.sub(r"^(.*-[0-9]{5,})[.].*$", r"\1", shard)


def _place_suites(target: Path, parent_pool: Path, ingest: Path) -> None:
    """Link the parent's suites and the new one, where it has samples."""
    for file in sorted((parent_pool / SUITES).glob("*")):
        link_or_copy(file, target / file.name)
    if (ingest / SUITE).is_file() and pq.read_metadata(ingest / SUITE).num_rows:
        drop = read_json(ingest / REPORT)["drop"]
        link_or_copy(ingest / SUITE, target / f"{drop}.parquet")
        link_or_copy(ingest / SUITE_HASHES, target / f"{drop}.json")


def _summary(frame: pd.DataFrame, round_id: str, pruned: int) -> dict[str, Any]:
    def count(keys: pd.Series) -> dict[str, int]:
        live = frame["live"].groupby(keys, sort=False).sum()
        return {str(key): int(number) for key, number in live.items()}

    return {
        "round": round_id,
        "live": int(frame["live"].sum()),
        "tombstones": int((~frame["live"]).sum()),
        "pruned": pruned,
        "drops": count(frame["drop"]),
        "skills": count(frame["drop"] + "/" + frame["skill"]),
    }
