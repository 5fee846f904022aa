"""What a round left on disk, put together for a reader: the candidates with all that became of them, and the line.

What is not there (a stage that never ran, workings that gc removed) is a column or an entry that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from adapt_inf.config import Params, load_params
from adapt_inf.data.manifest import MANIFEST, candidates, read_manifest
from adapt_inf.errors import StageInputError
from adapt_inf.files import read_json
from adapt_inf.project import BASE, Project
from adapt_inf.review.round_files import COUNTS, RoundFiles
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.runner import STAGES

MOST_ROUNDS = 40  # of a line that are shown; beyond that the latest ones

NO_CLUSTER = -1  # of candidates that the model cannot read, which have no sketch
_PLAIN = ("sample_id", "drop", "skill", "round", "shard", "row", "n_images")


@dataclass(frozen=True)
class Review:
    """A round to be shown, and what is read of it more than once."""

    project: Project
    round: str

    @cached_property
    def files(self) -> RoundFiles:
        return RoundFiles(self.project, self.round)

    @cached_property
    def params(self) -> Params:
        return load_params(self.project.params_of(self.round))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The round's candidates, in candidate order; empty where the parent's pool or the drop's samples are gone.

        Columns: sample_id, drop, skill, round (that brought it), shard, row, n_images; new (bool); as far as the stages
        came: cluster (or NO_CLUSTER), similarity (to its centroid), a column per score (see `score_of`), selected
        (bool), pruned (bool), alike (cosine to duplicate_of), duplicate_of, "trained on and pruned" (bool).
        """
        try:
            frame = candidates(StageContext(self.project, self.round, self.params), _PLAIN)
        except (StageInputError, FileNotFoundError):
            return pd.DataFrame(columns=[*_PLAIN, "new"])
        frame["new"] = frame["round"] == self.round
        for output, name in (("cluster", "assignments.parquet"), ("score", "scores.parquet")):
            path = self.files.path(output, name)
            table = pd.read_parquet(path) if path.is_file() else None
            if table is not None and table["sample_id"].equals(frame["sample_id"]):
                table = table.drop(columns="sample_id")
                frame = frame.join(table.rename(columns=score_of) if output == "score" else table)
        faults = self.files.path("sketch", "faults.parquet")
        if "cluster" in frame and faults.is_file():
            unreadable = frame["sample_id"].isin(pd.read_parquet(faults, columns=["sample_id"])["sample_id"])
            frame.loc[unreadable, "cluster"] = NO_CLUSTER
        selected = self.files.path("select", "selected.parquet")
        if selected.is_file():
            frame["selected"] = frame["sample_id"].isin(pd.read_parquet(selected, columns=["sample_id"])["sample_id"])
        manifest = self.files.path("pool", MANIFEST)
        if manifest.is_file():
            rows = read_manifest(manifest, ["sample_id", "pruned_round", "similarity", "duplicate_of"])
            rows = rows[rows["pruned_round"] == self.round].set_index("sample_id")
            frame["pruned"] = frame["sample_id"].isin(rows.index)
            frame["alike"] = frame["sample_id"].map(rows["similarity"])
            frame["duplicate_of"] = frame["sample_id"].map(rows["duplicate_of"])
            if "selected" in frame:
                frame["trained on and pruned"] = frame["selected"] & frame["pruned"]
        return frame

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """The clusters of selectors.json that hold samples, the largest first."""
        found = [cluster for cluster in self.files.selectors.get("clusters", []) if cluster["size"]]
        return sorted(found, key=lambda cluster: (-cluster["size"], cluster["cluster"]))

    @cached_property
    def contents(self) -> dict[int, tuple[str, float]]:
        """The skill ("<drop>/<skill>") that most samples of each cluster have, and its share."""
        if "cluster" not in self.samples:
            return {}
        skill = self.samples["drop"] + "/" + self.samples["skill"]
        counts = pd.crosstab(self.samples["cluster"], skill)
        shares = (counts.to_numpy().max(axis=1) / counts.to_numpy().sum(axis=1)).tolist()
        names = counts.columns[counts.to_numpy().argmax(axis=1)]
        return {int(c): (str(n), s) for c, n, s in zip(counts.index, names, shares, strict=True)}

    @cached_property
    def line(self) -> list[dict[str, Any]]:
        """The round and its latest ancestors after the base, oldest first: see `_entry`."""
        found: list[dict[str, Any]] = []
        name = self.round
        while name != BASE and len(found) < MOST_ROUNDS and (entry := _entry(self.project, name)):
            found.append(entry)
            name = entry["parent"]
        return found[::-1]

    @cached_property
    def known(self) -> dict[str, float]:
        """The scores of the parent's model, before the round, on every skill that the round was evaluated on."""
        return self.files.matrix.get("values", {}).get(self.params.parent, {})

    def per_cluster(self, column: str) -> dict[int, int]:
        """How many samples of each cluster have `column` true; empty where it is not known."""
        if "cluster" not in self.samples or column not in self.samples:
            return {}
        counts = self.samples[column].groupby(self.samples["cluster"]).sum()
        return {int(cluster): int(count) for cluster, count in counts.items()}  # type: ignore[call-overload]


def score_of(name: str) -> str:
    """The column of a score, which may have any name."""
    return f"score {name}"


def _entry(project: Project, round_id: str) -> dict[str, Any]:
    """A round as its small files tell: drop, parent, counts, figures, `rare` and the seconds of its stages."""
    path = project.round(round_id) / "round.json"
    if not path.is_file():
        return {}
    record, files = read_json(path), RoundFiles(project, round_id)
    metrics = record.get("metrics") or files.metrics
    seconds = [files.log(stage).get("seconds") for stage in STAGES]
    known = [each for each in seconds if each is not None]
    counts = {key: record.get(key) if record.get(key) is not None else files.counts[key] for key in COUNTS}
    about = {key: record.get(key) for key in ("round", "parent", "drop", "strategy")}
    return about | counts | {"metrics": metrics, "seconds": sum(known) if known else None}
