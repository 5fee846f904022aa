"""A pool version written out for others: its live samples and its evaluation suites as a drop, whole or not at all.

Two forms: Parquet with the pictures inside, in the columns of a Hugging Face dataset, or LLaVA's JSON list beside a
folder of pictures, a thousand to a folder. Both are streamed, a row group of the pool at a time, and carry a
dataset.yaml, so `adapt-inf init --pool` or `adapt-inf drop` takes in what came out, sample by sample the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from adapt_inf import lineage
from adapt_inf.data.drops import DESCRIPTION
from adapt_inf.data.formats import IMAGE_TOKEN
from adapt_inf.data.intake import SUITES
from adapt_inf.data.manifest import MANIFEST, SHARDS, read_manifest
from adapt_inf.data.samples import Message, Sample
from adapt_inf.data.shards import ROW_GROUP, SampleStore
from adapt_inf.errors import RoundError
from adapt_inf.files import new_folder
from adapt_inf.progress import progress
from adapt_inf.project import BASE, Project

_FILE = 10_000  # samples in one Parquet file
_FOLDER = 1_000  # samples whose pictures stand in one folder
_LONGEST_ID = 200  # characters that a drop's sample may be called by

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))]))),
        ("skill", pa.string()),
        ("metric", pa.string()),
        ("answers", pa.list_(pa.string())),
    ]
)


def checkout(project: Project, round_id: str, target: Path, form: str = "parquet") -> int:
    """Write the pool that `round_id` left into `target`; how many samples may be trained on there.

    Args:
        target: a folder that is not there yet, or empty.
        form: `parquet` or `llava`.

    Raises:
        RoundError: there is no such round, its pool is not on this machine, or it has no live sample.
        AdaptInfError: `target` holds something.
    """
    if round_id != BASE:
        lineage.read_round(project, round_id)
    pool = project.output(round_id, "pool")
    if not pool.is_dir():
        raise RoundError(round_id, "its pool is not on this machine", f"Bring it with `adapt-inf pull {round_id}`.")
    splits = {"train": _live(pool), "eval": _suites(pool)}
    if splits["train"].empty:
        raise RoundError(round_id, "its pool has no sample", "`adapt-inf lineage` shows the size of each pool.")
    with new_folder(target) as beside:
        described: dict[str, Any] = {
            "name": f"pool-{round_id}",
            "license": "that of the drops which the ids name",
            "description": f"The pool of {project.root.name} after {round_id}.",
        }
        write = _write_parquet if form == "parquet" else _write_llava
        for split, rows in splits.items():
            if len(rows):
                with progress(f"checkout {split}", len(rows)) as bar:
                    described[split] = write(beside, split, stream(rows, bar.update))
        text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
        (beside / DESCRIPTION).write_text(text, encoding="utf-8")
    return len(splits["train"])


def _live(pool: Path) -> pd.DataFrame:
    """Where the samples are that may be trained on: columns shard (a path) and row."""
    frame = read_manifest(pool / MANIFEST, ["shard", "row", "live"])
    frame = frame[frame["live"]]
    return pd.DataFrame({"shard": f"{(pool / SHARDS).resolve()}/" + frame["shard"], "row": frame["row"]})


def _suites(pool: Path) -> pd.DataFrame:
    """The same of all evaluation samples."""
    sizes = {str(path): pq.read_metadata(path).num_rows for path in sorted((pool / SUITES).glob("*.parquet"))}
    places = [(path, row) for path, size in sizes.items() for row in range(size)]
    return pd.DataFrame(places, columns=["shard", "row"])


def stream(rows: pd.DataFrame, told: Callable[[int], Any]) -> Iterator[Sample]:
    """The samples at `rows` (columns shard, a path, and row), a row group at a time; `told` how many each time."""
    store = SampleStore(rows, cache_bytes=0)
    for start in range(0, len(store), ROW_GROUP):
        batch = store.samples(start, start + ROW_GROUP)
        yield from batch
        told(len(batch))


def _write_parquet(folder: Path, split: str, samples: Iterator[Sample]) -> list[str]:
    """Files of `_FILE` samples each, a row group at a time; their names."""
    names: list[str] = []
    batches = iter(lambda: list(islice(samples, ROW_GROUP)), [])
    with ExitStack() as stack:
        for number, batch in enumerate(batches):
            if number % (_FILE // ROW_GROUP) == 0:
                stack.close()
                names.append(f"{split}-{len(names):05d}.parquet")
                writer = stack.enter_context(pq.ParquetWriter(folder / names[-1], COLUMNS, compression="zstd"))
            writer.write_table(pa.Table.from_pylist([parquet_row(sample) for sample in batch], schema=COLUMNS))
    return names


def _write_llava(folder: Path, split: str, samples: Iterator[Sample]) -> str:
    """One JSON list, a sample a line, and the pictures; the name of the list."""
    name = f"{split}.json"
    pictures = Path("images", split)
    rows = (llava_row(each, lay_pictures(folder, pictures, number, each)) for number, each in enumerate(samples))
    write_list(folder / name, rows)
    return name


def write_list(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """A JSON list, an object a line."""
    with open(path, "w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(",\n" if number else "[\n")
            json.dump(row, file, ensure_ascii=False)
        file.write("\n]\n")


def lay_pictures(folder: Path, inside: Path, number: int, sample: Sample) -> list[str]:
    """Write the pictures of sample `number` below folder/inside, byte by byte; their paths from `folder`."""
    paths = []
    for place, data in enumerate(sample.images):
        home = inside / f"{number // _FOLDER:04d}"
        (folder / home).mkdir(parents=True, exist_ok=True)
        paths.append(str(home / f"{number:07d}-{place}.{_suffix(data)}"))
        (folder / paths[-1]).write_bytes(data)
    return paths


def parquet_row(sample: Sample) -> dict[str, Any]:
    """A sample in the columns of `COLUMNS`."""
    pictures = [{"bytes": data, "path": None} for data in sample.images]
    return {**_meta(sample), "images": pictures, "messages": sample.messages}


def llava_row(sample: Sample, paths: list[str]) -> dict[str, Any]:
    """A sample in LLaVA's form, its pictures being at `paths`."""
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": roles[message["role"]], "value": _text(message)} for message in sample.messages]
    pictures = {"image": paths[0] if len(paths) == 1 else paths} if paths else {}
    return {**_meta(sample), **pictures, "conversations": turns}


def _meta(sample: Sample) -> dict[str, Any]:
    """What both forms have. An id keeps its end: a name longer than a drop may give was made by one checkout more."""
    columns = {"skill": sample.skill, "metric": sample.metric, "answers": list(sample.answers)}
    return {"id": sample.sample_id[-_LONGEST_ID:], **columns}


def _text(message: Message) -> str:
    """A turn as LLaVA writes it: each picture is a token, on a line of its own where it comes first."""
    parts = [IMAGE_TOKEN if part["type"] == "image" else part["text"] for part in message["content"]]
    first = next((place for place, part in enumerate(parts) if part != IMAGE_TOKEN), len(parts))
    return "\n".join([*parts[:first], "".join(parts[first:])]) if first < len(parts) else "\n".join(parts)


def _suffix(data: bytes) -> str:
    """Of the file that the bytes of a picture would be; a pool has JPEG, PNG and WebP only."""
    return "jpg" if data.startswith(b"\xff\xd8") else "png" if data.startswith(b"\x89PNG") else "webp"
