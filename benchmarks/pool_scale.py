"""Cluster, select and prune a pool of a million samples: seconds, and memory beyond the data.

    python benchmarks/pool_scale.py [--samples N] [--dim D] [--k K ...] [--copies SHARE] [--json FILE]

The data are made first, in a temporary folder that goes afterwards: fp16 sketches in the store's own files (topics of
uneven size, each with sub-topics and a falling spectrum, and a share of near-copies), manifests, drawn scores, a few
samples that the model cannot read. Then the stages run as a round runs them, each in a process of its own with one
OpenMP thread: cluster (a given k, and `auto`), select a quarter, prune to 75% of the samples.

`seconds` is a stage from its first read to its published folder, `with start` the whole process with its imports.
`peak MiB` is the process's anonymous memory (RssAnon; pages of mapped sketches are the system's and not in it) at its
highest, sampled every 10 ms; `beyond imports` is that less what the imports alone took. At the end, selection alone is
measured against the released functions at 100,000 samples (see released_selection.py), in this run: choice among five
scores, budgets and coverage sampling over 50 clusters, and coverage sampling of one cluster of that size.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from released_selection import coverage as released_coverage
from released_selection import select_as_released
from report import finish, spread, table

from adapt_inf.config import Select
from adapt_inf.data.manifest import MANIFEST, SCHEMA
from adapt_inf.files import read_json, write_json, write_parquet
from adapt_inf.project import Project
from adapt_inf.selection.coverage import coverage_sample
from adapt_inf.selection.strategies import Candidates, select
from adapt_inf.sketching.store import spans, write_index, write_part
from adapt_inf.versions import quiet_environment

ROUND = "r001"
SCORES = ["perplexity", "el2n", "entropy", "grand", "image_grounding"]
PART = 1024  # sketches in a file, as `sketch.shard_samples`
TOPICS, SUB_TOPICS = 64, 12
LIMIT_SECONDS, LIMIT_MIB = 60, 1024
COLUMNS = ["k", "stage", "seconds", "with start", "cpu seconds", "peak MiB", "beyond imports"]


def make_data(root: Path, n: int, dim: int, copies: float, seed: int = 0) -> None:
    """A project whose round has its candidates, sketches and scores; half of the samples came with the round's drop."""
    rng = np.random.default_rng(seed)
    drawn = rng.lognormal(sigma=0.7, size=TOPICS)
    topic = rng.choice(TOPICS, n, p=drawn / drawn.sum())
    centres = rng.normal(size=(TOPICS, dim)).astype(np.float32)
    sub_centres = rng.normal(size=(TOPICS, SUB_TOPICS, dim)).astype(np.float32)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    spectrum /= np.sqrt((spectrum**2).mean())
    sketch = root / "rounds" / ROUND / "sketch"
    parts = spans(n, PART)
    for number, (start, stop) in enumerate(parts):
        here = topic[start:stop]
        rows = rng.standard_normal((len(here), dim), dtype=np.float32) * spectrum
        rows += 0.8 * centres[here] + 0.7 * sub_centres[here, rng.integers(0, SUB_TOPICS, len(here))]
        copied = rng.permutation(len(here))[: int(copies * len(here))]
        rows[copied] = rows[rng.integers(0, len(here), len(copied))]
        rows[copied] += 0.15 * rng.standard_normal((len(copied), dim), dtype=np.float32)
        if number == 0:
            rows[:10] = 0  # what cannot be read
        write_part(sketch, number, rows)
    write_index(sketch, {"gradient": dim}, [stop - start for start, stop in parts], {})

    ids = pa.array([f"drop/{number * 7919 % n:07d}" for number in range(n)]) if n % 7919 else None
    if ids is None:
        raise SystemExit("--samples must not be a multiple of 7919")
    skill = pa.array([f"topic {number:02d}" for number in topic.tolist()])
    for folder, rows_of in (("base/pool", slice(0, n // 2)), (f"{ROUND}/ingest", slice(n // 2, n))):
        _write_manifest(root / "rounds" / folder, ids[rows_of], skill[rows_of], folder.split("/")[0])
    sample_id = pd.Series(ids.to_pandas(), dtype="str")
    faults = pd.DataFrame({"sample_id": sample_id[:10], "fault": "too long"})
    write_parquet(sketch / "faults.parquet", faults)
    scores = draw_scores(topic, rng)
    write_parquet(sketch / "signals.parquet", pd.DataFrame({"sample_id": sample_id, "nll": scores["perplexity"]}))
    write_parquet(
        root / "rounds" / ROUND / "score" / "scores.parquet", pd.DataFrame({"sample_id": sample_id, **scores})
    )
    write_json(root / "rounds" / ROUND / "score" / "draws.json", dict.fromkeys(scores, "coverage"))


def _write_manifest(folder: Path, ids: pa.Array, skill: pa.Array, round_id: str) -> None:
    n = len(ids)
    hashes = pa.array([f"{number:032x}" for number in range(n)])
    fixed = {"drop": "drop", "round": round_id, "n_images": 1, "live": True, "row": -1}
    own = {"sample_id": ids, "skill": skill, "content_hash": hashes}
    own["image_hashes"] = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), hashes)
    columns = [
        own[field.name] if field.name in own else pa.array([fixed.get(field.name)] * n, field.type) for field in SCHEMA
    ]
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns, schema=SCHEMA), folder / MANIFEST)


