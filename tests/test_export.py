"""A round's model written out: plain transformers and PEFT load it, and it answers as the round's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from machine import Machine, copy_project

from adapt_inf.cli import main
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.export import CARD, export
from adapt_inf.files import folder_digest, read_json, write_json
from adapt_inf.models.vlm import load_vlm
from adapt_inf.project import Project

# What a reader of the card does, in a process that knows nothing of ours.
ASK = """
import sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder, out, base = sys.argv[1:]
if base:
    from peft import PeftModel
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), folder)
else:
    model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour is the square?"}]}]
text = processor.apply_chat_template(chat, add_generation_prompt=True)
inputs = dict(processor(text=text, images=[Image.new("RGB", (40, 30), (200, 40, 40))], return_tensors="pt"))
with torch.no_grad():
    logits = model.float()(**inputs).logits
    tokens = model.generate(**inputs, do_sample=False, min_new_tokens=8, max_new_tokens=8)
assert not any(name.startswith("adapt_inf") for name in sys.modules)
torch.save({"inputs": inputs, "logits": logits, "tokens": tokens}, out)
"""


def ask(folder: Path, base: str = "") -> dict[str, Any]:
    out = folder.with_suffix(".pt")
    subprocess.run([sys.executable, "-c", ASK, str(folder), str(out), base], check=True, cwd=folder.parent)
    return torch.load(out, weights_only=True)


def expect_round(found: dict[str, Any], project: Project, round_id: str) -> None:
    vlm = load_vlm(project.output(round_id, "model"))
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], vlm.model(**found["inputs"]).logits, rtol=1e-4, atol=1e-5)
        tokens = vlm.model.generate(**found["inputs"], do_sample=False, min_new_tokens=8, max_new_tokens=8)
        assert torch.equal(found["tokens"], tokens)
        with vlm.model.disable_adapter():
            assert not torch.allclose(found["logits"], vlm.model(**found["inputs"]).logits, rtol=1e-4, atol=1e-5)


def test_a_merged_model_needs_transformers_alone(two_rounds: Project, tmp_path: Path) -> None:
    export(two_rounds, "r002", tmp_path / "merged", merge=True)
    expect_round(ask(tmp_path / "merged"), two_rounds, "r002")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", CARD} <= names
    assert not any("adapter" in name for name in names)


def test_a_merged_model_keeps_the_type_of_its_base(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "project")
    base = project.output("base", "model")
    model = load_vlm(base).model.to(torch.bfloat16)
    shutil.rmtree(tmp_path / "half", ignore_errors=True)
    model.save_pretrained(tmp_path / "half")
    for name in ("model.safetensors", "config.json"):
        (base / name).unlink()  # a hard link of DVC's cache
        shutil.copyfile(tmp_path / "half" / name, base / name)
    card = project.output("r002", "model") / "model.json"
    known = read_json(card)
    size = sum(file.stat().st_size for file in base.rglob("*") if file.is_file())
    card.unlink()
    write_json(card, known | {"base_bytes": size, "base_digest": folder_digest(base)})
    export(project, "r002", tmp_path / "merged", merge=True)
    assert read_json(tmp_path / "merged" / "config.json")["dtype"] == "bfloat16"
    merged, stored = (folder / "model.safetensors" for folder in (tmp_path / "merged", base))
    assert merged.stat().st_size < 1.1 * stored.stat().st_size


def test_an_adapter_names_its_base(two_rounds: Project, tmp_path: Path) -> None:
    export(two_rounds, "r001", tmp_path / "adapter")
    base = read_json(tmp_path / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    assert Path(base) == two_rounds.output("base", "model").resolve()
    expect_round(ask(tmp_path / "adapter", base), two_rounds, "r001")
    assert not (tmp_path / "adapter" / "model.json").exists()


def test_a_base_of_the_hub_is_named_by_its_id(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "project")
    source = project.round("base") / "source.json"
    assert read_json(source)["source"] is None
    write_json(source, read_json(source) | {"source": "some/llava"})
    export(project, "r001", tmp_path / "adapter")
    assert read_json(tmp_path / "adapter" / "adapter_config.json")["base_model_name_or_path"] == "some/llava"
    assert front(tmp_path / "adapter")["base_model"] == "some/llava"
    assert 'from_pretrained("some/llava")' in (tmp_path / "adapter" / CARD).read_text()


def front(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / CARD).read_text(encoding="utf-8").split("---\n")[1])


def test_the_card_tells_the_lineage(two_rounds: Project, machine: Machine, tmp_path: Path) -> None:
    assert main(["export", "r002", str(tmp_path / "out"), "-C", str(two_rounds.root)]) == 0
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert front(tmp_path / "out")["pipeline_tag"] == "image-text-to-text"
    assert "| r001 | first | CC0-1.0 | adapt_inf |" in text
    assert "| base | known | CC0-1.0 |" in text, "what every round may select from"
    record = read_json(two_rounds.round("r002") / "round.json")
    selected = len(pd.read_parquet(two_rounds.output("r002", "select") / "selected.parquet"))
    assert f"| r002 | second | CC0-1.0 | adapt_inf | {selected} | {record['candidates']} |" in text
    assert all(f"| {skill} | {value:.3f} |" in text for skill, value in record["metrics"]["skills"].items())
    assert record["pool_hash"] in text
    assert json.dumps(record["metrics"]["average_accuracy"])[:4] in text


def test_the_licences_are_known_where_the_drops_are_not(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "elsewhere")
    shutil.rmtree(project.drops)
    for name in ("r001", "r002"):
        shutil.rmtree(project.output(name, "ingest"))
    export(project, "r002", tmp_path / "out")
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    assert text.count("| CC0-1.0 |") == 3


def test_bad_input_is_named(two_rounds: Project, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(AdaptInfError, match="is not empty"):
        export(two_rounds, "r001", tmp_path / "full")
    with pytest.raises(AdaptInfError, match="began from"):
        export(two_rounds, "base", tmp_path / "out")
    with pytest.raises(RoundError, match="r009"):
        export(two_rounds, "r009", tmp_path / "out")
    project = copy_project(two_rounds, tmp_path / "project")
    shutil.rmtree(project.output("r001", "model"))
    with pytest.raises(RoundError, match="not on this machine") as error:
        export(project, "r001", tmp_path / "out")
    assert "adapt-inf pull r001" in str(error.value)
    assert not (tmp_path / "out").exists()
