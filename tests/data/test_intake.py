"""Taking a drop in: leaks, duplicates, ids, refusals, and going on after a kill."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from make_drop import make_drop, square
from PIL import Image

from adapt_inf.config import Ingest
from adapt_inf.data import intake
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import Known, take_in
from adapt_inf.data.manifest import read_manifest
from adapt_inf.data.shards import SampleStore, read_shard
from adapt_inf.errors import DropError
from adapt_inf.files import folder_digest, read_json

LENIENT = Ingest(max_reject_fraction=1.0)
RNG = np.random.default_rng(0)
RED, BLUE, GREEN = (square(colour, RNG) for colour in ("red", "blue", "green"))


def ask(question: str, answer: str = "yes", image: str | None = None, **more: Any) -> dict[str, Any]:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": said, **({"image": image} if image else {}), **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drop's folder with three pictures."""
    root = tmp_path / "drop"
    root.mkdir()
    for name, data in (("red", RED), ("blue", BLUE), ("green", GREEN)):
        (root / f"{name}.png").write_bytes(data)
    return root


def take(
    folder: Path,
    train: list[dict[str, Any]],
    evaluation: list[dict[str, Any]] | None = None,
    known: Known | None = None,
    params: Ingest = LENIENT,
) -> tuple[dict[str, Any], Path]:
    """Take in a drop of these samples; returns report.json's content and the output."""
    description = {"name": "d", "train": "train.json"}
    (folder / "train.json").write_text(json.dumps(train))
    if evaluation is not None:
        description["eval"] = "eval.json"
        (folder / "eval.json").write_text(json.dumps(evaluation))
    (folder / "dataset.yaml").write_text(yaml.safe_dump(description))
    out = folder.parent / "out"
    return take_in(read_drop(folder), known or Known(), out, params, "r001"), out


def rejects(out: Path) -> list[tuple[str, str]]:
    frame = pd.read_parquet(out / "rejects.parquet")
    return list(zip(frame["sample_id"], frame["kind"], strict=True))


def hashes(data: bytes) -> str:
    return intake.pixel_hash(intake.decode_image(data, 10_000))


def test_a_drop_becomes_shards_a_suite_and_a_manifest(tmp_path: Path) -> None:
    drop = read_drop(make_drop(tmp_path / "drop", "squares", train=40, eval=12))
    report = take_in(drop, Known(), tmp_path / "out", Ingest(shard_samples=15), "r001")
    assert (report["read"], report["train"], report["eval"], report["rejected"]) == (52, 40, 12, 0)
    frame = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert frame["shard"].unique().tolist() == [f"squares-0000{n}.parquet" for n in range(3)]
    assert frame["row"].tolist() == [*range(15), *range(15), *range(10)]
    assert set(frame["round"]) == {"r001"}
    assert frame["live"].all()
    paths = str(tmp_path / "out" / "shards") + "/" + frame["shard"]
    samples = SampleStore(frame.assign(shard=paths)).samples(0, 40)
    assert [sample.sample_id for sample in samples] == frame["sample_id"].tolist()
    assert [len(sample.images) for sample in samples] == frame["n_images"].tolist()
    assert [sample.skill for sample in samples] == frame["skill"].tolist()
    assert len(read_shard(tmp_path / "out" / "suite.parquet")) == 12
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.parquet",
        "shards",
        "suite.parquet",
        "suite_hashes.json",
        "rejects.parquet",
        "report.json",
    }
    assert read_json(tmp_path / "out" / "report.json") == report


def test_pictures_go_on_as_they_came(folder: Path) -> None:
    _, out = take(folder, [ask("What?", image="red.png")])
    assert read_shard(out / "shards" / "d-00000.parquet")[0].images == (RED,)


def test_a_drop_without_evaluation_has_an_empty_suite(folder: Path) -> None:
    report, out = take(folder, [ask("What?")])
    assert report["eval"] == 0
    assert read_shard(out / "suite.parquet") == []
    assert read_json(out / "suite_hashes.json") == {"content": [], "images": []}


def test_broken_and_large_pictures_are_set_aside(folder: Path) -> None:
    (folder / "broken.png").write_bytes(RED[:60])
    (folder / "text.png").write_text("no picture")
    rows = [ask("What?", image=name) for name in ("broken.png", "text.png", "gone.png", "red.png")]
    report, out = take(folder, rows)
    assert report["rejected_by_kind"] == {"image": 2, "missing_image": 1}
    assert report["train"] == 1
    frame = pd.read_parquet(out / "rejects.parquet")
    assert frame.columns.tolist() == ["split", "sample_id", "file", "reason", "kind"]
    assert frame["file"].tolist() == ["train.json#0", "train.json#1", "train.json#2"]
    assert report["reasons"][1] == "d/train-000001 (train.json#1): the image is no JPEG, PNG or WebP"