def draw_scores(topic: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A score of each shape per sample; text-only topics have no image grounding."""
    n, level = len(topic), topic / TOPICS
    grounding = np.where(topic % 8 == 0, np.nan, rng.standard_t(4, n) + level)
    values = [rng.gamma(2 + level, 1), rng.beta(2, 3 + level), rng.exponential(1 + level), rng.lognormal(level, 1)]
    return dict(zip(SCORES, [*values, grounding], strict=True))


def set_params(root: Path, k: int | str, cap: int) -> None:
    values: dict[str, Any] = {"round": ROUND, "parent": "base", "drop": "drop", "cluster": {"k": k}}
    values |= {"select": {"budget": 0.25}, "prune": {"pool_cap": cap}}
    (root / "rounds" / ROUND / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def run_stage(root: Path, stage: str) -> dict[str, Any]:
    """Run a stage in a process of its own, and watch its memory."""
    environment = {**os.environ, **quiet_environment()}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(root)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, anonymous_mib(process.pid))
        time.sleep(0.01)
    spent = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode or process.stdout is None:
        raise SystemExit(f"stage {stage} ended with {process.returncode}")
    imports = float(process.stdout.read())
    log = read_json(root / "rounds" / ROUND / "log" / f"{stage}.json")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    times = {"seconds": log["seconds"], "with start": round(spent, 2), "cpu seconds": round(cpu, 2)}
    return {"stage": stage, **times, "peak MiB": round(peak), "beyond imports": round(peak - imports)} | {
        "report": log["report"]
    }


def anonymous_mib(pid: int | str) -> float:
    """RssAnon of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def be_stage(root: Path, stage: str) -> None:
    """The child: import, say what that took, run."""
    import importlib

    from adapt_inf.stages import runner

    importlib.import_module(f"adapt_inf.stages.{stage}")
    print(anonymous_mib("self"), flush=True)
    runner.run_stage(Project(root), ROUND, stage)


def against_released(n: int, k: int, repeat: int = 9) -> dict[str, Any]:
    """Choice of experts, budgets and coverage sampling over all clusters, ours and the released way."""
    rng = np.random.default_rng(1)
    cluster = np.sort(rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0))))
    cluster = rng.permutation(np.unique(cluster, return_inverse=True)[1])
    scores = draw_scores(cluster, rng)
    scores["image_grounding"] = np.nan_to_num(scores["image_grounding"])  # the released code takes no nan
    similarity, is_new = rng.uniform(0.3, 0.9, n).astype(np.float32), rng.random(n) < 0.5
    known = Candidates(cluster, similarity, is_new, scores, int(cluster.max()) + 1, rng.exponential(size=n))
    budget = n // 4

    def ours() -> int:
        return len(select(known, Select(budget=budget, scores=SCORES), 0).positions)

    def theirs() -> int:
        return len(select_as_released(scores, cluster, budget, seed=0))

    alone, one_cluster = scores["perplexity"], (np.array([n]), np.array([budget]))
    whole = _ratio(ours, theirs, repeat)
    sampling = _ratio(
        lambda: len(coverage_sample(alone, *one_cluster, np.random.default_rng(0)).positions),
        lambda: len(released_coverage(alone, budget, random.Random(0))),
        repeat,
    )
    return {"samples": n, "clusters": k, "budget": budget, "whole": whole, "coverage of one cluster": sampling}


def _ratio(ours: Callable[[], int], theirs: Callable[[], int], repeat: int) -> dict[str, Any]:
    """Process CPU time of both, how many each chose, and the ratio of the best times."""
    times: dict[str, list[float]] = {"ours": [], "released": []}
    chosen = {}
    for name, work in (("ours", ours), ("released", theirs)):
        for _ in range(repeat):
            start = time.process_time()
            chosen[name] = work()
            times[name].append(time.process_time() - start)
    ratio = round(min(times["released"]) / min(times["ours"]), 1)
    return {"chosen": chosen, "cpu_seconds": {name: spread(values) for name, values in times.items()}, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", nargs="*", default=["50", "auto"])
    parser.add_argument("--copies", type=float, default=0.1, help="share of samples that are near-copies of another")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        be_stage(args.folder, args.stage)
        return
    found: dict[str, Any] = {"samples": args.samples, "dim": args.dim, "copies": args.copies, "runs": []}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="pool-scale-") as folder:
        root = Path(folder)
        (root / "rounds" / ROUND).mkdir(parents=True)
        make_data(root, args.samples, args.dim, args.copies)
        for text in args.k:
            set_params(root, int(text) if text.isdigit() else text, int(0.75 * args.samples))
            stages = [run_stage(root, stage) for stage in ("cluster", "select", "prune")]
            curve = read_json(root / "rounds" / ROUND / "cluster" / "curve.json")
            sums = {name: round(sum(stage[name] for stage in stages), 2) for name in COLUMNS[2:5]}
            peaks = {name: max(stage[name] for stage in stages) for name in COLUMNS[5:]}
            whole = {"stage": "together", **sums, **peaks}
            rows += [{"k": text, **stage} for stage in [*stages, whole]]
            found["runs"].append({"k": text, "stages": stages, "together": whole, "curve": curve})
    print(f"{args.samples:,} x {args.dim}; limits: {LIMIT_SECONDS} s together, {LIMIT_MIB} MiB\n")
    print(table(rows, COLUMNS))
    found["selection"] = against_released(min(100_000, args.samples), 50)
    print(f"\nselection alone at {found['selection']['samples']:,}, CPU seconds, ours and the released way:\n")
    compared = [
        {"what": what, **{side: taken["cpu_seconds"][side] for side in ("ours", "released")}, "ratio": taken["ratio"]}
        for what, taken in found["selection"].items()
        if isinstance(taken, dict)
    ]
    print(table(compared, ["what", "ours", "released", "ratio"]))
    finish("pool_scale", found, args.json)


if __name__ == "__main__":
    main()
