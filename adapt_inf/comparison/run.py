"""Compute what a comparison's lineages need, several results at a time.

This process hands out work and computes nothing. A lineage moves on when its next result is there, from whichever
lineage it came; where another lineage is just computing it, work goes to the next one meanwhile. More lineages at a
time waste less than more cores for each.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapt_inf.comparison.hands import Hands
from adapt_inf.comparison.pace import Pace
from adapt_inf.comparison.pipeline import read_pipeline
from adapt_inf.comparison.plan import Plan
from adapt_inf.comparison.store import Store
from adapt_inf.comparison.walk import Walk
from adapt_inf.comparison.work import load_stages
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project
from adapt_inf.stages.runner import WORKINGS

_QUIET_SECONDS = 60.0  # without a word

Tell = Callable[[str], None]


def folder_of(project: Project, name: str) -> Path:
    return project.root / "comparisons" / name


def store_of(project: Project) -> Store:
    """What all comparisons of a project share."""
    return Store(project.root / "comparisons" / ".store")


def walks_of(project: Project, plan: Plan) -> list[Walk]:
    """The plan's lineages in the order of work, each as far as its results are there."""
    pipeline, store = read_pipeline(project.root / "dvc.yaml"), store_of(project)
    walks = [Walk(project, plan, line, pipeline) for line in plan.lineages()]
    for walk in walks:
        walk.advance(store)
    return walks


@contextmanager
def one_at_a_time(project: Project, name: str) -> Iterator[None]:
    """Hold the place of the one comparison that is at work in a project: they share what they compute.

    Raises:
        AdaptInfError: another is at work.
    """
    home = project.root / "comparisons"
    home.mkdir(exist_ok=True)
    (home / ".gitignore").write_text("*\n", encoding="utf-8")  # a project that is older than this command
    with open(home / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AdaptInfError(
                f"Comparison {file.read() or 'of another process'} is at work in {project.root}.",
                "One at a time: wait for it, or stop it and give the same command again. "
                "`adapt-inf compare --so-far` shows what is done.",
            ) from None
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()})")
        file.flush()
        yield


def run(project: Project, plan: Plan, jobs: int, tell: Tell) -> list[Walk]:
    """Compute all that is missing; the lineages, each done.

    Args:
        jobs: results that are computed at the same time.
        tell: gets a line for every round that is done.

    Raises:
        AdaptInfError: a stage failed; what is done stays, and the same call goes on.
    """
    walks, store = walks_of(project, plan), store_of(project)
    benches = project.root / "comparisons" / ".work"
    open_ones = [walk for walk in walks if not walk.done]
    tell(f"{len(walks)} lineages of {len(plan.drops)} rounds, {len(walks) - len(open_ones)} of them done already")
    if open_ones:
        load_stages()
        pace, said = Pace(walks, jobs), time.monotonic()
        with Hands(store, jobs) as hands:
            while open_ones or hands.busy:
                _hand_out(open_ones, store, benches, hands)
                hands.wait(_QUIET_SECONDS)
                if time.monotonic() - said > _QUIET_SECONDS:
                    tell(f"  at work: {hands.doing()}")
                    said = time.monotonic()
                for walk in open_ones:
                    before = len(walk.results)
                    walk.advance(store)
                    pace.add(walk, before)
                    for line in pace.lines(walk, before):
                        tell(line)
                        said = time.monotonic()
                open_ones = [walk for walk in open_ones if not walk.done]
                _clear_workings(walks, open_ones, store)
    shutil.rmtree(benches, ignore_errors=True)
    return walks


def _hand_out(open_ones: Iterable[Walk], store: Store, benches: Path, hands: Hands) -> None:
    """Give every free hand the next result that a lineage waits for and nobody computes."""
    for walk in open_ones:
        if not hands.free:
            return
        task = walk.task(store, benches)
        if task.name not in hands.busy:
            hands.begin(task, str(walk.line))


def _clear_workings(walks: Sequence[Walk], open_ones: Sequence[Walk], store: Store) -> None:
    """Remove sketches, clusters and scores of seeds that are done: other seeds have their own."""
    seeds = {walk.line.seed for walk in open_ones}
    needed = {result.name for walk in open_ones for result in walk.results}
    for walk in walks:
        if walk.line.seed not in seeds:
            for step, result in zip(walk.steps, walk.results, strict=True):
                if step.stage.name in WORKINGS and result.name not in needed:
                    store.drop_content(result.name)
