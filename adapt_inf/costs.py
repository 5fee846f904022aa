"""What a round costs at another size: of the pool, of the model, on GPUs. By formula, from measured rates.

The model's stages go by operations: so many for a parameter and a token (see `models.sizes`), so many tokens, and the
rate at which they are done: that of earlier rounds on this machine, per stage, or `tflops` of a GPU. Memory is by the
formulas of docs/models.md. What the pool costs beside the model (cluster, select, prune) goes by sizes and dimensions,
with constants that `benchmarks/pool_scale.py` gave and a small product that tells how fast this machine is.
`benchmarks/cost_model.py` holds all of it against runs at three sizes.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from adapt_inf import lineage
from adapt_inf.config import Params, load_params
from adapt_inf.data.intake import SUITES
from adapt_inf.data.manifest import SHARDS
from adapt_inf.earlier_rounds import EarlierRounds
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import read_json
from adapt_inf.models.sizes import OPERATIONS, Shape, activations, shape_of
from adapt_inf.project import BASE, PROXY, Project
from adapt_inf.selection.blocks import cores, on_every_core
from adapt_inf.selection.budgets import resolve_budget
from adapt_inf.selection.clusters import SILHOUETTE_SAMPLES, k_grid
from adapt_inf.stages.runner import STAGES

TFLOPS = 140.0
"""Of one GPU, kept up over a pass: an A100's 312 at 45%. An assumption, since none was measured."""
WITH_MODEL = ("sketch", "score", "train", "evaluate")
_LOOK = ("sketch", "score")  # where a proxy stands in for the model, if one is set

_HASHED = 6e8  # bytes a second: DVC hashes what a stage leaves
_ROW = 5e-9  # seconds a number of a sketch, read and decoded to be assigned
_STEP = 3e-9  # seconds a number of a sketch that k-means trains on, read and decoded in each step
_TRAINING_RATE, _ASSIGNING_RATE = 9.5e10, 2.4e11  # operations a second of k-means, and of large products
_LEAST = 0.05  # seconds of a stage, whatever its size
_SELECTED = 1.25e-6  # seconds a candidate
_PRUNED = 9.6e-10  # seconds a number of a sketch, times the root of its cluster's size: bounds tell most pairs apart
_KMEANS_STEPS = 20
_REFERENCE = 1.84e11  # operations a second of `_speed` on the machine that the constants above are of: two cores
_SPEED_SECONDS = 0.5  # of products, the fastest of which counts: other work comes in between for tens of milliseconds
_SIGNALS, _CHOSEN, _MANIFEST, _ANSWER = 60, 40, 150, 200  # bytes a sample in tables


@dataclass(frozen=True)
class Size:
    """A round that is asked about.

    Attributes:
        candidates: the pool's live samples and the drop's.
        new: those of the drop.
        tokens: of a sample, with those of its images.
        sample_bytes: of one in a shard.
        asked: evaluation samples.
    """

    candidates: int
    new: int
    tokens: float
    sample_bytes: float
    asked: int


@dataclass(frozen=True)
class StageCost:
    """One stage; None where nothing is known.

    Attributes:
        samples: that it goes over.
        memory_bytes: of a GPU, or of the process without one: model, batch, arrays.
        moved_bytes: read and written, over the network where the project's folder is on one; and, where processes train
            together, the gradients that one of them sends.
        grows: with the candidates: `n`, `n^1.25`, `n^1.5`, or `-` where it does not.
    """

    stage: str
    samples: int
    seconds: float | None
    memory_bytes: float
    disk_bytes: float
    moved_bytes: float
    grows: str


