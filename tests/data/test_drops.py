"""dataset.yaml: what is read, with which defaults, and every way to be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from make_drop import FORMS, make_drop

from adapt_inf.data.drops import read_drop
from adapt_inf.errors import DropError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_drop(tmp_path / "squares", "squares", train=8, eval=4)


def describe(folder: Path, **changes: Any) -> None:
    """Change keys of dataset.yaml; None takes a key out."""
    file = folder / "dataset.yaml"
    values = yaml.safe_load(file.read_text()) | changes
    file.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))


def refused(folder: Path) -> str:
    with pytest.raises(DropError) as caught:
        read_drop(folder)
    assert folder.name in str(caught.value) or "squares" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_recognised(tmp_path: Path, form: str) -> None:
    drop = read_drop(make_drop(tmp_path / "d", "squares", train=8, eval=4, form=form))
    assert (drop.name, drop.skill, drop.metric, drop.format) == ("squares", "colour", "exact_match", "auto")
    assert drop.license == "CC0-1.0"
    assert len(drop.train) == len(drop.eval) == 1


def test_defaults_are_filled_in(folder: Path) -> None:
    describe(folder, skill=None, license=None, description=None, eval=None)
    drop = read_drop(folder)
    assert (drop.skill, drop.license, drop.description, drop.eval) == ("squares", "unknown", "", ())


def test_a_split_may_be_several_files(folder: Path) -> None:
    (folder / "more.json").write_text((folder / "train.json").read_text())
    describe(folder, train=["train.json", "more.json"])
    assert [file.name for file in read_drop(folder).train] == ["train.json", "more.json"]


def test_no_folder(tmp_path: Path) -> None:
    assert "no folder" in refused(tmp_path / "squares")


def test_archives_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "squares.zip").write_bytes(b"PK")
    with pytest.raises(DropError, match="Unpack archives yourself"):
        read_drop(tmp_path / "squares.zip")


@pytest.mark.parametrize("text", ["\t", "a: b: c"])
def test_description_that_is_no_yaml(folder: Path, text: str) -> None:
    (folder / "dataset.yaml").write_text(text)
    assert "no YAML" in refused(folder)


@pytest.mark.parametrize("text", ["", "- a", "text"])
def test_description_without_keys(folder: Path, text: str) -> None:
    (folder / "dataset.yaml").write_text(text)
    assert "holds no keys" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": None}, "no `name`"),
        ({"name": 12}, "`name` is 12"),
        ({"name": "a b"}, "no name"),
        ({"name": "x" * 65}, "no name"),
        ({"train": 3}, "no file or list"),
        ({"train": []}, "no file or list"),
        ({"train": "../train.json"}, "climbs"),
        ({"train": "dataset.yaml"}, "unknown format"),
        ({"format": "parquet"}, "`format` is parquet"),
        ({"format": "messages"}, "unknown format"),
        ({"skill": "a\nb"}, "`skill` is 'a\\nb', no printable text"),
        ({"skill": "x" * 201}, "no printable text of at most 200 characters"),
    ],
)
def test_description_at_fault(folder: Path, changes: dict[str, Any], reason: str) -> None:
    describe(folder, **changes)
    assert reason in refused(folder)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("description: 2024-02-30", "no YAML"),
        (f"description: {'9' * 5000}", "no YAML"),
        ("description: !!bool x", "no YAML"),
        ("description: !!timestamp x", "no YAML"),
        ('description: "\\ud800"', "no UTF-8 text"),
        ('license: "\\ud800"', "no UTF-8 text"),
        ('skill: "\\ud800"', "no UTF-8 text"),
    ],
)
def test_what_yaml_or_utf_8_cannot_hold(folder: Path, line: str, reason: str) -> None:
    with open(folder / "dataset.yaml", "a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert reason in refused(folder)


@pytest.mark.parametrize("name", ["train.zip", "train.tar.gz", "train.pkl", "train.pt"])
def test_archives_and_pickles_are_no_split(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    describe(folder, train=name)
    assert "unknown format" in refused(folder)


@pytest.mark.parametrize("rows", [[{"text": "a"}], [{"caption": "a", "image": "b.png"}] * 200, [3]])
def test_samples_of_an_unknown_layout(folder: Path, rows: list[Any]) -> None:
    (folder / "train.json").write_text(json.dumps(rows))
    assert "unknown format" in refused(folder)


def test_an_empty_split(folder: Path) -> None:
    (folder / "train.json").write_text("[]")
    assert "the train split is empty" in refused(folder)


def test_a_split_that_is_not_what_its_name_says(folder: Path) -> None:
    (folder / "train.json").write_text("{}")
    assert "train.json is no JSON list" in refused(folder)
