"""What a round would do, before anything runs: its stages, the samples in and out of each, time, memory and disk.

Counts follow from the drop, the parent's pool and params.yaml; a drop's rejects, duplicates and unreadable samples are
not known yet, so they are upper bounds. Times are those of earlier rounds on this machine, in proportion to the samples
of each stage; where there is no earlier round they are unknown, not guessed. Nothing is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from adapt_inf import lineage, versions
from adapt_inf.config import Params, load_params
from adapt_inf.data.drops import Drop, read_drop
from adapt_inf.data.formats import count_split
from adapt_inf.data.intake import REPORT, SUITES
from adapt_inf.data.pool import POOL
from adapt_inf.drop_queue import pending_drops
from adapt_inf.earlier_rounds import EarlierRounds, models_asked
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import parse_yaml, read_json
from adapt_inf.project import Project
from adapt_inf.selection.budgets import resolve_budget
from adapt_inf.stages.runner import OUTPUTS, STAGES

_SIGNALS = 60  # bytes of a sample beside its sketch: the signals and its name


@dataclass(frozen=True)
class StagePlan:
    """One stage; None: not known before it runs, or for want of an earlier round."""

    stage: str
    cached: bool
    samples_in: int
    samples_out: int
    seconds: float | None
    memory_mb: float | None
    disk_bytes: int | None


@dataclass(frozen=True)
class Plan:
    """A round that would run.

    Attributes:
        measured: earlier rounds whose times and memory these are.
        awaiting: rounds that wait for approval; this one begins only after it.
        overhead_seconds: between stages, in all (processes that start, hashing, tracking).
        free_bytes: on the project's disk.
    """

    round: str
    parent: str
    drop: str
    strategy: str
    stages: list[StagePlan]
    measured: list[str]
    awaiting: list[str]
    overhead_seconds: float | None
    free_bytes: int

    @property
    def running(self) -> list[StagePlan]:
        return [each for each in self.stages if not each.cached]

    @property
    def seconds(self) -> float | None:
        parts = [self.overhead_seconds, *(each.seconds for each in self.running)]
        return None if None in parts else sum(part for part in parts if part is not None)

    @property
    def memory_mb(self) -> float | None:
        return max((each.memory_mb for each in self.running if each.memory_mb is not None), default=None)

    @property
    def disk_bytes(self) -> int:
        """Of the stages for which it is known."""
        return sum(each.disk_bytes or 0 for each in self.running)

    def to_json(self) -> dict[str, Any]:
        totals = {"seconds": self.seconds, "memory_mb": self.memory_mb, "disk_bytes": self.disk_bytes}
        return asdict(self) | totals


def plan_round(project: Project, drop: str | None = None) -> Plan:
    """Plan the round that `adapt-inf round` would work on next, or one for `drop`.

    Args:
        drop: a drop in drops/, or the path of one that was not dropped yet.

    Raises:
        AdaptInfError: there is nothing to do, or what is wrong with the drop or params.yaml.
    """
    cached: set[str] = set()
    waiting = pending_drops(project)
    if drop is None and (begun := lineage.unfinished(project)):
        round_id = begun[0]
        record = lineage.read_round(project, round_id)
        parent, name, params = record.parent, record.drop, load_params(project.params_of(round_id))
        cached = _cached(project, round_id)
    else:
        if drop is None and not waiting:
            raise AdaptInfError("No drop waits and every round is done.", "`adapt-inf plan PATH` plans one for a drop.")
        numbers = [lineage.round_number(each.round) for each in lineage.rounds(project)]
        round_id, parent = f"r{max(numbers, default=0) + 1:03d}", lineage.head(project)
        params = load_params(project.params_file)
        lineage.check_selection(params, project.params_file)
        name = drop or waiting[0]
    folder = project.drop(Path(name).name)
    if Path(name).name != name or not folder.is_dir():  # a path
        folder = Path(name).resolve()
        name = read_drop(folder).name
    read, kept = _counts(project, round_id, cached, folder)
    pool = project.output(parent, "pool")
    if not pool.is_dir():
        raise RoundError(parent, "its pool is not here", f"Bring it here with `adapt-inf pull {parent}`.")
    suites = sum(pq.read_metadata(path).num_rows for path in (pool / SUITES).glob("*.parquet"))
    size = _Sizes.of(params, read, kept, read_json(pool / POOL)["live"], suites, parent)
    earlier = EarlierRounds(project, params)
    stages = [
        StagePlan(
            stage=stage,
            cached=stage in cached,
            samples_in=size.flows[stage][0],
            samples_out=size.flows[stage][1],
            seconds=earlier.seconds(stage, size.work[stage]),
            memory_mb=earlier.memory_mb(stage),
            disk_bytes=_disk(earlier, stage, size, folder, params),
        )
        for stage in STAGES
    ]
    overhead = earlier.overhead()
    return Plan(
        round=round_id,
        parent=parent,
        drop=name,
        strategy=params.select.strategy,
        stages=stages,
        measured=earlier.rounds,
        awaiting=lineage.awaiting(project),
        overhead_seconds=None if overhead is None else overhead * (len(STAGES) - len(cached)),
        free_bytes=shutil.disk_usage(project.root).free,
    )


def _counts(project: Project, round_id: str, cached: set[str], folder: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Samples of the drop that are for training and for evaluation: read, and kept, as far as that is known."""
    if "ingest" in cached:
        report = read_json(project.output(round_id, "ingest") / REPORT)
        return (report["read"], 0), (report["train"], report["eval"])
    drop: Drop = read_drop(folder)
    counts = count_split(drop, "train"), count_split(drop, "eval") if drop.eval else 0
    return counts, counts