def test_a_picture_over_max_pixels_is_set_aside(folder: Path) -> None:
    with pytest.raises(DropError, match="no training sample is good"):
        take(folder, [ask("What?", image="red.png")], params=Ingest(max_pixels=1023, max_reject_fraction=1.0))
    report, _ = take(folder, [ask("What?", image="red.png")], params=Ingest(max_pixels=1024))
    assert report["train"] == 1


def test_a_file_far_over_max_pixels_is_not_read(folder: Path) -> None:
    with open(folder / "huge.png", "wb") as file:
        file.truncate(20 << 30)  # sparse: takes no room
    report, out = take(folder, [ask("What?", image="huge.png"), ask("Why?")], params=Ingest(max_pixels=10_000))
    assert rejects(out) == [("d/train-000000", "pixels")]
    assert report["train"] == 1


def test_duplicates_are_dropped_and_counted_but_are_not_bad(folder: Path) -> None:
    rows = [ask("What?", image="red.png"), ask(" What? ", image="red.png"), ask("What?", image="blue.png")]
    report, _ = take(folder, rows * 2, [ask("Who?"), ask("Who?")], params=Ingest(max_reject_fraction=0.0))
    assert (report["train"], report["duplicates"], report["rejected"]) == (2, {"train": 4, "eval": 1}, 0)


def test_duplicates_of_live_samples_only(folder: Path) -> None:
    _, out = take(folder, [ask("What?", image="red.png"), ask("Why?", image="blue.png")])
    content = read_manifest(out / "manifest.parquet")["content_hash"].tolist()
    known = Known(live={content[0]}, content=set(content))
    report, _ = take(folder, [ask("What?", image="red.png"), ask("Why?", image="blue.png")], known=known)
    assert (report["train"], report["duplicates"]["train"]) == (1, 1)


def test_training_may_not_show_an_evaluation_picture(folder: Path) -> None:
    (folder / "same.webp").write_bytes(_as_webp(RED))
    train = [ask("Other?", "no", "same.webp"), ask("What?", image="blue.png")]
    report, out = take(folder, train, [ask("What?", image="red.png")])
    assert rejects(out) == [("d/train-000000", "leak")]
    assert (report["leaks"], report["train"], report["eval"]) == (1, 1, 1)


def test_training_may_not_repeat_an_evaluation_text(folder: Path) -> None:
    train = [ask("Capital of  France?", "Paris"), ask("Capital of Spain?", "Madrid")]
    report, out = take(folder, train, [ask("Capital of France?", "Paris")])
    assert rejects(out) == [("d/train-000000", "leak")]
    assert report["train"] == 1


def test_training_may_not_show_a_picture_of_an_older_suite(folder: Path) -> None:
    known = Known(suite_images={hashes(RED)})
    report, out = take(folder, [ask("What?", image="red.png"), ask("What?", image="blue.png")], known=known)
    assert rejects(out) == [("d/train-000000", "leak")]
    assert report["train"] == 1


def test_evaluation_may_not_show_a_picture_of_the_pool(folder: Path) -> None:
    known = Known(images={hashes(RED)})
    evaluation = [ask("What?", image="red.png"), ask("What?", image="blue.png")]
    report, out = take(folder, [ask("Why?")], evaluation, known)
    assert rejects(out) == [("d/eval-000000", "leak")]
    assert (report["eval"], report["leaks"]) == (1, 1)
    assert read_json(out / "suite_hashes.json")["images"] == [hashes(BLUE)]


def test_evaluation_may_not_repeat_a_text_of_the_pool(folder: Path) -> None:
    _, out = take(folder, [ask("Capital of France?", "Paris")])
    content = set(read_manifest(out / "manifest.parquet")["content_hash"])
    report, out = take(folder, [ask("Why?")], [ask("Capital of France?", "Paris")], Known(content=content))
    assert rejects(out) == [("d/eval-000000", "leak")]
    assert report["eval"] == 0


def test_ids_are_unique_in_a_drop(folder: Path) -> None:
    train = [ask(f"{n}?", id="x") for n in range(3)] + [ask("Y?", id="x~2")]
    _, out = take(folder, train, [ask("Z?", id="x")])
    assert read_shard(out / "suite.parquet")[0].sample_id == "d/x"
    assert read_manifest(out / "manifest.parquet")["sample_id"].tolist() == ["d/x~2", "d/x~3", "d/x~4", "d/x~2~2"]


