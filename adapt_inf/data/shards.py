"""Shards: Parquet files of samples, pictures inside, written as a stream and read a row group at a time.

The trade: a row group, 256 samples as a rule, is the unit of reading, so a pass in order reads everything once and
random access costs up to one row group per sample; `SampleStore` keeps the row groups that it read last, up to a number
of bytes, so a small pool is read once and a large one never fills memory. The same samples give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from adapt_inf.data.samples import Sample

ROW_GROUP = 256  # samples; every row group of a shard but the last is this long, but where that were too many bytes
_MOST_BYTES = 512 << 20  # of pictures in a row group: Arrow cannot give back lists of more than 2 GB
SHARD_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("messages", pa.string()),
        ("skill", pa.string()),
        ("metric", pa.string()),
        ("answers", pa.list_(pa.string())),
    ]
)
_CACHE_BYTES = 256 << 20


class ShardWriter:
    """Write one shard as samples come, holding at most a row group; the file appears when the block ends well."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rows = 0
        self._part = path.with_name(f".{path.name}.part")
        self._waiting: list[Sample] = []
        self._waiting_bytes = 0
        self._writer = pq.ParquetWriter(
            self._part,
            SHARD_SCHEMA,
            use_dictionary=["skill", "metric"],
            compression={"messages": "zstd"},  # pictures are compressed already
            write_statistics=["sample_id"],
        )

    def add(self, sample: Sample) -> int:
        """Append a sample and return its row in the shard."""
        size = sum(map(len, sample.images))
        if self._waiting and self._waiting_bytes + size > _MOST_BYTES:
            self._flush()
        self._waiting.append(sample)
        self._waiting_bytes += size
        self.rows += 1
        if len(self._waiting) == ROW_GROUP:
            self._flush()
        return self.rows - 1

    def close(self) -> None:
        """Finish the file and put it in place."""
        if self._waiting:
            self._flush()
        self._writer.close()
        with open(self._part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self._part, self.path)

    def abandon(self) -> None:
        """Leave no file."""
        self._writer.close()
        self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._writer.write_table(_to_table(self._waiting), row_group_size=ROW_GROUP)
        self._waiting, self._waiting_bytes = [], 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def write_shard(path: Path, samples: Iterable[Sample]) -> int:
    """Write `samples` as one shard, whole or not at all, and return their number."""
    with ShardWriter(path) as shard:
        for sample in samples:
            shard.add(sample)
    return shard.rows


def read_shard(path: Path) -> list[Sample]:
    """All samples of a shard or a suite, in order."""
    return _to_samples(pq.read_table(path, schema=SHARD_SCHEMA, partitioning=None))


def group_starts(about: pq.FileMetaData) -> NDArray[np.int64]:
    """The first row of each row group of a shard."""
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    return np.cumsum([0, *sizes[:-1]])


class SampleStore:
    """Samples named by (shard, row), in the order of a frame such as `manifest.candidates` gives.

    Args:
        frame: columns `shard` (path of the file) and `row` (int); its index does not matter.
        cache_bytes: how much of the shards is kept in memory; the row group read last always is.
    """

    def __init__(self, frame: pd.DataFrame, cache_bytes: int = _CACHE_BYTES) -> None:
        codes, names = pd.factorize(frame["shard"])
        self._shards = [str(name) for name in names]
        self._shard_of = codes
        self._row_of = frame["row"].to_numpy(dtype=np.int64)
        self._starts: dict[int, NDArray[np.int64]] = {}  # by shard, the first row of each of its row groups
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._held = 0

    def __len__(self) -> int:
        return len(self._row_of)

    def __iter__(self) -> Iterator[Sample]:
        for row in range(len(self)):
            yield from self.samples(row, row + 1)

    def samples(self, start: int, stop: int) -> list[Sample]:
        """The samples at positions start to stop of the frame (stop not included, cut to the length)."""
        return self.take(range(start, min(stop, len(self))))

    def take(self, indices: Sequence[int] | np.ndarray) -> list[Sample]:
        """The samples at these positions of the frame, in this order; each row group is read at most once a call.

        Raises:
            IndexError: a position outside the frame.
        """
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for place, index in enumerate(indices):
            if not 0 <= index < len(self):
                raise IndexError(f"sample {index} of {len(self)}")
            shard, row = int(self._shard_of[index]), int(self._row_of[index])
            starts = self._starts_of(shard)
            group = int(np.searchsorted(starts, row, side="right")) - 1
            wanted.setdefault((shard, group), []).append((place, row - int(starts[group])))
        found: dict[int, Sample] = {}
        for key, rows in wanted.items():
            table = self._row_group(key).take([row for _, row in rows])
            found.update(zip((place for place, _ in rows), _to_samples(table), strict=True))
        return [found[place] for place in range(len(found))]

    def _starts_of(self, shard: int) -> NDArray[np.int64]:
        if shard not in self._starts:
            self._starts[shard] = group_starts(pq.read_metadata(self._shards[shard]))
        return self._starts[shard]

    def _row_group(self, key: tuple[int, int]) -> pa.Table:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        with pq.ParquetFile(self._shards[key[0]]) as file:
            table = file.read_row_group(key[1])
        self._cache[key] = table
        self._held += table.nbytes
        while self._held > self._cache_bytes and len(self._cache) > 1:
            _, old = self._cache.popitem(last=False)
            self._held -= old.nbytes
        return table


def _to_table(samples: list[Sample]) -> pa.Table:
    columns = [
        [sample.sample_id for sample in samples],
        [list(sample.images) for sample in samples],
        [json.dumps(sample.messages, ensure_ascii=False, separators=(",", ":")) for sample in samples],
        [sample.skill for sample in samples],
        [sample.metric for sample in samples],
        [list(sample.answers) for sample in samples],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SHARD_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SHARD_SCHEMA)


def _to_samples(table: pa.Table) -> list[Sample]:
    return [
        Sample(
            sample_id=row["sample_id"],
            images=tuple(row["images"]),
            messages=json.loads(row["messages"]),
            skill=row["skill"],
            metric=row["metric"],
            answers=tuple(row["answers"]),
        )
        for row in table.to_pylist()
    ]
