"""What a round's page and its log in MLflow cost: a round of 10,000 candidates with pictures, and the share of a round.

The round is made up where a model would be needed (sketches, scores, answers) and real elsewhere: it is clustered,
selected and pruned by its stages. Measured is what the end of a round adds, in a process that has run one before:
`make_report` (pictures, tables, samples, answers) and the whole log of the round. The budget is 5% of a round, or 5 s.

    python benchmarks/report_cost.py [--candidates 10000] [--side 224] [--round SECONDS] [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from report import finish, spread, table

from adapt_inf.config import load_params, set_values
from adapt_inf.creation import definition
from adapt_inf.data.manifest import MANIFEST, SHARDS, manifest_frame, write_manifest
from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import write_shard
from adapt_inf.files import write_json, write_parquet, write_text
from adapt_inf.project import Project
from adapt_inf.review.report import make_report
from adapt_inf.sketching.store import write_index, write_part
from adapt_inf.stages import cluster, prune, select
from adapt_inf.stages.context import StageContext
from adapt_inf.stages.runner import STAGES
from adapt_inf.tracking.rounds import begin_round, finish_round, log_stage, tag_gate

DROPS = ("base", "shapes", "scenes")  # the last is the new one
SKILLS = 6  # of each drop
SUITE = 240  # samples
EXPERTS = ("perplexity", "el2n", "entropy", "grand", "image_grounding")
DEMO_ROUND = 140.0  # seconds: one of the demo's on a slow day of two cores of an AMD EPYC
SHARE, FLOOR = 0.05, 5.0


def main() -> None:
    options = _options()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        project = make_round(Path(folder) / "bench", options.candidates, options.side)
        measure(project)  # imports, MLflow's tables
        times = [measure(project) for _ in range(options.repeats)]
        size = (project.round("r001") / "report.html").stat().st_size
    rows = [{"what": name, **spread([each[name] for each in times])} for name in times[0]]
    print(table(rows, ["what", "median", "min", "max"]))
    worst = max(each["together"] for each in times)
    budget = max(FLOOR, SHARE * options.round)
    print(f"\n{worst / options.round:.1%} of a round of {options.round:g} s; budget {budget:.1f} s: ", end="")
    print("kept" if worst <= budget else "exceeded", f"; report.html has {size / 1e6:.2f} MB", sep="")
    found = {"candidates": options.candidates, "side": options.side, "round_seconds": options.round, "bytes": size}
    finish("report_cost", found | {"seconds": rows}, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=224, help="pixels of a picture's side")
    parser.add_argument("--round", type=float, default=DEMO_ROUND, help="seconds that a round takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(project: Project) -> dict[str, float]:
    """Seconds of the page and of the log of a round."""
    gate = {"verdict": "passed", "reasons": [], "figures": {}}
    record = {"round": "r001", "status": "finished", "gate": gate, "model_version": 1}
    started = time.perf_counter()
    make_report(project, record)
    page = time.perf_counter() - started
    begin_round(project, "r001")
    for stage in STAGES:
        log_stage(project, "r001", stage, {"stage": stage, "cached": False})
    finish_round(project, "r001", "finished", {"parent": "base", "drop": DROPS[-1], "strategy": "adapt_inf"})
    tag_gate(project, record)
    together = time.perf_counter() - started
    return {"page": page, "log": together - page, "together": together}


def make_round(root: Path, candidates: int, side: int) -> Project:
    """A project with one round that has run all its stages, as far as the page and the log read them."""
    project = Project(root)
    values = {"sketch.dim": 512, "select.budget": 0.3, "prune.pool_cap": candidates * 7 // 10}
    text = set_values(definition("params.yaml"), values)
    write_text(project.params_file, text)
    write_text(project.params_of("r001"), set_values(text, {"round": "r001", "parent": "base", "drop": DROPS[-1]}))
    rng = np.random.default_rng(0)
    new = candidates // 4
    old = candidates - new
    _samples(project.output("base", "pool"), "base", [DROPS[i % 2] for i in range(old)], side, rng)
    _samples(project.output("r001", "ingest"), "r001", [DROPS[-1]] * new, side, rng)
    report = {"drop": DROPS[-1], "read": new + SUITE, "train": new, "eval": SUITE, "rejected": 0, "duplicates": {}}
    write_json(project.output("r001", "ingest") / "report.json", report)
    _signals(project, candidates, rng)
    ctx = StageContext(project, "r001", load_params(project.params_of("r001")))
    cluster.run(ctx)
    select.run(ctx)
    prune.run(ctx)
    _answers(project, side, rng)
    write_text(project.output("r001", "model") / "adapter_model.safetensors", "weights")
    for stage in STAGES:
        outcome = {"stage": stage, "seconds": 10.0, "peak_memory_mb": 800.0, "report": {"samples": candidates}}
        write_json(project.log("r001") / f"{stage}.json", outcome)
    write_json(project.round("r001") / "round.json", {"round": "r001", "parent": "base", "drop": DROPS[-1]})
    return project


def _picture(side: int, rng: np.random.Generator) -> bytes:
    """A JPEG of coloured patches."""
    patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    out = io.BytesIO()
    patches.resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def _sample(name: str, skill: str, picture: bytes) -> Sample:
    question = [{"type": "image"}, {"type": "text", "text": f"What of {skill} is to be seen in the picture of {name}?"}]
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": f"answer to {name}"}]},
    ]
    return Sample(name, (picture,), messages, skill, "exact_match", (f"answer to {name}",))


def _samples(folder: Path, round_id: str, drops: list[str], side: int, rng: np.random.Generator) -> None:
    """A manifest and shards of 1,000."""
    pictures = [_picture(side, rng) for _ in range(50)]
    samples = [_sample(f"{d}/{i}", f"skill{i // 2 % SKILLS}", pictures[i % 50]) for i, d in enumerate(drops)]
    rows = []
    for first in range(0, len(samples), 1000):
        shard = f"{round_id}-{first // 1000:05d}.parquet"
        write_shard(folder / SHARDS / shard, samples[first : first + 1000])
        rows += [
            {"sample_id": each.sample_id, "drop": drop, "skill": each.skill, "round": round_id, "shard": shard}
            | {"row": row, "n_images": 1, "content_hash": each.sample_id, "image_hashes": []}
            for row, (each, drop) in enumerate(
                zip(samples[first : first + 1000], drops[first : first + 1000], strict=True)
            )
        ]
    write_manifest(folder / MANIFEST, manifest_frame(rows))


def _signals(project: Project, candidates: int, rng: np.random.Generator) -> None:
    """Sketches around 60 directions, and scores."""
    directions = rng.standard_normal((60, 512))
    rows = directions[rng.integers(0, 60, candidates)] + 1.2 * rng.standard_normal((candidates, 512))
    sketch = project.output("r001", "sketch")
    parts = [rows[first : first + 1024].astype(np.float32) for first in range(0, candidates, 1024)]
    for number, part in enumerate(parts):
        write_part(sketch, number, part)
    write_index(sketch, {"gradient": 512}, [len(part) for part in parts], {})
    frames = [
        pd.read_parquet(project.output(*where) / MANIFEST, columns=["sample_id"])
        for where in (("base", "pool"), ("r001", "ingest"))
    ]
    ids = pd.concat(frames, ignore_index=True)
    write_parquet(sketch / "signals.parquet", ids)
    write_parquet(sketch / "faults.parquet", ids.iloc[:0])
    scores = {name: rng.gamma(1 + place, size=candidates) for place, name in enumerate(EXPERTS)}
    write_parquet(project.output("r001", "score") / "scores.parquet", ids.assign(**scores))
    write_json(project.output("r001", "score") / "draws.json", dict.fromkeys(scores, "coverage"))


def _answers(project: Project, side: int, rng: np.random.Generator) -> None:
    """Suites of three drops, and what two models answered."""
    frames, skills = [], []
    for drop in DROPS:
        samples = [_sample(f"{drop}/eval{i}", f"skill{i % SKILLS}", _picture(side, rng)) for i in range(SUITE)]
        write_shard(project.output("r001", "pool") / "suites" / f"{drop}.parquet", samples)
        rows: list[dict[str, Any]] = [
            {"suite": drop, "sample_id": each.sample_id, "skill": each.skill, "metric": each.metric}
            | {"prediction": "an answer", "answers": list(each.answers), "fault": ""}
            for each in samples
        ]
        frames.append(pd.DataFrame(rows))
        since = "r001" if drop == DROPS[-1] else "base"
        skills += [
            {"skill": f"skill{i}", "suite": drop, "round": since, "samples": SUITE // SKILLS, "pool_share": 0.06}
            for i in range(SKILLS)
        ]
    whole = pd.concat(frames, ignore_index=True)
    values = {}
    for round_id, file in (("base", "before.parquet"), ("r001", "predictions.parquet")):
        marked = whole.assign(score=rng.integers(0, 2, len(whole)).astype(float))
        write_parquet(project.output("r001", "evaluate") / file, marked)
        means = marked.groupby(marked["suite"] + "/" + marked["skill"])["score"].mean()
        values[round_id] = {str(name): float(mean) for name, mean in means.items()}
    matrix = {"skills": skills, "rounds": list(values), "values": values, "base": values["base"]}
    write_json(project.output("r001", "evaluate") / "accuracy_matrix.json", matrix)
    figures = {"average_accuracy": 0.5, "forgetting": 0.05, "backward_transfer": 0.0, "forward_transfer": 0.0}
    metrics = {"round": "r001", "parent": "base", **figures, "relative_gain": None, "rare": None}
    write_json(project.output("r001", "evaluate") / "metrics.json", metrics | {"skills": values["r001"]})


if __name__ == "__main__":
    main()
