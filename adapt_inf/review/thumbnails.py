"""Samples as a page shows them: a small picture, the question, the answer.

Only the row groups that hold a wanted sample are read, each once, up to `_MOST_BYTES` in all; a sample beyond that, or
whose shard is gone, is shown by its name and the reason. The pictures are untrusted: they pass the same decoder as at
ingest.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from PIL import Image

from adapt_inf.data.images import decode_image
from adapt_inf.data.samples import BadSample, Sample, text_of
from adapt_inf.data.shards import SampleStore, group_starts

_MOST_BYTES = 2 << 30  # of row groups, which photographs fill with 100 MB each
_SIDE = 120  # pixels of a thumbnail's longer side
_QUALITY = 72
_PICTURES = 2  # of a sample that are shown
_LETTERS = 240  # of a question or an answer


@dataclass(frozen=True)
class Shown:
    """A sample on a page.

    Attributes:
        pictures: data URLs of its first pictures, small.
        more: pictures that are not shown.
        question, answer: the text before the last turn, and the last turn; empty where the sample could not be read.
        absent: why there is no picture; empty where there is one, or the sample has none.
    """

    sample_id: str
    pictures: tuple[str, ...] = ()
    more: int = 0
    question: str = ""
    answer: str = ""
    absent: str = "not on this machine"


def look_up(frame: pd.DataFrame, max_pixels: int) -> dict[str, Shown]:
    """The samples of `frame` by id.

    Args:
        frame: sample_id, shard (path of the file) and row.
        max_pixels: of a picture; see `decode_image`.
    """
    wanted = frame.dropna(subset=["shard"])
    wanted = wanted[wanted["row"] >= 0].drop_duplicates("sample_id").sort_values(["shard", "row"])
    found: dict[str, Shown] = {name: Shown(name) for name in frame["sample_id"]}
    left = _MOST_BYTES
    for shard, rows in wanted.groupby("shard"):
        path = Path(str(shard))
        if not path.is_file():
            continue
        about = pq.read_metadata(path)
        groups = np.searchsorted(group_starts(about), rows["row"], side="right") - 1
        for group in np.unique(groups).tolist():
            members = rows[groups == group]
            left -= about.row_group(group).total_byte_size
            if left < 0:
                found |= {
                    name: Shown(name, absent="not read: a page takes its pictures from so much data only")
                    for name in members["sample_id"]
                }
                continue
            store = SampleStore(members, cache_bytes=0)
            for sample in store.take(range(len(store))):
                found[sample.sample_id] = show(sample, max_pixels)
    return found


def show(sample: Sample, max_pixels: int) -> Shown:
    """A sample with its first pictures made small."""
    pictures = []
    for data in sample.images[:_PICTURES]:
        try:
            pictures.append(thumbnail(decode_image(data, max_pixels)))
        except BadSample:  # `ingest.max_pixels` was larger when it came
            continue
    question = " ".join(text_of(message) for message in sample.messages[:-1])
    return Shown(
        sample.sample_id,
        tuple(pictures),
        max(0, len(sample.images) - _PICTURES),
        shorten(question),
        shorten(text_of(sample.messages[-1])),
        "" if pictures or not sample.images else "too large to be shown",
    )


def thumbnail(image: Image.Image) -> str:
    """A data URL of a picture of at most `_SIDE` pixels a side."""
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY, method=0)  # twice as fast as 2, a tenth larger
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def shorten(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= _LETTERS else f"{words[: _LETTERS - 1]}…"
