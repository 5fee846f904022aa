"""One bad sample among good ones: set aside with its reason, and the pool is that of the drop without it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_drop import GOOD, NAME, add_line, address_space, ask, describe, empty_project, good_drop, rejects, take_in
from make_drop import png, square
from PIL import Image

from adapt_inf.data.images import decode_image
from adapt_inf.data.manifest import read_manifest
from adapt_inf.data.shards import read_shard
from adapt_inf.files import folder_digest, read_json
from adapt_inf.project import Project

PIXELS = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
SMALL_MEMORY = 512  # MB; threads and allocators reserve more than they use


def encode(form: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def chunked_png(width: int, height: int, rows: bytes) -> bytes:
    """A black-and-white PNG from its compressed rows."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def huge_png(side: int = 30_000) -> bytes:
    """A whole, valid picture: 900 million pixels in some 110 KB."""
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + packer.flush()
    return chunked_png(side, side, rows)


def moving(form: str) -> bytes:
    return encode(form, save_all=True, append_images=[Image.fromarray(255 - PIXELS)], duration=100)


IMAGES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty file": (lambda: b"", "image", "no JPEG, PNG or WebP"),
    "truncated PNG": (lambda: png(PIXELS)[:-40], "image", "cannot be decoded"),
    "truncated JPEG": (lambda: encode("JPEG")[:-100], "image", "cannot be decoded (image file is truncated"),
    "truncated WebP": (lambda: encode("WEBP")[:-40], "image", "cannot be decoded"),
    "zero-sized": (lambda: chunked_png(0, 0, zlib.compress(b"")), "image", "no JPEG, PNG or WebP"),
    "30,000 x 30,000": (huge_png, "pixels", "the image has over"),
    "8,000 x 8,000": (lambda: huge_png(8000), "pixels", "8000 x 8000 pixels, over 50000000"),
    "animated WebP": (lambda: moving("WEBP"), "image", "animated"),
    "animated PNG": (lambda: moving("PNG"), "image", "animated"),
    "animated GIF": (lambda: moving("GIF"), "image", "no JPEG, PNG or WebP"),
    "TIFF named .png": (lambda: encode("TIFF"), "image", "no JPEG, PNG or WebP"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image", "no JPEG, PNG or WebP"),
    "HTML named .png": (lambda: b"<!DOCTYPE html><title>404</title>", "image", "no JPEG, PNG or WebP"),
    "pickle named .png": (lambda: pickle.dumps({"a": 1}), "image", "no JPEG, PNG or WebP"),
}

PATHS = {
    "missing": ("images/none.png", "missing_image", "is not in the drop"),
    "climbing": ("../secret.png", "path", "climbs with `..`"),
    "absolute": ("/etc/passwd", "path", "absolute path"),
    "device": ("/dev/zero", "path", "absolute path"),
    "URL": ("https://example.org/a.png", "path", "is a URL"),
    "folder": ("images", "missing_image", "'images' is no file"),
    "newline": ("images/0\n.png", "path", "is no path"),
    "null": ("images/0\0.png", "text", "null character"),
    "300 bytes": ("é" * 150 + ".png", "path", "at most 255 bytes"),
    "number": (3, "missing_image", "int, neither a path nor bytes"),
}


def turns(*said: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": text} for who, text in said], **more}


LINES: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"{'a': 1}", "record", "the line is no JSON"),
    "cut off": (json.dumps(ask("What?")).encode()[:-5], "record", "the line is no JSON"),
    "no UTF-8": (b'{"question": "\xff", "answer": "a"}', "record", "'utf-8' codec can't decode"),
    "NaN": (b'{"question": "a?", "answer": NaN}', "record", "it holds NaN"),
    "infinity": (b'{"question": "a?", "answer": "a", "weight": -Infinity}', "record", "it holds -Infinity"),
    "100 MB line": (b'{"question": "' + b"x" * 100_000_000 + b'", "answer": "a"}', "record", "longer than 16 MB"),
    "deep nesting": (b"[" * 100_000, "record", "the line is no JSON"),
    "a list": ([1], "record", "no object but list"),
    "no known key": ({"caption": "a"}, "record", "none of conversations"),
    "list as skill": (ask("What?", skill=["a"]), "skill", "no printable text"),
    "list as turn": (ask("What?", answer=["red"]), "turns", "a part of a turn is str"),
    "number as turn": (ask("What?", answer=3), "turns", "int, no text"),
    "unknown role": (turns(("human", "What?"), ("tool", "x"), ("gpt", "y")), "turns", "by 'tool'"),
    "two human turns": (turns(("human", "What?"), ("human", "Now?"), ("gpt", "y")), "turns", "do not alternate"),
    "no assistant turn": (turns(("human", "What?")), "assistant", "no turn is the assistant's"),
    "empty answer": (ask("What?", " \n"), "assistant", "an assistant's turn is empty"),
    "empty question": (ask(""), "turns", "a user's turn is empty"),
    "more tokens than images": (ask("<image><image>What?", image="images/0.png"), "image_tokens", "2 image tokens for"),
    "fewer tokens than images": (
        ask("<image>What?", image=["images/0.png", "images/1.png"]),
        "image_tokens",
        "1 image tokens for 2 images",
    ),
    "a million images": (ask("What?", image=["images/0.png"] * 1_000_000), "image_tokens", "at most 256"),
    "token in the answer": (ask("What?", "<image>", image="images/0.png"), "image_tokens", "in the assistant's turn"),
    "id of a list": (ask("What?", id=[1]), "id", "no printable text"),
    "id of a fraction": (ask("What?", id=1.5), "id", "no printable text"),
    "id of a truth": (ask("What?", id=True), "id", "no printable text"),
    "id of 300 letters": (ask("What?", id="x" * 300), "id", "at most 200 characters"),
    "unknown metric": (ask("What?", metric="bleu"), "metric", "metrics are"),
    "empty accepted answer": (ask("What?", answers=["a", ""]), "answers", "is empty"),
    "null in a text": (ask("What\0?"), "text", "null character"),
    "half a surrogate": (ask("What \ud83d"), "text", "surrogate"),
}

