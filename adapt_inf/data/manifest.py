"""Manifests: one row a sample, who brought it, where its bytes are and whether it may still be trained on.

A pool's manifest lists every sample that ever was in the pool, in the order in which they came; a pruned one stays as a
tombstone. All arrays over samples that stages exchange stand in *candidate order*: live rows of the parent's pool, then
the new rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf.files import write_whole

if TYPE_CHECKING:
    from adapt_inf.stages.context import StageContext

MANIFEST = "manifest.parquet"
SHARDS = "shards"

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("drop", pa.string()),
        ("skill", pa.string()),
        ("round", pa.string()),  # that brought it
        ("shard", pa.string()),  # file name in shards/; null where a tombstone's bytes are gone
        ("row", pa.int32()),  # in the shard; -1 where the bytes are gone
        ("n_images", pa.int16()),
        ("content_hash", pa.string()),
        ("image_hashes", pa.list_(pa.string())),
        ("live", pa.bool_()),
        ("pruned_round", pa.string()),  # this and the rest: null while live
        ("pruned_cluster", pa.int32()),
        ("similarity", pa.float32()),  # cosine to duplicate_of
        ("duplicate_of", pa.string()),  # the sample kept in its stead
    ]
)


def empty_manifest() -> pd.DataFrame:
    """A manifest without rows."""
    return _to_frame(SCHEMA.empty_table())


def manifest_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A manifest of `rows`; columns that a row lacks are null, `live` is true where not given."""
    return _to_frame(pa.Table.from_pylist([{"live": True, **row} for row in rows], schema=SCHEMA))


def write_manifest(path: Path, frame: pd.DataFrame, image_hashes: pa.Array | None = None) -> None:
    """Write a manifest; equal frames give equal bytes.

    Args:
        path: the file.
        frame: all columns, but for image_hashes where the next argument gives them.
        image_hashes: those of the frame's rows, as Arrow has them.
    """
    if image_hashes is None:
        table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    else:
        plain = pa.schema([field for field in SCHEMA if field.name != "image_hashes"])
        table = pa.Table.from_pandas(frame, schema=plain, preserve_index=False)
        place = SCHEMA.get_field_index("image_hashes")
        table = table.add_column(place, SCHEMA.field("image_hashes"), image_hashes)
    table = table.replace_schema_metadata(None)
    write_whole(path, lambda part: pq.write_table(table, part, compression="zstd"))


def read_manifest(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a manifest with the types of `SCHEMA`: `row` numpy int32, `pruned_cluster` Int32, missing text NaN.

    Args:
        path: the manifest.
        columns: those to read; all when left out.
    """
    return _to_frame(pq.read_table(path, schema=SCHEMA, columns=columns, partitioning=None))


def read_image_hashes(path: Path) -> pa.ChunkedArray:
    """The image_hashes of a manifest as Arrow has them: a million lists as Python objects are 200 MB."""
    return pq.read_table(path, schema=SCHEMA, columns=["image_hashes"], partitioning=None)["image_hashes"]


def read_pool(pool: Path) -> pd.DataFrame:
    """All rows of a pool version, tombstones included; `shard` is a file name in its shards/."""
    return read_manifest(pool / MANIFEST)


def candidates(ctx: StageContext, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The samples that a round chooses from, in candidate order; `shard` is an absolute path.

    Live rows of the parent's pool in manifest order, then this round's accepted rows. The index runs from 0.

    Args:
        ctx: the round.
        columns: those of the manifest that are wanted; all when left out. A million rows of a few plain columns are
            some 100 MB, all columns several times that.
    """
    parts = []
    for folder in (ctx.parent_input("pool"), ctx.input("ingest")):
        rows = read_manifest(folder / MANIFEST, None if columns is None else [*columns, "live"])
        rows = rows[rows["live"]]
        if "shard" in rows:
            rows = rows.assign(shard=str((folder / SHARDS).resolve()) + "/" + rows["shard"].astype(str))
        parts.append(rows if columns is None else rows[list(columns)])
    return pd.concat(parts, ignore_index=True)


def _to_frame(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    if "pruned_cluster" in frame:
        frame["pruned_cluster"] = frame["pruned_cluster"].astype("Int32")
    if "image_hashes" in frame:
        lists = [list(hashes) for hashes in frame["image_hashes"]]
        frame["image_hashes"] = pd.Series(lists, index=frame.index, dtype=object)
    return frame