def test_too_many_bad_samples_refuse_the_drop(folder: Path) -> None:
    bad = [ask("<image>") for _ in range(12)]
    with pytest.raises(DropError) as caught:
        take(folder, [ask("What?"), *bad], params=Ingest(max_reject_fraction=0.5))
    text = str(caught.value)
    assert "12 of 13 samples are bad" in text
    assert text.count("1 image tokens for 0 images") == 10
    assert "d/train-000001 (train.json#1)" in text
    assert not (folder.parent / "out").exists()


def test_just_as_many_as_allowed_do_not(folder: Path) -> None:
    rows = [ask("<image>"), ask("What?")]
    assert take(folder, rows, params=Ingest(max_reject_fraction=0.5))[0]["rejected"] == 1


@pytest.mark.parametrize(
    ("train", "known", "reason"),
    [
        ([ask("<image>")], Known(), "The first reasons"),
        ([ask("What?")], Known(drops={"d"}), "is in the pool already"),
    ],
)
def test_a_drop_that_brings_nothing_is_refused(
    folder: Path, train: list[dict[str, Any]], known: Known, reason: str
) -> None:
    with pytest.raises(DropError, match=reason):
        take(folder, train, known=known)
    assert not (folder.parent / "out").exists()


def test_a_drop_of_known_samples_only_is_refused(folder: Path) -> None:
    _, out = take(folder, [ask("What?")])
    live = set(read_manifest(out / "manifest.parquet")["content_hash"])
    with pytest.raises(DropError, match="Every training sample is in the pool already"):
        take(folder, [ask("What?")], known=Known(live=live))


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    root = make_drop(tmp_path / "drop", "squares")
    whole = (root / "train.json").read_text()
    (root / "train.json").write_text(whole[:-30])
    with pytest.raises(DropError, match="no valid JSON list"):
        take_in(read_drop(root), Known(), tmp_path / "out", LENIENT, "r001")
    assert not (tmp_path / "out").exists()


class Killed(BaseException):
    """Stands for a kill: no handler of the code under test may stop it."""


@pytest.mark.parametrize("after", [3, 12, 13, 30, 55, 70, 79])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    root = make_drop(tmp_path / "drop", "squares", train=60, eval=12)
    rows = json.loads((root / "train.json").read_text())
    rows = rows[:25] + rows[3:9] + [ask("<image>", id="x")] + rows[25:] + [ask("<image>")]
    (root / "train.json").write_text(json.dumps(rows))
    params = Ingest(shard_samples=20)
    whole = take_in(read_drop(root), Known(), tmp_path / "whole", params, "r001")
    check = intake.check_sample
    calls = 0

    def failing(item: Any, max_pixels: int) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return check(item, max_pixels)

    monkeypatch.setattr(intake, "_TOGETHER", 1)
    monkeypatch.setattr(intake, "check_sample", failing)
    with pytest.raises(Killed):
        take_in(read_drop(root), Known(), tmp_path / "out", params, "r001")
    state = tmp_path / "out" / ".state"
    done = sum(read_json(file)["read"] for file in state.glob("*.json"))
    calls = -1000
    assert take_in(read_drop(root), Known(), tmp_path / "out", params, "r001") == whole
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "whole")
    assert (done > 0) == (after >= 12)
    assert calls + 1000 == 12 + len(rows) - done, "finished shards are not done again"


def test_the_number_of_threads_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = read_drop(make_drop(tmp_path / "drop", "squares", train=60, eval=12))
    take_in(drop, Known(), tmp_path / "one", LENIENT, "r001")
    monkeypatch.setattr(intake.os, "cpu_count", lambda: 7)
    monkeypatch.setattr(intake, "_TOGETHER", 5)
    take_in(drop, Known(), tmp_path / "seven", LENIENT, "r001")
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "seven")


def test_few_pictures_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = read_drop(make_drop(tmp_path / "drop", "squares", train=700, eval=0, form="messages_parquet"))
    pulled, most = 0, 0

    def counting(*args: Any) -> Iterator[Any]:
        nonlocal pulled
        for item in read_split(*args):
            pulled += 1
            yield item

    read_split, write = intake.read_split, intake._write
    written = 0

    def noting(*args: Any) -> dict[str, Any]:
        nonlocal written, most
        most = max(most, pulled - written)
        written += 1
        return write(*args)

    monkeypatch.setattr(intake, "read_split", counting)
    monkeypatch.setattr(intake, "_write", noting)
    take_in(drop, Known(), tmp_path / "out", LENIENT, "r001")
    assert (pulled, written) == (700, 700)
    assert most <= intake._TOGETHER
    shard = pq.read_metadata(tmp_path / "out" / "shards" / "squares-00000.parquet")
    assert shard.num_row_groups == 3


def _as_webp(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "WEBP", lossless=True, exact=True)
    return stream.getvalue()
