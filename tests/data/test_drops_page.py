"""docs/drops.md shows drops that work, and names every kind of reject."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from make_drop import square

import adapt_inf
from adapt_inf.config import Ingest
from adapt_inf.data.drops import read_drop
from adapt_inf.data.intake import Known, take_in

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "drops.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
DESCRIPTION = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_every_example_is_taken_in_whole(tmp_path: Path, example: str, suffix: str) -> None:
    rng = np.random.default_rng(0)
    drop = tmp_path / "drop"
    (drop / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (drop / "images" / name).write_bytes(square("red", rng))
    rows = json.loads(example)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (drop / f"train{suffix}").write_text(example if suffix == ".json" else lines)
    (drop / "dataset.yaml").write_text(yaml.safe_dump({"name": "d", "train": f"train{suffix}"}))
    report = take_in(read_drop(drop), Known(), tmp_path / "out", Ingest(), "r001")
    assert (report["train"], report["rejected"]) == (len(rows), 0)


def test_the_description_is_one(tmp_path: Path) -> None:
    row = {"question": "Capital of France?", "answer": "Paris"}
    for split in ("train", "eval"):
        (tmp_path / f"{split}.json").write_text(json.dumps([row]))
    (tmp_path / "dataset.yaml").write_text(DESCRIPTION)
    assert read_drop(tmp_path).name == "shapes"


def test_every_kind_of_reject_is_on_the_page() -> None:
    sources = [file.read_text() for file in (Path(adapt_inf.__file__).parent / "data").glob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'BadSample\(\s*"(\w+)"', text)} | {"leak"}
    assert len(kinds) > 8
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in PAGE] == []