GOOD_ROW = {"question": "Parquet?", "answer": "yes"}
ROWS: dict[str, tuple[pa.Table, str, str]] = {
    "wrong columns": (pa.table({"text": ["a"]}), "record", "none of conversations"),
    "no picture": (pa.Table.from_pylist([GOOD_ROW | {"image": {"bytes": b"", "path": None}}]), "image", "no JPEG"),
    "null bytes": (
        pa.table({"question": ["a"], "answer": ["b"], "images": pa.array([[None]], pa.list_(pa.binary()))}),
        "missing_image",
        "NoneType, neither a path nor bytes",
    ),
    "pictures nested": (pa.Table.from_pylist([GOOD_ROW | {"images": [[png(PIXELS)]]}]), "missing_image", "is list"),
    "turns nested": (pa.Table.from_pylist([{"messages": [[{"role": "user"}]]}]), "turns", "no list of turns"),
    "turns no list": (pa.Table.from_pylist([{"messages": {"role": "user"}}]), "turns", "no list of turns"),
    "pickled turns": (pa.table({"conversations": [pickle.dumps(["a"])]}), "turns", "no list of turns"),
    "pickled picture": (pa.Table.from_pylist([GOOD_ROW | {"image": pickle.dumps(PIXELS)}]), "image", "no JPEG"),
    "no UTF-8": (pa.table({"question": pa.array([b"\xff"]).view(pa.string()), "answer": ["a"]}), "record", "cannot be"),
    "NaN as answer": (pa.table({"question": ["a"], "answer": ["b"], "answers": [float("nan")]}), "answers", "number"),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pool of the good samples alone, by hash."""
    project = empty_project(tmp_path_factory.mktemp("clean"))
    good_drop(project.drop(NAME))
    report, pool = take_in(project)
    assert (report["train"], report["eval"], report["rejected"]) == (GOOD, 1, 0)
    return folder_digest(pool)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = empty_project(tmp_path)
    good_drop(project.drop(NAME))
    return project


def check(project: Project, clean: str, kind: str, reason: str, file: str) -> None:
    """The one bad sample is in the rejects and in the counts, and nothing else is any different."""
    report, pool = take_in(project)
    assert (report["train"], report["eval"], report["rejected"]) == (GOOD, 1, 1)
    (row,) = rejects(project)
    assert (row["kind"], row["file"], row["split"]) == (kind, file, "train")
    assert reason in row["reason"]
    assert len(row["reason"]) < 300
    assert read_json(project.output("r001", "ingest") / "report.json")["rejected_by_kind"] == {kind: 1}
    assert folder_digest(pool) == clean


@pytest.mark.parametrize("case", IMAGES)
def test_a_bad_picture(project: Project, clean: str, case: str) -> None:
    make, kind, reason = IMAGES[case]
    (project.drop(NAME) / "images" / "bad.png").write_bytes(make())
    add_line(project.drop(NAME), json.dumps(ask("What?", image="images/bad.png")).encode())
    with address_space(SMALL_MEMORY):
        check(project, clean, kind, reason, f"train.jsonl:{GOOD + 1}")


@pytest.mark.parametrize("case", PATHS)
def test_a_bad_path(project: Project, clean: str, case: str) -> None:
    path, kind, reason = PATHS[case]
    add_line(project.drop(NAME), json.dumps(ask("<image>What?", image=path)).encode())
    check(project, clean, kind, reason, f"train.jsonl:{GOOD + 1}")


@pytest.mark.parametrize("case", LINES)
def test_a_bad_line(project: Project, clean: str, case: str) -> None:
    line, kind, reason = LINES[case]
    add_line(project.drop(NAME), line if isinstance(line, bytes) else json.dumps(line).encode())
    with address_space(SMALL_MEMORY):
        check(project, clean, kind, reason, f"train.jsonl:{GOOD + 1}")


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row(project: Project, clean: str, case: str) -> None:
    table, kind, reason = ROWS[case]
    pq.write_table(table, project.drop(NAME) / "more.parquet")
    describe(project.drop(NAME), train=["train.jsonl", "more.parquet"])
    check(project, clean, kind, reason, "more.parquet#0")


def test_a_bad_element_of_a_list(project: Project, clean: str) -> None:
    good = [json.loads(line) for line in (project.drop(NAME) / "train.jsonl").read_text().splitlines()]
    (project.drop(NAME) / "train.json").write_text(json.dumps([*good, ask("What?", answers=[float("nan")])]))
    describe(project.drop(NAME), train="train.json")
    check(project, clean, "record", "it holds NaN", f"train.json#{GOOD}")


# Odd, but good: taken in as a person would see it


def cmyk() -> bytes:
    return encode("JPEG", Image.new("CMYK", (32, 24), (0, 255, 255, 0)))


def sixteen_bit() -> bytes:
    return encode("PNG", Image.fromarray(np.full((24, 32), 257 * 200, dtype=np.uint16)))


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode("JPEG", Image.new("RGB", (32, 24), (200, 200, 200)), exif=exif)


@pytest.mark.parametrize(
    ("make", "size", "colour"),
    [
        (cmyk, (32, 24), (255, 0, 0)),
        (sixteen_bit, (32, 24), (200, 200, 200)),
        (sideways, (24, 32), (200, 200, 200)),
        (lambda: encode("JPEG", Image.new("RGB", (32, 24), (9, 9, 9))), (32, 24), (9, 9, 9)),
    ],
    ids=["CMYK", "16 bit", "turned by EXIF", "JPEG named .png"],
)
def test_an_odd_picture_is_taken_in_as_it_is_seen(
    project: Project, make: Callable[[], bytes], size: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    (project.drop(NAME) / "images" / "odd.png").write_bytes(make())
    add_line(project.drop(NAME), json.dumps(ask("What?", image="images/odd.png")).encode())
    report, pool = take_in(project)
    assert (report["train"], report["rejected"]) == (GOOD + 1, 0)
    (data,) = read_shard(next((pool / "shards").iterdir()))[GOOD].images
    seen = decode_image(data, 10_000)
    assert seen.size == size
    assert np.abs(np.asarray(seen, dtype=int) - colour).max() <= 3


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ([{}], ["train-000004"]),
        ([{"id": None}, {"id": ""}], ["train-000004", "train-000005"]),
        ([{"id": 7}, {"id": "7"}], ["7", "7~2"]),
        ([{"id": "good-0"}], ["good-0~2"]),
    ],
    ids=["missing", "null and empty", "a number", "doubled"],
)
def test_every_sample_gets_an_id_of_its_own(project: Project, more: list[dict[str, Any]], names: list[str]) -> None:
    for number, keys in enumerate(more):
        add_line(project.drop(NAME), json.dumps(ask(f"What {number}?", **keys)).encode())
    _, pool = take_in(project)
    ids = read_manifest(pool / "manifest.parquet")["sample_id"].tolist()
    assert ids[GOOD:] == [f"{NAME}/{name}" for name in names]


def test_skills_that_nothing_tests_are_named(project: Project) -> None:
    add_line(project.drop(NAME), json.dumps(ask("What?", skill="facts")).encode())
    report, _ = take_in(project)
    assert report["untested_skills"] == 1
    assert read_json(project.output("r001", "ingest") / "report.json")["untested_skills"] == ["facts"]


def test_equal_and_leaking_samples_are_counted(project: Project) -> None:
    folder = project.drop(NAME)
    (folder / "images" / "leak.webp").write_bytes(
        encode("WEBP", Image.open(folder / "images" / f"{GOOD}.png"), lossless=True)
    )
    (folder / "images" / "other.png").write_bytes(square("blue", np.random.default_rng(3)))
    add_line(folder, json.dumps(ask("Another question?", image="images/leak.webp")).encode())
    add_line(folder, json.dumps(ask(" What  colour?", "red", "images/0.png")).encode())
    add_line(folder, json.dumps(ask("What?", image="images/other.png")).encode())
    report, _ = take_in(project)
    assert (report["train"], report["leaks"], report["duplicates"]) == (GOOD + 1, 1, {"train": 1, "eval": 0})
    assert [row["kind"] for row in rejects(project)] == ["leak"]