@dataclass(frozen=True)
class _Sizes:
    """How many samples go into and come out of each stage, and how many its time goes by."""

    flows: dict[str, tuple[int, int]]
    work: dict[str, float]

    @classmethod
    def of(
        cls, params: Params, read: tuple[int, int], kept: tuple[int, int], live: int, suites: int, parent: str
    ) -> _Sizes:
        train, evaluation = kept
        candidates = live + train
        budget = resolve_budget(params.select.budget, candidates)
        selected = {"full": candidates, "sequential": min(budget, train)}.get(params.select.strategy, budget)
        stays = min(params.prune.pool_cap or candidates, candidates)
        batch = params.train.batch_size
        steps = params.train.steps or max(1, round(params.train.epochs * -(-selected // batch)))
        asked = suites + evaluation
        flows = dict.fromkeys(STAGES, (candidates, candidates)) | {
            "ingest": (sum(read), sum(kept)),
            "select": (candidates, selected),
            "prune": (candidates, stays),
            "train": (selected, steps * batch),
            "evaluate": (asked, asked),
        }
        work = {stage: float(candidates) for stage in STAGES} | {
            "ingest": float(sum(read)),
            "train": float(steps * batch),
            "evaluate": float(asked + evaluation * models_asked(parent)),
        }
        return cls(flows, work)


def _cached(project: Project, round_id: str) -> set[str]:
    """Stages of a round that began that are up to date, and on which no stage that must run stands."""
    definition = parse_yaml((project.round(round_id) / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    cached: set[str] = set()
    with versions.open_repository(project.root) as repo:
        for stage in STAGES:
            own = [Path(path).name for path in definition[stage]["deps"] if "${round}" in path]
            ahead = {each for each in STAGES if OUTPUTS[each] in own}
            if ahead <= cached and not repo.status(targets=[f"rounds/{round_id}/dvc.yaml:{stage}"]):
                cached.add(stage)
    return cached


def _disk(earlier: EarlierRounds, stage: str, size: _Sizes, folder: Path, params: Params) -> int | None:
    if stage == "ingest":  # pictures are kept as they came
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if stage == "prune":
        return earlier.pool_bytes()
    found = earlier.bytes(stage, size.flows[stage][0])
    if found is None and stage == "sketch" and not params.keeps_hidden:
        return size.flows[stage][1] * (2 * params.sketch.dim + _SIGNALS)  # half precision
    return found


# --- for the terminal -------------------------------------------------------------------------------------------------


def plan_table(plan: Plan) -> str:
    """The plan for people: a row per stage, what it comes to, and what it does not know."""
    rows = [["stage", "", "samples in", "out", "time", "memory", "disk"]]
    for each in plan.stages:
        counts = [f"{each.samples_in:,}", f"{each.samples_out:,}"]
        figures = ["-"] * 3 if each.cached else [_time(each.seconds), _mb(each.memory_mb), _mb(_in_mb(each.disk_bytes))]
        rows.append([each.stage, "done" if each.cached else "runs", *counts, *figures])
    if plan.running:
        rows.append(["between", "", "", "", _time(plan.overhead_seconds), "", ""])
    rows.append(["all", "", "", "", _time(plan.seconds), _mb(plan.memory_mb), _mb(_in_mb(plan.disk_bytes))])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in pairs[:2]), *(cell.rjust(width) for cell, width in pairs[2:])]
        )
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    title = f"round {plan.round}: drop {plan.drop} on top of {plan.parent}, strategy {plan.strategy}"
    return "\n".join([title, *(line.rstrip() for line in lines), *_remarks(plan)])


def _remarks(plan: Plan) -> Iterable[str]:
    yield "Counts are those of a drop without rejects, duplicates and samples that the model cannot read."
    if plan.measured:
        yield f"Times and memory by {', '.join(plan.measured)} on this machine."
    else:
        yield "No round has ended on this machine: times and memory are not known yet."
    for each in plan.awaiting:
        yield f"Round {each} waits for approval; this one begins after `adapt-inf promote {each}` (or its `--decline`)."
    if plan.disk_bytes > plan.free_bytes:
        left = f"{plan.free_bytes / 1e6:,.0f} MB"
        yield f"The disk has {left} left, which is too little. `adapt-inf gc` shows what may go."


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _mb(value: float | None) -> str:
    return "?" if value is None else f"{value:,.1f} MB" if value < 10 else f"{value:,.0f} MB"


def _in_mb(size: int | None) -> float | None:
    return None if size is None else size / 1e6
