"""What a round trained on, written out for others: the samples themselves, each with what selected it.

One Parquet file with the pictures inside, or LLaVA's JSON list with its pictures in a folder beside it. Both are
streamed, and appear whole or not at all: the folder takes its place first, the list that names its pictures after it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adapt_inf import lineage
from adapt_inf.checkout import COLUMNS, lay_pictures, llava_row, parquet_row, stream, write_list
from adapt_inf.data.manifest import MANIFEST, SHARDS, read_manifest
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import ROW_GROUP
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import publish_folder, write_whole
from adapt_inf.progress import progress
from adapt_inf.project import BASE, Project

_OURS = ".adapt-inf-selected"  # in a folder of pictures: one without its list was left by a killed run

_CHOICE = [
    ("drop", pa.string()),
    ("cluster", pa.int32()),
    ("selector", pa.string()),
    ("score", pa.float64()),
    ("stratum", pa.int32()),
]
_SCHEMA = pa.schema([*COLUMNS, *_CHOICE])


def write_selected(project: Project, round_id: str, out: Path) -> int:
    """Write the samples that a round selected to `out`, in candidate order; how many there are.

    Args:
        out: ends with .parquet (columns of a checkout) or .json (a LLaVA list; pictures go to <its name>-images/);
            each row also has drop, cluster, selector, score and stratum, as in select/selected.parquet.

    Raises:
        RoundError: there is no such round, it has no selection, or that or its samples are not on this machine.
        AdaptInfError: `out` is there already, or has another suffix.
    """
    out = out.resolve()
    selected = _selection(project, round_id)
    if out.suffix not in (".json", ".parquet"):
        raise AdaptInfError(f"{out.name} is neither JSON nor Parquet.", "Name a FILE.json or a FILE.parquet.")
    folder = out.with_name(f"{out.stem}-images")
    written = [out] if out.suffix == ".parquet" or (folder / _OURS).is_file() else [out, folder]
    for path in written:
        if path.exists():
            raise AdaptInfError(f"{path} is there already.", "Name a file that is not there yet.")
    places = _places(project, round_id, selected["sample_id"])
    with progress(f"selected of {round_id}", len(selected)) as bar:
        samples = zip(stream(places, bar.update), _choices(selected, places), strict=True)
        if out.suffix == ".parquet":
            write_whole(out, lambda part: _write_parquet(part, samples))
        else:
            _write_llava(out, folder, samples)
    return len(selected)


def _selection(project: Project, round_id: str) -> pd.DataFrame:
    if round_id == BASE:
        raise RoundError(
            BASE, "the lineage begins there: nothing was selected", "`adapt-inf lineage` lists the rounds."
        )
    record = lineage.read_round(project, round_id)
    path = project.output(round_id, "select") / "selected.parquet"
    if not path.is_file():
        mend = f"Bring it with `adapt-inf pull {round_id}`."
        if record.status != "finished":
            mend = "`adapt-inf round` goes on with it."
        raise RoundError(round_id, "its selection is not on this machine", mend)
    return pd.read_parquet(path)


def _places(project: Project, round_id: str, sample_ids: pd.Series) -> pd.DataFrame:
    """Where the selected samples are, in their order: drop, skill, shard (a path) and row.

    The round's own pool has most; one that it pruned at once may stand only where the round read it.
    """
    parent = lineage.read_round(project, round_id).parent
    found = []
    for name, output in ((round_id, "pool"), (parent, "pool"), (round_id, "ingest")):
        folder = project.output(name, output)
        if (folder / MANIFEST).is_file():
            rows = read_manifest(folder / MANIFEST, ["sample_id", "drop", "shard", "row"])
            rows = rows[rows["shard"].notna() & rows["sample_id"].isin(sample_ids)]
            rows = rows.assign(shard=f"{(folder / SHARDS).resolve()}/" + rows["shard"].astype(str))
            found.append(rows[[Path(shard).is_file() for shard in rows["shard"]]])
    frame = pd.concat(found, ignore_index=True).drop_duplicates("sample_id") if found else pd.DataFrame()
    if len(frame) < len(sample_ids):
        problem = (
            f"{len(sample_ids) - len(frame):,} of its {len(sample_ids):,} selected samples are not on this machine"
        )
        away = [name for name in (round_id, parent) if not project.output(name, "pool").is_dir()]
        mend = " and ".join(f"`adapt-inf pull {name}`" for name in away)
        kept = f"Where {round_id} was run, rounds/{round_id}/ingest has them, or had until `adapt-inf gc`."
        mend = f"Bring them with {mend}." if away else kept
        raise RoundError(round_id, problem, f"{mend} Their ids stand in rounds/{round_id}/select/selected.parquet.")
    return frame.set_index("sample_id").reindex(sample_ids).reset_index()


def _choices(selected: pd.DataFrame, places: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What selected each sample, as Python values."""
    frame = selected.assign(drop=places["drop"].to_numpy()).rename(columns={"sample_id": "id"})
    for row in frame[["id", *(name for name, _ in _CHOICE)]].to_dict("records"):
        score = None if math.isnan(row["score"]) else row["score"]
        yield {str(key): value for key, value in row.items()} | {"score": score}


def _write_parquet(path: Path, samples: Iterator[tuple[Sample, dict[str, Any]]]) -> None:
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while batch := [parquet_row(sample) | choice for sample, choice in islice(samples, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=_SCHEMA))


def _write_llava(out: Path, folder: Path, samples: Iterator[tuple[Sample, dict[str, Any]]]) -> None:
    beside, name = folder.with_name(f".{folder.name}.part"), Path(folder.name)
    shutil.rmtree(beside, ignore_errors=True)
    (beside / name).mkdir(parents=True)
    (beside / name / _OURS).touch()
    rows = (
        llava_row(sample, lay_pictures(beside, name, number, sample)) | choice
        for number, (sample, choice) in enumerate(samples)
    )

    def write(part: Path) -> None:
        write_list(part, rows)
        publish_folder(beside / name, folder)

    try:
        write_whole(out, write)
        (folder / _OURS).unlink()  # done: another selection must not take these pictures' place
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(beside)
