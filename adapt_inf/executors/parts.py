"""Work over parts of a round's candidates, resumed at those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adapt_inf.config import Executor
from adapt_inf.models.vlm import VLM, pick_device
from adapt_inf.parallel import SharedProgress, run_workers, worker_count
from adapt_inf.progress import progress
from adapt_inf.stages.context import StageContext

Table = dict[str, NDArray[Any]]
"""What comes back of a part: columns of one length, or none."""

Advance = Callable[[int], object]


def device_kind(executor: Executor) -> str:
    """What does the work, `cuda` or `cpu`. Their precision differs: what one began the other must not go on with."""
    if executor.kind == "ray":
        return "cuda" if executor.gpus_per_worker else "cpu"
    return pick_device().type


class PartWorker(Protocol):
    """Holds what one process needs (a model, the candidates) and does parts, each of which leaves its files whole."""

    @property
    def vlm(self) -> VLM: ...

    def __call__(self, part: int, advance: Advance) -> None:
        """Do `part`; call `advance` with each number of samples that is done."""
        ...

    def idle(self) -> object:
        """Run one pass like those of `__call__` that counts for nothing; see `models.sharding.Turns`."""
        ...


def over_parts(
    name: str,
    ctx: StageContext,
    out: Path,
    kind: Callable[[StageContext, Path], PartWorker],
    parts: Sequence[tuple[int, int]],
    missing: list[int],
) -> int:
    """Have every missing part done; how many samples were done before.

    Args:
        name: of the work, for its progress.
        ctx: of the stage; its `executor` says who does the work.
        out: the folder that workers write into.
        kind: of worker, a class of a module.
        parts: (start, stop) of each part.
        missing: the numbers of those to do.

    Raises:
        AdaptInfError: what a worker raised, if it raised such a one.
        ChildProcessError: a worker was killed, and could not be replaced.
    """
    sizes = [stop - start for start, stop in parts]
    total = sum(sizes)
    done = total - sum(sizes[part] for part in missing)
    if not missing:
        return done
    executor = ctx.params.executor
    if executor.kind == "ray":
        from adapt_inf.executors.ray import on_ray

        with progress(name, total, done=done) as bar:
            for _, table in on_ray(executor, partial(_Counting, kind, ctx, out), missing):
                bar.update(int(table["done"].sum()))
        return done
    if executor.launcher is not None:
        from adapt_inf.executors.launched import on_launched

        with progress(name, total, done=done) as bar:
            for number in on_launched(executor.launcher, kind, ctx, out, missing):
                bar.update(number)
        return done
    worker = kind(ctx, out)
    count = worker_count(worker.vlm.device, len(missing))

    def work(rank: int) -> None:
        for part in missing[rank::count]:
            worker(part, shown.update)

    with SharedProgress(name, total, done) as shown:
        run_workers(count, work)
    return done


class _Counting:
    def __init__(self, kind: Callable[[StageContext, Path], PartWorker], ctx: StageContext, out: Path) -> None:
        self._worker = kind(ctx, out)

    def __call__(self, part: int) -> Table:
        counts: list[int] = []
        self._worker(part, counts.append)
        return {"done": np.array(counts, dtype=np.int64)}
