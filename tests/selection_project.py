"""A round whose sketches and scores are there: for the tests of the stages that choose.

Text-only samples written by the data package's own writers; sketches gather around one direction per skill, so that
what the stages should find is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from adapt_inf.config import load_params
from adapt_inf.data.manifest import MANIFEST, SHARDS, candidates, manifest_frame, write_manifest
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import write_shard
from adapt_inf.files import write_json, write_parquet
from adapt_inf.project import Project
from adapt_inf.sketching.store import Features, spans, write_index, write_part
from adapt_inf.stages.context import StageContext

ROUND = "r001"
DIM = 32
SKILLS = ("colour", "count", "name", "where")
SHARES = (0.5, 0.3, 0.15, 0.05)  # of each skill: the last is rare
PART = 16  # sketches in a file: several files even in a small round


def make_selection_round(root: Path, old: int = 80, new: int = 60, copies: int = 0, **params: Any) -> StageContext:
    """A project with a pool of `old` live samples and a tombstone, `new` accepted ones, sketches and scores.

    Args:
        copies: how many of the new samples have the very sketch of an old one.
        params: sections of params.yaml to change, e.g. select={"budget": 20}.
    """
    _fill(root / "rounds" / "base" / "pool", "old", "base", old + 1, tombstone=0)
    _fill(root / "rounds" / ROUND / "ingest", "new", ROUND, new, tombstone=None)
    ctx = with_params(root, **params)
    frame = candidates(ctx)
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(len(SKILLS), DIM))
    skill = frame["skill"].map({name: number for number, name in enumerate(SKILLS)}).to_numpy(dtype=int)
    sketches = (centres[skill] + 0.25 * rng.normal(size=(len(frame), DIM))).astype(np.float32)
    sketches[old : old + copies] = sketches[:copies]
    put_sketches(ctx, frame["sample_id"], sketches)
    nll = rng.exponential(size=len(frame))
    grounding = np.where(skill == 1, np.nan, rng.normal(size=len(frame)))  # the second skill is text-only
    scores = {"perplexity": nll, "el2n": np.full(len(frame), 0.5), "image_grounding": grounding}
    put_scores(ctx, frame["sample_id"], scores)
    return ctx


def with_params(root: Path, **params: Any) -> StageContext:
    """The same round with other parameters."""
    values: dict[str, Any] = {"round": ROUND, "parent": "base", "drop": "new", "seed": 5, **params}
    values["select"] = {"scores": ["perplexity", "el2n", "image_grounding"], **params.get("select", {})}
    (root / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (root / "rounds" / ROUND / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    project = Project(root)
    return StageContext(project, ROUND, load_params(project.params_of(ROUND)))


def put_sketches(
    ctx: StageContext, sample_ids: pd.Series, sketches: np.ndarray, hidden: np.ndarray | None = None
) -> None:
    folder = ctx.project.output(ROUND, "sketch")
    features: dict[Features, np.ndarray] = {"gradient": sketches} | ({} if hidden is None else {"hidden": hidden})
    parts = spans(len(sketches), PART)
    for number, (start, stop) in enumerate(parts):
        for kind, rows in features.items():
            write_part(folder, number, rows[start:stop], kind)
    dims = {kind: rows.shape[1] for kind, rows in features.items()}
    write_index(folder, dims, [stop - start for start, stop in parts], {})
    nll = np.linspace(0.1, 2.0, len(sample_ids))
    write_parquet(folder / "signals.parquet", pd.DataFrame({"sample_id": sample_ids, "nll": nll}))
    put_faults(ctx, [])


def put_faults(ctx: StageContext, sample_ids: list[str]) -> None:
    """Say that the model cannot read these candidates."""
    table = pd.DataFrame({"sample_id": sample_ids, "fault": ["too long"] * len(sample_ids)}, dtype="str")
    write_parquet(ctx.project.output(ROUND, "sketch") / "faults.parquet", table)


def put_scores(ctx: StageContext, sample_ids: pd.Series, scores: dict[str, np.ndarray]) -> None:
    frame = pd.DataFrame({"sample_id": sample_ids, **scores})
    write_parquet(ctx.project.output(ROUND, "score") / "scores.parquet", frame)
    draws = {name: "highest" if name == "visnec" else "coverage" for name in scores}
    write_json(ctx.project.output(ROUND, "score") / "draws.json", draws)


def _fill(folder: Path, drop: str, round_id: str, count: int, tombstone: int | None) -> None:
    skills = np.random.default_rng([count]).choice(SKILLS, count, p=SHARES).tolist()
    shard = f"{drop}-00000.parquet"
    samples, rows = [], []
    for row, skill in enumerate(skills):
        messages = [
            {"role": "user", "content": [{"type": "text", "text": f"{skill} {row}?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        ]
        sample_id = f"{drop}/{(row * 7919) % 1000:03d}-{row}"  # ids do not rise with the rows
        samples.append(Sample(sample_id, (), messages, skill, "exact_match", ("yes",)))
        about = {"sample_id": sample_id, "drop": drop, "skill": skill, "round": round_id, "shard": shard, "row": row}
        more = {"n_images": 0, "content_hash": f"{row:032x}", "image_hashes": [], "live": row != tombstone}
        rows.append(about | more)
    write_shard(folder / SHARDS / shard, samples)
    write_manifest(folder / MANIFEST, manifest_frame(rows))
