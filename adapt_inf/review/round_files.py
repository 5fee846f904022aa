"""The JSON that a round left on disk, and its tables.

A file that is not there reads as empty: a round that failed is shown and tracked as far as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapt_inf.files import file_digest, parse_yaml, read_json
from adapt_inf.project import BASE, Project

FIGURES = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "relative_gain")
COUNTS = ("pool_size", "candidates", "selected", "pruned", "rejected")


def round_number(round_id: str, otherwise: int = 0) -> int:
    """The number in a round's id, which is its step in every curve; 0 for the base."""
    if round_id == BASE:
        return 0
    digits = re.search(r"(\d+)$", round_id)
    return int(digits.group(1)) if digits else otherwise


@dataclass(frozen=True)
class RoundFiles:
    """The JSON that the stages of one round wrote."""

    project: Project
    round: str

    def path(self, output: str, name: str) -> Path:
        return self.project.output(self.round, output) / name

    @cached_property
    def ingest(self) -> dict[str, Any]:
        return _read(self.path("ingest", "report.json"))

    @cached_property
    def selectors(self) -> dict[str, Any]:
        return _read(self.path("select", "selectors.json"))

    @cached_property
    def curve(self) -> dict[str, Any]:
        return _read(self.path("cluster", "curve.json"))

    @cached_property
    def pool(self) -> dict[str, Any]:
        return _read(self.path("pool", "pool.json"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return _read(self.path("evaluate", "metrics.json"))

    @cached_property
    def matrix(self) -> dict[str, Any]:
        return _read(self.path("evaluate", "accuracy_matrix.json"))

    @cached_property
    def training(self) -> list[dict[str, Any]]:
        """A row per optimiser step: step, loss, learning_rate, gradient_norm, samples."""
        path = self.path("model", "train_log.jsonl")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []

    def log(self, stage: str) -> dict[str, Any]:
        return _read(self.project.log(self.round) / f"{stage}.json")

    @property
    def counts(self) -> dict[str, Any]:
        """How many samples stood at each gate of the round; None where the stage has not run."""
        return {
            "pool_size": self.pool.get("live"),
            "candidates": self.selectors.get("candidates"),
            "selected": self.selectors.get("selected"),
            "pruned": self.pool.get("pruned"),
            "rejected": total(self.ingest.get("rejected")),
        }

    @cached_property
    def hashes(self) -> dict[str, str]:
        """DVC's hash of every dependency and output of the round's stages, by its path in the project."""
        lock = self.project.round(self.round) / "dvc.lock"
        if not lock.is_file():
            return {}
        stages = (parse_yaml(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
        entries = [entry for stage in stages.values() for kind in ("deps", "outs") for entry in stage.get(kind, [])]
        return {entry["path"].removeprefix("../../"): entry["md5"] for entry in entries if "md5" in entry}

    def drop_hash(self, drop: str) -> str | None:
        """DVC's hash of the drop folder, or else a digest of what ingest took from it."""
        known = self.hashes.get(f"drops/{drop}")
        manifest = self.path("ingest", "manifest.parquet")
        return known or (file_digest(manifest)[:32] if manifest.is_file() else None)


def ancestry(lineage: list[dict[str, Any]], round_id: str) -> list[dict[str, Any]]:
    """The entries of `round_id` and its ancestors, oldest first."""
    by_name = {entry["round"]: entry for entry in lineage}
    line: list[dict[str, Any]] = []
    name: str | None = round_id
    while name in by_name:
        line.append(by_name.pop(name))
        name = line[-1].get("parent")
    return line[::-1]


def selector_table(selectors: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """selectors.json's clusters as (columns, rows): a row per cluster, a column for the entropy of each expert."""
    clusters = selectors.get("clusters", [])
    experts = list(dict.fromkeys(name for cluster in clusters for name in cluster.get("entropies") or {}))
    plain = ["cluster", "selector", "size", "budget", "selected", "margin"]
    columns = plain + [f"entropy {name}" for name in experts]
    rows = [
        [_short(cluster.get(key)) for key in plain]
        + [_short((cluster.get("entropies") or {}).get(name)) for name in experts]
        for cluster in clusters
    ]
    return columns, rows


def samples_per_second(report: Mapping[str, Any], seconds: float) -> float | None:
    """The rate of a stage: by its own account, or what it went over in `seconds` without what an earlier start had."""
    done = report.get("answers", report.get("samples", report.get("read", report.get("candidates"))))
    if "samples_per_second" in report:  # training passes over its samples more than once
        return float(report["samples_per_second"])
    return (done - report.get("resumed", 0)) / seconds if done is not None and seconds > 0 else None


def matrix_table(matrix: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The accuracy matrix as (columns, rows): a row per skill, a column per round of the lineage."""
    rounds = matrix.get("rounds", [])
    columns = ["suite", "skill", "since", "samples", *rounds]
    rows = [
        [entry["suite"], _skill_name(entry), entry["round"], entry["samples"]]
        + [_short(matrix["values"].get(round_id, {}).get(_key(entry))) for round_id in rounds]
        for entry in matrix.get("skills", [])
    ]
    return columns, rows


def _key(entry: dict[str, Any]) -> str:
    """The key of a skill in the matrix: "<suite>/<skill>"."""
    return f"{entry['suite']}/{entry['skill']}"


def _skill_name(entry: dict[str, Any]) -> str:
    return _key(entry).removeprefix(f"{entry['suite']}/")


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def total(value: Any) -> int | None:
    """A count, or the sum of counts by kind."""
    if isinstance(value, dict):
        return sum(count for count in value.values() if isinstance(count, int))
    return value if isinstance(value, int) else None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
