"""Shards give back what was written, in any order, and are the same bytes for the same samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_strategies import sample_lists

from adapt_inf.data import shards
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import ROW_GROUP, SampleStore, read_shard, write_shard
from adapt_inf.files import file_digest

same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50, deadline=None
)


def small(number: int) -> Sample:
    said = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"question {number}"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    return Sample(f"d/{number}", (b"%d" % number * 20,), said, "skill", "exact_match", ("yes", "aye"))


def interrupted() -> Iterator[Sample]:
    yield small(1)
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], pd.DataFrame]:
    """Samples over two shards of several row groups, and the frame that names them."""
    folder = tmp_path_factory.mktemp("shards")
    samples = [small(number) for number in range(700)]
    cut = 400
    write_shard(folder / "a.parquet", samples[:cut])
    write_shard(folder / "b.parquet", samples[cut:])
    frame = pd.DataFrame(
        {
            "shard": [str(folder / ("a.parquet" if n < cut else "b.parquet")) for n in range(700)],
            "row": np.array([n if n < cut else n - cut for n in range(700)], dtype=np.int32),
        }
    )
    return samples, frame


@same_folder
@given(samples=sample_lists())
def test_a_shard_gives_back_its_samples(tmp_path: Path, samples: list[Sample]) -> None:
    assert write_shard(tmp_path / "x.parquet", samples) == len(samples)
    assert read_shard(tmp_path / "x.parquet") == samples


@same_folder
@given(samples=sample_lists())
def test_the_same_samples_are_the_same_bytes(tmp_path: Path, samples: list[Sample]) -> None:
    write_shard(tmp_path / "one.parquet", samples)
    write_shard(tmp_path / "two.parquet", iter(samples))
    assert file_digest(tmp_path / "one.parquet") == file_digest(tmp_path / "two.parquet")


def test_row_groups_of_large_pictures_are_shorter(
    many: tuple[list[Sample], pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow cannot read one of more than 2 GB."""
    samples, _ = many
    size = [sum(map(len, sample.images)) for sample in samples]
    monkeypatch.setattr(shards, "_MOST_BYTES", 50 * max(size))
    path = tmp_path / "x.parquet"
    assert write_shard(path, samples) == len(samples)
    about = pq.read_metadata(path)
    lengths = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    assert all(50 <= length <= ROW_GROUP for length in lengths[:-1])
    assert len(lengths) > len(samples) / ROW_GROUP + 2
    frame = pd.DataFrame({"shard": str(path), "row": np.arange(len(samples))})
    order = np.random.default_rng(0).permutation(len(samples))
    assert SampleStore(frame, cache_bytes=0).take(order) == [samples[index] for index in order]
    assert read_shard(path) == samples


def test_row_groups_are_full_but_the_last(many: tuple[list[Sample], pd.DataFrame]) -> None:
    metadata = pq.read_metadata(many[1]["shard"].iloc[0])
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [ROW_GROUP, 400 - ROW_GROUP]


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "x.parquet", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_writer_leaves_the_older_file(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.parquet", [small(0)])
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "x.parquet", interrupted())
    assert read_shard(tmp_path / "x.parquet") == [small(0)]


@settings(max_examples=30, deadline=None)
@given(indices=st.lists(st.integers(0, 699), max_size=40), cache=st.sampled_from([0, 20_000, 1 << 30]))
def test_take_gives_any_samples_in_any_order(
    many: tuple[list[Sample], pd.DataFrame], indices: list[int], cache: int
) -> None:
    samples, frame = many
    store = SampleStore(frame, cache_bytes=cache)
    assert store.take(indices) == [samples[index] for index in indices]
    assert store.take(np.array(indices, dtype=np.int64)) == [samples[index] for index in indices]


def test_samples_are_cut_at_the_end(many: tuple[list[Sample], pd.DataFrame]) -> None:
    samples, frame = many
    store = SampleStore(frame)
    assert len(store) == 700
    assert store.samples(390, 410) == samples[390:410]
    assert store.samples(690, 800) == samples[690:]
    assert store.samples(700, 710) == []


def test_the_order_is_the_frames_not_the_indexs(many: tuple[list[Sample], pd.DataFrame]) -> None:
    samples, frame = many
    store = SampleStore(frame.iloc[[650, 3, 401]])
    assert store.samples(0, 3) == [samples[650], samples[3], samples[401]]


@pytest.mark.parametrize("index", [-1, 700])
def test_a_position_outside_is_refused(many: tuple[list[Sample], pd.DataFrame], index: int) -> None:
    with pytest.raises(IndexError):
        SampleStore(many[1]).take([index])


def test_little_is_kept_in_memory(many: tuple[list[Sample], pd.DataFrame]) -> None:
    samples, frame = many
    store = SampleStore(frame, cache_bytes=0)
    assert store.samples(0, 700) == samples
    assert len(store._cache) == 1
