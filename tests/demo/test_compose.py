"""The continuum: the same each time, no evaluation picture in a training split, every file as a drop wants it."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from adapt_inf.data.drops import read_drop
from adapt_inf.data.formats import RawSample, read_split
from adapt_inf.demo.compose import BASE, DROPS, HELD_OUT, PLANS, compose_base, compose_drop
from adapt_inf.demo.drops.plan import Named, draw, nudged
from adapt_inf.demo.pictures import Split

LONGEST_QUESTION = 70  # characters: a tiny model pays for every token
RARE = 0.05
EVERY = {**PLANS, "base": BASE}


@cache
def drawn(name: str) -> dict[Split, list[Named]]:
    return draw(EVERY[name], 0)


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return whole.hexdigest()


def test_six_drops_of_uneven_size() -> None:
    sizes = [sum(plan.train.values()) for plan in PLANS.values()]
    assert len(DROPS) >= 6
    assert min(sizes) >= 500
    assert max(sizes) <= 3000
    assert max(sizes) >= 2 * min(sizes)
    assert sum(sizes) + sum(BASE.train.values()) <= 14_000  # what a demo of five drops can look at in eight minutes
    assert all(150 <= sum(plan.evaluation.values()) <= 300 for plan in EVERY.values())


@pytest.mark.parametrize("name", EVERY)
def test_counts_are_those_of_the_plan(name: str) -> None:
    plan = EVERY[name]
    for split, counts in (("train", plan.train), ("eval", plan.evaluation)):
        assert len(drawn(name)[split]) == sum(counts.values())
    assert len({named.id for split in drawn(name).values() for named in split}) == sum(map(len, drawn(name).values()))
    assert plan.skill in {named.item.skill for named in drawn(name)["eval"]}


@pytest.mark.parametrize("name", DROPS)
def test_a_skill_is_rare_and_evaluated(name: str) -> None:
    shares = Counter(named.item.skill for named in drawn(name)["train"])
    rare = {skill for skill, number in shares.items() if number < RARE * shares.total()}
    assert rare
    assert rare <= {named.item.skill for named in drawn(name)["eval"]}


def test_no_evaluation_picture_is_in_any_training_split() -> None:
    pictures = {
        split: {image.tobytes() for name in EVERY for named in drawn(name)[split] for image in named.item.images}
        for split in ("train", "eval")
    }
    assert pictures["eval"]
    assert not pictures["train"] & pictures["eval"]


def test_no_text_is_in_both_splits() -> None:
    texts = {
        split: {named.item.question for name in EVERY for named in drawn(name)[split] if not named.item.images}
        for split in ("train", "eval")
    }
    assert texts["eval"]
    assert not texts["train"] & texts["eval"]


@pytest.mark.parametrize("name", [name for name in DROPS if PLANS[name].repeats])
def test_training_repeats_itself(name: str) -> None:
    by_id = {named.id: named.item for named in drawn(name)["train"]}
    again = {key: item for key, item in by_id.items() if "-again" in key}
    shown = sum(1 for item in by_id.values() if item.images)
    assert 0.8 * PLANS[name].repeats <= len(again) / shown <= 1.2 * PLANS[name].repeats
    for key, item in again.items():
        source = by_id[key.split("-again")[0]]
        assert (item.question, item.answer) == (source.question, source.answer)
        assert all(not np.array_equal(a, b) for a, b in zip(item.images, source.images, strict=True))


def test_nudged_keeps_the_picture() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(20, 230, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    moved = nudged(image, rng)
    assert moved.shape == image.shape
    assert moved.dtype == image.dtype
    assert np.corrcoef(image.ravel(), moved.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", EVERY)
def test_questions_are_short(name: str) -> None:
    items = [named.item for split in drawn(name).values() for named in split]
    assert max(len(item.question) for item in items) <= LONGEST_QUESTION
    assert all(item.answer for item in items)
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for item in items for image in item.images)


@pytest.mark.parametrize("name", ["handwriting", "geography"])
def test_composing_twice_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        compose_drop(name, tmp_path / place, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


@pytest.mark.parametrize("name", EVERY)
def test_a_carved_drop_is_judged_by_training_samples_that_it_does_not_train_on(name: str, tmp_path: Path) -> None:
    if name == "base":
        compose_base(tmp_path, development=True)
    else:
        compose_drop(name, tmp_path, development=True)
    drop = read_drop(tmp_path)
    whole = {named.id: named for named in drawn(name)["train"]}
    ids = {split: {raw.id for raw in read_split(drop, split)} for split in ("train", "eval")}
    assert ids["train"] | ids["eval"] <= set(whole)
    originals = {split: {one.split("-again")[0] for one in ids[split]} for split in ids}
    assert not originals["train"] & originals["eval"]
    if name == "shapes":  # several questions are about one picture
        pictures = {split: {whole[one].item.images[0].tobytes() for one in ids[split]} for split in ids}
        assert not pictures["train"] & pictures["eval"]
    share = len(ids["eval"]) / len(ids["train"])
    assert 0.5 / HELD_OUT < share < 2 / HELD_OUT
    assert {whole[one].item.skill for one in ids["eval"]} >= {EVERY[name].skill}


@pytest.mark.parametrize("name", EVERY)
def test_a_drop_reads_back_as_drawn(name: str, tmp_path: Path) -> None:
    if name == "base":
        compose_base(tmp_path)
    else:
        compose_drop(name, tmp_path)
    drop = read_drop(tmp_path)
    assert (drop.name, drop.skill) == (name, EVERY[name].skill)
    for split in ("train", "eval"):
        read = list(read_split(drop, split))
        assert all(isinstance(sample, RawSample) for sample in read)
        items = [named.item for named in drawn(name)[split]]
        for sample, item in zip(read, items, strict=True):
            assert isinstance(sample, RawSample)
            assert (sample.skill, sample.answers, len(sample.images)) == (item.skill, (item.answer,), len(item.images))
            assert sample.metric == EVERY[name].metrics.get(item.skill, "exact_match")
            assert all(image.is_file() for image in sample.images if isinstance(image, Path))


def test_drops_come_in_all_forms() -> None:
    assert {plan.form for plan in PLANS.values()} == {"llava_json", "llava_jsonl", "messages", "parquet"}
