"""Samples for a page: small pictures, short text, and only what has to be read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import write_shard
from adapt_inf.review import thumbnails
from adapt_inf.review.thumbnails import look_up, show

PIXELS = 10**7


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def sample(name: str, images: int = 1, question: str = "Which?", size: tuple[int, int] = (300, 150)) -> Sample:
    parts = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": f"answer {name}"}]},
    ]
    return Sample(name, tuple(png(*size) for _ in range(images)), messages, "s", "exact_match", ("a",))


def frame(shard: Path, rows: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": list(rows), "shard": str(shard), "row": list(rows.values())})


def test_a_sample_becomes_small_and_short() -> None:
    shown = show(sample("a", images=3, question="word " * 100), PIXELS)
    assert (len(shown.pictures), shown.more) == (2, 1)
    assert shown.answer == "answer a"
    assert len(shown.question) == 240
    assert shown.question.endswith("…")
    kind, _, data = shown.pictures[0].partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (120, 60)


def test_text_only_samples_and_pictures_that_are_too_large_have_none() -> None:
    assert show(sample("a", images=0), PIXELS).pictures == ()
    assert show(sample("a"), max_pixels=100).pictures == ()


def test_samples_come_from_their_rows_and_what_is_gone_is_named(tmp_path: Path) -> None:
    shard = tmp_path / "a.parquet"
    write_shard(shard, (sample(f"s{place}", images=place % 2) for place in range(300)))
    wanted = pd.concat(
        [
            frame(shard, {"s299": 299, "s1": 1, "s256": 256, "buried": -1}),
            frame(tmp_path / "gone.parquet", {"elsewhere": 0}),
        ]
    )
    found = look_up(wanted, PIXELS)
    assert {name: shown.answer for name, shown in found.items()} == {
        "s299": "answer s299",
        "s1": "answer s1",
        "s256": "answer s256",
        "buried": "",
        "elsewhere": "",
    }
    assert len(found["s1"].pictures) == 1
    assert {name: shown.absent for name, shown in found.items() if shown.absent} == {
        "buried": "not on this machine",
        "elsewhere": "not on this machine",
    }
    assert show(sample("large"), 1000).absent == "too large to be shown"


def test_no_more_is_read_than_allowed(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shard = tmp_path / "a.parquet"
    write_shard(shard, (sample(f"s{place}") for place in range(300)))
    first = pq.read_metadata(shard).row_group(0).total_byte_size
    monkeypatch.setattr(thumbnails, "_MOST_BYTES", first)
    found = look_up(frame(shard, {"s3": 3, "s299": 299}), PIXELS)
    assert (found["s3"].answer, found["s299"].answer) == ("answer s3", "")
    assert (found["s3"].absent, found["s299"].absent.partition(":")[0]) == ("", "not read")
