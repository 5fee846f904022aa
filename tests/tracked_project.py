"""A project on disk as the stages leave it: files of their schemas, with figures that a small lineage could have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from adapt_inf.files import write_json, write_parquet, write_text
from adapt_inf.project import Project
from adapt_inf.review.round_files import RoundFiles

EXPERTS = ("perplexity", "el2n", "entropy", "grand", "image_grounding")
SKILLS = {
    "base": ("base", ("naming", "digits", "colour")),
    "shapes": ("r001", ("yes-no", "attribute")),
    "flags": ("r002", ("country", "capital", "continent")),
    "languages": ("r003", ("german", "french", "spanish", "swahili", "finnish")),
    "pairs": ("r004", ("second", "both")),
}
STAGES = ("ingest", "sketch", "cluster", "score", "select", "prune", "train", "evaluate")


def empty_project(root: Path) -> Project:
    write_text(root / "params.yaml", "seed: 3\n")
    (root / "rounds" / "base").mkdir(parents=True)
    return Project(root)


def add_round(project: Project, round_id: str, clusters: int = 6, seed: int = 0) -> None:
    """Write what the eight stages of `round_id` would."""
    number = int(round_id[1:])
    names = ["base", *(f"r{i:03d}" for i in range(1, number + 1))]
    rng = np.random.default_rng([seed, number])
    drop = next(suite for suite, (since, _) in SKILLS.items() if since == round_id)
    params: dict[str, Any] = {"round": round_id, "parent": names[-2], "drop": drop, "seed": 3}
    write_text(project.params_of(round_id), yaml.safe_dump(params))
    _write_lock(project, round_id, names[-2], drop)
    for stage in STAGES:
        report = {"samples": 3000 * number, "detail": {"kept": 7}, "note": "not a number"}
        report |= {"samples_per_second": 350.5} if stage == "train" else {}
        record = {"stage": stage, "seconds": 2.5, "peak_memory_mb": 812.4, "cached": False, "report": report}
        write_json(project.log(round_id) / f"{stage}.json", record)
    duplicates = {"train": 40, "eval": 1}
    ingest = {"drop": drop, "train": 3000, "eval": 200, "rejected": 5, "duplicates": duplicates, "reasons": []}
    write_json(project.output(round_id, "ingest") / "report.json", ingest)
    rows = pd.DataFrame({"sample_id": [f"{drop}/{i}" for i in range(5)], "drop": drop})
    write_parquet(project.output(round_id, "ingest") / "manifest.parquet", rows)
    _write_selection(project, round_id, drop, clusters, rng)
    pool = {"round": round_id, "live": 2500 * number + 500, "tombstones": 500 * number, "pruned": 500}
    write_json(project.output(round_id, "pool") / "pool.json", pool)
    adapter = project.output(round_id, "model")
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(rng.bytes(256))
    write_json(adapter / "adapter_config.json", {"peft_type": "LORA", "r": 16})
    rows = [{"step": step, "loss": 3 / step, "learning_rate": 0.002, "samples": 32} for step in range(1, 701)]
    write_text(adapter / "train_log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    _write_evaluation(project, names, rng)
    counts = RoundFiles(project, round_id).counts
    write_json(project.round(round_id) / "round.json", {"round": round_id, "parent": names[-2], **counts})


def _write_lock(project: Project, round_id: str, parent: str, drop: str) -> None:
    deps = [
        {"path": f"drops/{drop}", "md5": f"{drop:0<32}"[:32] + ".dir"},
        {"path": f"rounds/{parent}/pool", "md5": f"{parent:0<32}.dir"},
    ]
    outs = [{"path": f"rounds/{round_id}/ingest", "md5": "1" * 32 + ".dir"}]
    lock = {"schema": "2.0", "stages": {"ingest": {"deps": deps, "outs": outs}}}
    write_text(project.round(round_id) / "dvc.lock", yaml.safe_dump(lock))


def _write_selection(project: Project, round_id: str, drop: str, clusters: int, rng: np.random.Generator) -> None:
    sizes = sorted(rng.integers(40, 900, clusters).tolist(), reverse=True)
    rows = []
    for cluster, size in enumerate(sizes):
        entropies: dict[str, float | None] = dict(zip(EXPERTS, rng.uniform(2.5, 5.2, 5).tolist(), strict=True))
        if cluster % 4 == 3:
            entropies["image_grounding"] = None
        ranked = sorted((value, name) for name, value in entropies.items() if value is not None)
        rows.append(
            {
                "cluster": cluster,
                "size": size,
                "budget": min(size, 100),
                "selected": min(size, 100),
                "selector": ranked[-1][1],
                "margin": ranked[-1][0] - ranked[-2][0],
                "entropies": entropies,
            }
        )
    selected = sum(row["selected"] for row in rows)
    selectors = {
        "strategy": "adapt_inf",
        "candidates": sum(sizes),
        "budget": selected,
        "selected": selected,
        "clusters": rows,
        "skills": {},
        "drops": {"base": {"candidates": 1000, "selected": 200}, drop: {"candidates": 3000, "selected": 400}},
    }
    write_json(project.output(round_id, "select") / "selectors.json", selectors)
    ks = [4, 6, 8, 12, 16, 24, 32, 48]
    curve = [{"k": k, "silhouette": 0.3 - 0.02 * (np.log2(k) - 3.5) ** 2} for k in ks]
    write_json(project.output(round_id, "cluster") / "curve.json", {"k": 12, "chosen_by": "silhouette", "curve": curve})


def _write_evaluation(project: Project, names: list[str], rng: np.random.Generator) -> None:
    """Scores that jump where a skill arrives and sink a little afterwards; the same for every round of one lineage."""
    skills = [
        {"skill": name, "suite": suite, "round": since, "samples": 200, "pool_share": 0.1}
        for suite, (since, members) in SKILLS.items()
        if since in names
        for name in members
    ]
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for entry in skills:
        key = f"{entry['suite']}/{entry['skill']}"
        talent = np.random.default_rng([*key.encode()]).uniform(0.35, 0.98)
        for step, name in enumerate(names):
            age = step - names.index(entry["round"])
            if age >= -1:
                values[name][key] = round(float(0.05 if age < 0 else talent * 0.94**age), 4)
    now = values[names[-1]]
    write_json(
        project.output(names[-1], "evaluate") / "accuracy_matrix.json",
        {"skills": skills, "rounds": names, "values": values, "base": values["base"]},
    )
    figures = {
        "average_accuracy": float(np.mean(list(now.values()))),
        "forgetting": 0.02 * len(names),
        "backward_transfer": -0.01,
        "forward_transfer": 0.03,
    }
    write_json(
        project.output(names[-1], "evaluate") / "metrics.json",
        {
            "round": names[-1],
            "parent": names[-2],
            **figures,
            "relative_gain": None,
            "rare": {"average_accuracy": 0.4, "forgetting": None},
            "skills": now,
        },
    )


def lineage_of(project: Project, *round_ids: str) -> list[dict[str, Any]]:
    """The lineage as `adapt-inf lineage --json` would list it."""
    entries = []
    for round_id in round_ids:
        files = RoundFiles(project, round_id)
        entry = {
            "round": round_id,
            "parent": files.metrics["parent"],
            "drop": next(suite for suite, (since, _) in SKILLS.items() if since == round_id),
            "strategy": "adapt_inf",
            "status": "finished",
            "pool_hash": f"{round_id:0<32}.dir",
            "model_version": round_id[-1],
            **files.counts,
        }
        entry["metrics"] = {
            key: value for key, value in files.metrics.items() if key not in ("round", "parent", "rare")
        }
        entries.append(entry)
    return entries
