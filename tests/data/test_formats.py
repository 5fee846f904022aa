"""Formats: the same sample from any of them, and a reason for every one that is bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from make_drop import FORMS, make_drop, square
from sample_strategies import sample_lists

from adapt_inf.data.drops import read_drop
from adapt_inf.data.formats import RawSample, Reject, count_split, read_split
from adapt_inf.data.samples import Sample, text_of
from adapt_inf.errors import DropError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A drop's folder with two pictures and a good sample in front of whatever a test adds."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(square("red", rng))
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": "train.jsonl"}))
    return tmp_path


def read(folder: Path, *rows: Any, **description: Any) -> list[RawSample | Reject]:
    """What the reader makes of `rows`; a good one before them tells the layout."""
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (talk(), *rows)))
    if description:
        (folder / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": "train.jsonl"} | description))
    first, *rest = read_split(read_drop(folder), "train")
    assert isinstance(first, RawSample)
    return rest


def talk(human: Any = "What?", gpt: Any = "That.", **more: Any) -> dict[str, Any]:
    """A LLaVA sample."""
    return {"conversations": [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}], **more}


def shape(sample: RawSample | Reject) -> list[list[Any]]:
    """Parts by turn: None for an image, else the text."""
    assert isinstance(sample, RawSample), sample
    return [[part.get("text") for part in message["content"]] for message in sample.messages]


def loaded(sample: RawSample | Reject) -> tuple[bytes, ...]:
    assert isinstance(sample, RawSample), sample
    return tuple(image if isinstance(image, bytes) else image.read_bytes() for image in sample.images)


# The same drop in every format


def test_all_forms_hold_the_same_samples(tmp_path: Path) -> None:
    known = []
    for form in FORMS:
        drop = read_drop(make_drop(tmp_path / form, "squares", train=16, eval=8, form=form))
        samples = [sample for split in ("train", "eval") for sample in read_split(drop, split)]
        assert len(samples) == count_split(drop, "train") + count_split(drop, "eval") == 24
        known.append([(s.id, s.messages, s.skill, s.metric, s.answers, loaded(s)) for s in samples])  # type: ignore[union-attr]
    assert all(other == known[0] for other in known)


def llava_row(sample: Sample, folder: Path, number: int) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    spoken = [
        {
            "from": names[message["role"]],
            "value": "".join("<image>\n" if p["type"] == "image" else p["text"] for p in message["content"]),
        }
        for message in sample.messages
    ]
    paths = []
    for place, data in enumerate(sample.images):
        (folder / f"{number}-{place}.png").write_bytes(data)
        paths.append(f"{number}-{place}.png")
    row = {"id": number, "conversations": spoken, "skill": sample.skill, "metric": sample.metric}
    return row | {"image": paths, "answers": list(sample.answers)}


def messages_row(sample: Sample, number: int, as_text: bool) -> dict[str, Any]:
    messages = json.dumps(sample.messages) if as_text else sample.messages
    images = [{"bytes": data, "path": None} for data in sample.images]
    row = {"id": str(number), "messages": messages, "images": images, "skill": sample.skill}
    return row | {"metric": sample.metric, "answers": list(sample.answers)}


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40, deadline=None
)
@given(samples=sample_lists(max_size=5))
def test_any_sample_survives_any_format(tmp_path: Path, samples: list[Sample]) -> None:
    if not samples:
        return
    (tmp_path / "llava.json").write_text(json.dumps([llava_row(s, tmp_path, n) for n, s in enumerate(samples)]))
    for name, as_text in (("lists.parquet", False), ("text.parquet", True)):
        rows = [messages_row(sample, number, as_text) for number, sample in enumerate(samples)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    for name in ("llava.json", "lists.parquet", "text.parquet"):
        (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({"name": "drop", "train": name}))
        outcomes = list(read_split(read_drop(tmp_path), "train"))
        again = [
            Sample(f"drop/{raw.id}", loaded(raw), raw.messages, raw.skill, raw.metric, raw.answers)
            for raw in outcomes
            if isinstance(raw, RawSample)
        ]
        assert again == samples


# Shapes that are found in the wild


def test_images_without_a_token_stand_first(folder: Path) -> None:
    (sample,) = read(folder, talk(image=["a.png", "b.png"]))
    assert shape(sample) == [[None, None, "What?"], ["That."]]


def test_tokens_place_images_in_later_turns(folder: Path) -> None:
    turns = [("human", "Hello"), ("gpt", "Hi"), ("human", "Compare <image> and <image>."), ("gpt", "Same")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns], "image": ["a.png", "b.png"]}
    (sample,) = read(folder, row)
    assert shape(sample) == [["Hello"], ["Hi"], ["Compare ", None, " and ", None, "."], ["Same"]]


def test_a_system_turn_may_begin(folder: Path) -> None:
    row = talk()
    row["conversations"].insert(0, {"from": "system", "value": "Be short."})
    (sample,) = read(folder, row)
    assert isinstance(sample, RawSample)
    assert [message["role"] for message in sample.messages] == ["system", "user", "assistant"]


def test_image_parts_may_carry_their_picture(folder: Path) -> None:
    said = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    row = {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "That."}]}
    (sample,) = read(folder, row)
    assert shape(sample) == [[None, "What?"], ["That."]]
    assert loaded(sample) == ((folder / "images" / "a.png").read_bytes(),)


def test_questions_and_answers_are_samples(folder: Path) -> None:
    one, two = read(
        folder,
        {"question": "How many?", "answers": ["two", "2"], "image": "a.png"},
        {"question": "How many?", "answer": 2},
    )
    assert shape(one) == [[None, "How many?"], ["two"]]
    assert isinstance(one, RawSample)
    assert one.answers == ("two", "2")
    assert shape(two) == [["How many?"], ["2"]]


def test_pictures_lie_in_the_drop_beside_the_split_or_in_images(folder: Path) -> None:
    (folder / "part" / "pictures").mkdir(parents=True)
    (folder / "part" / "pictures" / "c.png").write_bytes(b"c")
    rows = [talk(image=name) for name in ("images/a.png", "a.png", "pictures/c.png")]
    (folder / "part" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": "part/train.jsonl"}))
    samples = list(read_split(read_drop(folder), "train"))
    assert [len(loaded(sample)) > 0 for sample in samples] == [True] * 3


def test_what_a_sample_does_not_say_is_the_drops(folder: Path) -> None:
    plain, own = read(
        folder,
        talk(gpt=" That. "),
        talk(skill="boxes", metric="iou_50", answers=["x", "x", "y"]),
        skill="naming",
        metric="token_f1",
    )
    assert isinstance(plain, RawSample)
    assert isinstance(own, RawSample)
    assert (plain.skill, plain.metric, plain.answers) == ("naming", "token_f1", ("That.",))
    assert (own.skill, own.metric, own.answers) == ("boxes", "iou_50", ("x", "y"))


def test_the_answer_is_the_last_turns(folder: Path) -> None:
    row = talk()
    row["conversations"] += talk(human="And?", gpt="This.")["conversations"]
    (sample,) = read(folder, row)
    assert isinstance(sample, RawSample)
    assert sample.answers == (text_of(sample.messages[-1]),) == ("This.",)


def test_ids_are_the_drops_or_the_records_number(folder: Path) -> None:
    assert [sample.id for sample in read(folder, talk(id=7), talk(id="x"), talk())] == ["7", "x", "train-000003"]


def test_a_cell_that_holds_no_number_is_no_answer(folder: Path) -> None:
    answers = [1.5, float("nan"), None, float("inf")]
    pq.write_table(pa.table({"question": ["How many?"] * 4, "answer": answers}), folder / "train.parquet")
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": "train.parquet"}))
    first, *rest = read_split(read_drop(folder), "train")
    assert isinstance(first, RawSample)
    assert first.answers == ("1.5",)
    assert [each.kind for each in rest if isinstance(each, Reject)] == ["assistant"] * 3


# What is set aside, and why; more of it in test_bad_inputs.py

BAD = [
    (talk(image=["a.png", 3]), "missing_image", "int"),
    (talk(human="<image>", image={"x": 1}), "missing_image", "NoneType"),
    (talk(human="<image>\nWhat?"), "image_tokens", "1 image tokens for 0 images"),
    ({"conversations": []}, "assistant", "no turn is the assistant's"),
    ({"conversations": talk()["conversations"] + talk()["conversations"][:1]}, "assistant", "the last turn"),
    (talk(gpt=None), "turns", "NoneType"),
    ({"conversations": talk()["conversations"][::-1] + talk()["conversations"][1:]}, "turns", "alternate"),
    ({"conversations": [{"from": ["x"], "value": "x"}]}, "turns", "roles are"),
    ({"conversations": "no list"}, "turns", "no JSON"),
    ({"conversations": {"a": 1}}, "turns", "no list of turns"),
    ({"conversations": ["a"]}, "turns", "no list of turns"),
    ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "turns", "'video'"),
    ({"question": "What?"}, "assistant", "no answer"),
    (talk(metric=[1]), "metric", "metrics are"),
    (talk(skill=3), "skill", "printable"),
    (talk(skill="a\nb"), "skill", "printable"),
    (talk(answers={"a": 1}), "answers", "dict"),
    (talk(image="half\ud83d.png"), "text", "surrogate"),
]


@pytest.mark.parametrize(("row", "kind", "reason"), BAD)
def test_a_bad_sample_is_set_aside_with_its_reason(folder: Path, row: Any, kind: str, reason: str) -> None:
    bad, good = read(folder, row, talk())
    assert isinstance(bad, Reject)
    assert (bad.kind, reason in bad.reason) == (kind, True), bad.reason
    assert bad.file == "train.jsonl:2"
    assert isinstance(good, RawSample)


def test_a_layout_may_be_demanded(folder: Path) -> None:
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    (bad,) = read(folder, {"messages": said}, format="llava")
    assert isinstance(bad, Reject)
    assert bad.kind == "record"


def test_a_file_that_breaks_off_stops_the_drop(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps([talk(), talk()])[:-10])
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": "train.json"}))
    drop = read_drop(folder)
    with pytest.raises(DropError, match=r"train\.json is no valid JSON list"):
        list(read_split(drop, "train"))
    with pytest.raises(DropError, match=r"train\.json is no valid JSON list"):
        count_split(drop, "train")
