"""A round's model as a folder of its own, for whoever serves or tunes it elsewhere, with a card that says what it is.

As an adapter: what PEFT, transformers and vLLM load beside its base, which adapter_config.json names. Merged: a whole
model, adapter and base added up in float32 and stored in the base's own type, which needs none of ours to load.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import ModelCardData

from adapt_inf import lineage, versions
from adapt_inf.config import load_params
from adapt_inf.data.drops import DESCRIPTION
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import new_folder, read_json, write_json
from adapt_inf.lineage import Round
from adapt_inf.models.vlm import ADAPTER_CONFIG, MODEL_CARD, load_vlm
from adapt_inf.project import BASE, SOURCE, Project

CARD = "README.md"
_OURS = (MODEL_CARD, "train_log.jsonl")  # of a round's model folder: what only this project reads


def export(project: Project, round_id: str, target: Path, *, merge: bool = False) -> None:
    """Write the model of `round_id` into `target`, whole or not at all.

    Args:
        target: a folder that is not there yet, or empty.
        merge: add the adapter to the base, instead of writing it alone.

    Raises:
        RoundError: there is no such round, or its model is not on this machine.
        ModelError: it does not load (`merge`).
        AdaptInfError: `target` holds something, or `round_id` is base, which has no adapter.
    """
    if round_id == BASE:
        raise AdaptInfError("base is the model that the lineage began from.", "Copy it from rounds/base/model.")
    record = lineage.read_round(project, round_id)
    model = project.output(round_id, "model")
    if not (model / ADAPTER_CONFIG).is_file():
        mend = "`adapt-inf round` goes on with it." if record.status != "finished" else f"`adapt-inf pull {round_id}`."
        raise RoundError(round_id, "its model is not on this machine", mend)
    with new_folder(target) as folder:
        if merge:
            _merge(model, folder)
        else:
            _copy(model, folder, _hub_id(project) or str(project.output(BASE, "model").resolve()))
        (folder / CARD).write_text(model_card(project, record, merge=merge), encoding="utf-8")


def _copy(model: Path, folder: Path, base: str) -> None:
    for file in model.iterdir():
        if file.name not in _OURS:
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / file.name)
    config = read_json(model / ADAPTER_CONFIG)
    write_json(folder / ADAPTER_CONFIG, config | {"base_model_name_or_path": base})


def _merge(model: Path, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT calls what transformers will rename
        vlm = load_vlm(model)
        config = read_json(vlm.base / "config.json")
        stored = config.get("dtype") or config.get("torch_dtype") or config.get("text_config", {}).get("dtype")
        merged: Any = vlm.model.merge_and_unload()
        merged.to(dtype=getattr(torch, stored or "float32")).save_pretrained(str(folder))
    vlm.processor.save_pretrained(str(folder))


def _hub_id(project: Project) -> str | None:
    """The base's id on the Hugging Face hub, or None where it was a folder."""
    path = project.round(BASE) / SOURCE
    return read_json(path)["source"] if path.is_file() else None


def model_card(project: Project, record: Round, *, merge: bool) -> str:
    """Of an exported model, as the Hugging Face hub reads it."""
    hub_id = _hub_id(project)
    base = hub_id or str(project.output(BASE, "model").resolve())
    about = ModelCardData(
        base_model=hub_id,
        base_model_relation=("finetune" if merge else "adapter") if hub_id else None,
        library_name="transformers" if merge else "peft",
        pipeline_tag="image-text-to-text",
        license="other",
        tags=["adapt-inf"],
    )
    line = _line(project, record)
    skills = record.metrics.get("skills", {})
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {project.root.name} {record.round}",
        f"The model after {len(line)} {'round' if len(line) == 1 else 'rounds'} of lifelong instruction tuning with "
        "data selection (Adapt-infinity, [arXiv 2410.10636](https://arxiv.org/abs/2410.10636)), "
        + ("adapter and base in one." if merge else f"a LoRA adapter on {base}."),
        "## Load it",
        f"```python\n{_MERGED if merge else _ADAPTER.format(base=base)}```",
        "## What it was trained on",
        "Each round trained on a selection from the pool of its parent and a new drop. The licence of the base model "
        "holds besides those of the drops.",
        _table(
            ["round", "drop", "licence", "strategy", "trained on", "of", "average", "forgetting"],
            [*_base_rows(project), *(_row(project, each) for each in line)],
        ),
        "## What it can do",
        "Accuracy on each skill's evaluation samples, which no round trained on. "
        f"Average {_figure(record.metrics.get('average_accuracy'))}, "
        f"forgetting {_figure(record.metrics.get('forgetting'))}.",
        _table(["skill", "accuracy"], [[name, _figure(value)] for name, value in skills.items()]),
        "## Where it comes from",
        _table(
            ["what", "which"],
            [
                ["round", record.round],
                ["pool version (DVC)", record.pool_hash or "-"],
                ["model version (MLflow)", str(record.model_version or "-")],
                ["gate", record.verdict or "-"],
                ["commit", versions.commit_of_round(project, record.round) or "-"],
                ["seed", str(load_params(project.params_of(record.round)).seed)],
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


_MERGED = """\
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
"""

_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

base = AutoModelForImageTextToText.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "FOLDER")
processor = AutoProcessor.from_pretrained("FOLDER")
"""


def _line(project: Project, record: Round) -> list[Round]:
    """The rounds from the base to this one, oldest first."""
    line = [record]
    while line[-1].parent != BASE:
        line.append(lineage.read_round(project, line[-1].parent))
    return line[::-1]


def _base_rows(project: Project) -> list[list[str]]:
    """The pool that the lineage began with, which every round may select from."""
    path = project.round(BASE) / SOURCE
    pool = read_json(path).get("pool") if path.is_file() else None
    return [[BASE, pool["drop"], pool["license"], *["-"] * 5]] if pool else []


def _row(project: Project, record: Round) -> list[str]:
    figures = record.metrics
    return [
        record.round,
        record.drop,
        _licence(project, record),
        record.strategy,
        f"{record.selected:,}" if record.selected is not None else "-",
        f"{record.candidates:,}" if record.candidates is not None else "-",
        _figure(figures.get("average_accuracy")),
        _figure(figures.get("forgetting")),
    ]


def _licence(project: Project, record: Round) -> str:
    """Of a round's drop; of a round that another version recorded as far as this machine knows it."""
    if record.license is not None:
        return record.license
    described = project.drop(record.drop) / DESCRIPTION
    if described.is_file():
        return str((yaml.safe_load(described.read_text(encoding="utf-8")) or {}).get("license", "unknown"))
    return "not known on this machine"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |" for line in lines)