@dataclass(frozen=True)
class Estimate:
    """What a round of some size would cost.

    Attributes:
        gpus: 0: this machine as the earlier rounds had it.
        tflops: assumed of a GPU; None without GPUs.
        measured: the rounds whose rates these are.
        pool_cap: of params.yaml.
    """

    model: Shape
    size: Size
    gpus: int
    tflops: float | None
    measured: list[str]
    stages: list[StageCost]
    between_seconds: float | None
    pool_cap: int | None

    @property
    def seconds(self) -> float | None:
        parts = [self.between_seconds, *(each.seconds for each in self.stages)]
        return None if None in parts else sum(part for part in parts if part is not None)

    def to_json(self) -> dict[str, Any]:
        totals = {
            "seconds": self.seconds,
            "memory_bytes": max(each.memory_bytes for each in self.stages),
            "disk_bytes": sum(each.disk_bytes for each in self.stages),
            "moved_bytes": sum(each.moved_bytes for each in self.stages),
        }
        return asdict(self) | totals


def estimate_round(
    project: Project,
    pool: int | None = None,
    model: str | None = None,
    gpus: int = 0,
    new: int | None = None,
    tokens: float | None = None,
    tflops: float = TFLOPS,
) -> Estimate:
    """What a round of this project's kind would cost at another size.

    Args:
        pool: candidates; None: those of the head's pool.
        model: see `shape_of`; None: the project's base.
        gpus: that share the work; 0: this machine as it was measured.
        new: candidates that the drop brings; None: a tenth.
        tokens: of a sample; None: as measured.
        tflops: of a GPU.

    Raises:
        AdaptInfError: no round has ended from which rates could be told, or an argument is none.
        RoundError: the head's pool or the base model is not here.
    """
    params = load_params(project.params_file)
    proxy = params.sketch.model == PROXY
    needed = [(lineage.head(project), "pool"), (BASE, "model"), *([(BASE, PROXY)] if proxy else [])]
    for round_id, name in needed:
        if not project.output(round_id, name).is_dir():
            raise RoundError(round_id, f"its {name} is not here", f"Bring it here with `adapt-inf pull {round_id}`.")
    earlier, own = EarlierRounds(project, params), shape_of(str(project.output(BASE, "model")))
    known = earlier.tokens()
    if tokens is None and known is None:
        raise AdaptInfError(
            "How many tokens a sample has is not known before a round has ended.", "Say it: --tokens 700."
        )
    if not gpus and not earlier.rounds:
        raise AdaptInfError(
            "No round has ended on this machine, so its rates are not known.", "Name GPUs, with --gpus, or run one."
        )
    live, sample_bytes, asked = _pool(project)
    candidates = pool if pool is not None else live
    new = max(1, candidates // 10) if new is None else new
    if not 0 < new <= candidates:
        raise AdaptInfError(
            f"A drop of {new:,} is not part of a pool of {candidates:,}.", "Let --new be at most --pool."
        )
    size = Size(candidates, new, float(tokens or known or 0.0), sample_bytes, asked)
    shape = own if model is None else shape_of(model)
    of_all = _Work(params, shape, size, max(1, gpus), on_gpu=gpus > 0)
    of_all_then = _Work(params, own, Size(1, 1, known or size.tokens, sample_bytes, 1), 1, on_gpu=False)
    # The proxy stays what it is, whatever the model that is asked about.
    looks = shape_of(str(project.output(BASE, PROXY))) if proxy else None
    stages, beside = [], pool_seconds(params, candidates, earlier.clusters_by_root())
    for stage in STAGES:
        work, then = of_all, of_all_then
        if looks is not None and stage in _LOOK:
            work, then = (replace(each, model=looks) for each in (work, then))
        if stage in WITH_MODEL and gpus:
            seconds: float | None = work.operations(stage) / (gpus * tflops * 1e12)
        elif stage in WITH_MODEL or stage == "ingest":
            least = then.per_sample(stage) if stage in WITH_MODEL else 0.0
            scale = work.per_sample(stage) / least if least else 1.0
            line = earlier.line(stage)
            seconds = None if line is None else line[0] + line[1] * scale * earlier.span(stage, work.samples(stage))
        else:
            seconds = beside[stage]
        stages.append(work.cost(stage, seconds))
    overhead, disk = earlier.overhead(), sum(each.disk_bytes for each in stages)
    between = None if overhead is None else overhead * len(STAGES) + disk / _HASHED
    return Estimate(
        model=shape,
        size=size,
        gpus=gpus,
        tflops=tflops if gpus else None,
        measured=earlier.rounds,
        stages=stages,
        between_seconds=between,
        pool_cap=params.prune.pool_cap,
    )


def pool_seconds(params: Params, candidates: int, clusters_by_root: float | None = None) -> dict[str, float]:
    """Seconds of the stages that look at sketches and scores alone, on this machine: cluster, select, prune.

    Args:
        clusters_by_root: what `cluster.k: auto` comes to, over the root of the candidates; None: the least that it
            tries.
    """
    work = _Work(params, Shape(0, 0, 0, 0), Size(candidates, 1, 0, 0, 0), 1, False, clusters_by_root)
    speed = _speed()
    return {stage: work.beside_the_model(stage) / speed for stage in ("cluster", "select", "prune")}


def _pool(project: Project) -> tuple[int, float, int]:
    """Of the head's pool: live samples, bytes of a sample in the shards, evaluation samples."""
    pool = project.output(lineage.head(project), "pool")
    shards = sorted((pool / SHARDS).glob("*.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in shards)
    asked = sum(pq.read_metadata(path).num_rows for path in (pool / SUITES).glob("*.parquet"))
    size = sum(path.stat().st_size for path in shards) / rows if rows else 0.0
    return int(read_json(pool / "pool.json")["live"]), size, asked


@dataclass(frozen=True)
class _Work:
    """What each stage does at some size."""

    params: Params
    model: Shape
    size: Size
    workers: int
    on_gpu: bool
    clusters_by_root: float | None = None

    def samples(self, stage: str) -> int:
        n = self.size.candidates
        train, select = self.params.train, self.params.select
        if stage == "ingest":
            return self.size.new
        if stage == "evaluate":
            return self.size.asked
        if stage == "prune" and (self.params.prune.pool_cap or n) >= n:
            return 0
        if stage != "train":
            return n
        selected = {"full": n, "sequential": min(self.size.new, resolve_budget(select.budget, n))}.get(
            select.strategy, resolve_budget(select.budget, n)
        )
        steps = train.steps or max(1, round(train.epochs * -(-selected // train.batch_size)))
        return steps * train.batch_size

    def per_sample(self, stage: str) -> float:
        """Operations of the model on a sample."""
        evaluate = self.params.evaluate
        tokens = self.size.tokens + (2 * evaluate.max_new_tokens if stage == "evaluate" else 0)
        return OPERATIONS[stage](self.params) * self.model.parameters * tokens

    def operations(self, stage: str) -> float:
        return self.per_sample(stage) * self.samples(stage)

    def clusters(self) -> tuple[float, float]:
        """How many clusters there will be, and how many centroids are trained on the way to that number."""
        if self.params.cluster.k != "auto":
            return float(self.params.cluster.k), 0.0
        grid = [float(k) for k in k_grid(self.size.candidates)]
        likely = (self.clusters_by_root or 0.0) * math.sqrt(self.size.candidates)
        return min(max(likely, grid[0]), grid[-1]), sum(grid)

    def beside_the_model(self, stage: str) -> float:
        """Seconds of cluster, select or prune on the machine of the constants."""
        n, dim = self.size.candidates, self.params.sketch.dim
        k, tried = self.clusters()
        if stage == "select":
            return _LEAST + _SELECTED * n
        if stage == "prune":
            return _LEAST + self.samples("prune") * dim * _PRUNED * math.sqrt(n / k)
        trained, measured = min(n, k * self.params.cluster.points_per_centroid), min(n, SILHOUETTE_SAMPLES) / 2
        points = trained + measured * (len(k_grid(n)) if tried else 0)
        training = points * _STEP + 2 * (k * trained + tried * measured) / _TRAINING_RATE
        return _LEAST + dim * (n * _ROW + _KMEANS_STEPS * training + 2 * k * n / _ASSIGNING_RATE)

    def cost(self, stage: str, seconds: float | None) -> StageCost:
        disk = self.disk(stage)
        moved = self.moved(stage) + disk
        return StageCost(stage, self.samples(stage), seconds, self.memory(stage), disk, moved, self._grows(stage))

    @property
    def weights(self) -> float:
        """Bytes of the model's, as a device holds them."""
        return self.model.parameters * (2.0 if self.on_gpu else 4.0)

    def disk(self, stage: str) -> float:
        """Bytes that a stage leaves."""
        n, select = self.size.candidates, self.params.select
        hidden = self.model.width if self.params.keeps_hidden else 0
        return {
            "ingest": self.samples("ingest") * self.size.sample_bytes,
            "sketch": (2.0 * (self.params.sketch.dim + hidden) + _SIGNALS) * n,
            "cluster": 12.0 * n,
            "score": (8 * len(select.scores) + 20.0) * n,
            "select": _CHOSEN * float(min(n, resolve_budget(select.budget, n))),
            "prune": _MANIFEST * float(n),
            "train": 4 * self.model.adapter(self.params.train.rank),
            "evaluate": _ANSWER * float(self.samples("evaluate")),
        }[stage]

    def moved(self, stage: str) -> float:
        """Bytes that a stage reads, and that its processes send one another."""
        pictures = self.samples(stage) * self.size.sample_bytes
        if stage in WITH_MODEL:
            return pictures + self.workers * self.weights + self._added_up(stage)
        if stage in ("ingest", "select"):
            return pictures if stage == "ingest" else 100.0 * self.size.candidates
        features = self.params.cluster.features if stage == "cluster" else self.params.prune.features
        width = self.params.sketch.dim if features == "gradient" else self.model.width
        return 2.0 * self.size.candidates * width if self.samples(stage) else 0.0

    def _added_up(self, stage: str) -> float:
        """Each process's share of adding gradients up."""
        if stage != "train" or self.workers == 1:
            return 0.0
        steps = self.samples(stage) / self.params.train.batch_size
        return 2 * self.disk(stage) * steps * (self.workers - 1) / self.workers

    def memory(self, stage: str) -> float:
        """Bytes of a GPU, or of the process."""
        if stage not in WITH_MODEL:
            return self.params.memory_mb * 1e6 + 100.0 * self.size.candidates
        kept = activations(stage, self.params, self.model, self.size.tokens)
        return self.weights + kept * (1 if self.on_gpu else 2)

    def _grows(self, stage: str) -> str:
        if stage in ("ingest", "evaluate") or (stage == "prune" and not self.samples(stage)):
            return "-"
        if stage == "train":
            fixed = self.params.train.steps is not None or isinstance(self.params.select.budget, int)
            return "-" if fixed else "n"
        auto = self.params.cluster.k == "auto"
        return {"cluster": "n^1.5" if auto else "n", "prune": "n^1.25" if auto else "n^1.5"}.get(stage, "n")


def _speed() -> float:
    """How fast all cores of this machine multiply, beside the one that the constants are of.

    On threads of ours, as the stages do it: a library's own are turned off where `adapt-inf` runs.
    """
    size = 1024
    rows = np.random.default_rng(0).random((size, size), dtype=np.float32)
    shares = np.array_split(rows, cores())
    taken: list[float] = []
    until = time.perf_counter() + _SPEED_SECONDS
    while time.perf_counter() < until or not taken:
        begun = time.perf_counter()
        on_every_core(lambda share: share @ rows, shares)
        taken.append(time.perf_counter() - begun)
    return 2 * size**3 / min(taken) / _REFERENCE
