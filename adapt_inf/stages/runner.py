"""Run one stage of one round in this process, and leave beside the round how long it took and what it needed.

The figures go to rounds/<round>/log/<stage>.json, outside every output: a time in an output would change its hash.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from adapt_inf.config import load_params
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import read_json, room_for, write_json
from adapt_inf.project import SCRATCH, Project
from adapt_inf.stages.context import StageContext

STAGES = ("ingest", "sketch", "cluster", "score", "select", "prune", "train", "evaluate")

OUTPUTS = {stage: stage for stage in STAGES} | {"prune": "pool", "train": "model"}
"""The folder of a round that each stage writes."""

WORKINGS = ("sketch", "score", "cluster")
"""Outputs that nothing reads once the round is finished; `adapt-inf gc` removes them, in this order."""


def run_stage(project: Project, round_id: str, stage: str) -> dict[str, Any]:
    """Run `stage` of `round_id` and return its report, as written to the round's log.

    Raises:
        AdaptInfError: the fault and its mend; it is also left in the log, for the flow that waits behind DVC.
    """
    if stage not in STAGES:
        raise RoundError(round_id, f"there is no stage {stage}", f"The stages are {', '.join(STAGES)}.")
    if not project.params_of(round_id).is_file() or (round_id != SCRATCH and not project.round(round_id).is_dir()):
        raise RoundError(round_id, "there is no such round", "`adapt-inf lineage` lists the rounds.")
    log = project.log(round_id)
    fault = log / f"{stage}.error.json"
    fault.unlink(missing_ok=True)
    warnings.simplefilter("ignore", FutureWarning)  # PEFT calls what transformers will rename: nothing a user can mend
    module = importlib.import_module(f"adapt_inf.stages.{stage}")
    started = time.monotonic()
    try:
        params = load_params(project.params_of(round_id))
        with room_for(project.round(round_id)), _one_at_a_time(project, round_id):
            report = module.run(StageContext(project, round_id, params))
    except AdaptInfError as error:
        with suppress(OSError):  # on a full disk the message on the terminal must do
            write_json(fault, {"kind": type(error).__name__, "message": str(error)})
        raise
    outcome = {
        "stage": stage,
        "seconds": round(time.monotonic() - started, 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "cached": False,
        "report": report,
    }
    write_json(log / f"{stage}.json", outcome)
    return outcome


@contextmanager
def _one_at_a_time(project: Project, round_id: str) -> Iterator[None]:
    """Wait until no other stage of the round is at work: one may have outlived the killed run that started it."""
    project.work(round_id).mkdir(parents=True, exist_ok=True)
    with open(project.work(round_id) / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            print(
                f"Waiting for process {file.read()}, which is still at work on {round_id}.", file=sys.stderr, flush=True
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def stage_outcome(project: Project, round_id: str, stage: str, *, cached: bool) -> dict[str, Any]:
    """What the log says of a stage that ran, now or (`cached`) before.

    Only its name where there is no log: then it has not run, and DVC took what it left from its cache of runs.
    """
    path = project.log(round_id) / f"{stage}.json"
    if not path.is_file():
        return {"stage": stage, "report": {}, "cached": True}
    return read_json(path) | {"cached": cached}


def forget_fault(project: Project, round_id: str, stage: str) -> None:
    """Remove the fault of an earlier attempt: what keeps the next from even beginning is another."""
    (project.log(round_id) / f"{stage}.error.json").unlink(missing_ok=True)


def stage_fault(project: Project, round_id: str, stage: str) -> dict[str, str] | None:
    """The fault with a mend that a stage left, or None where it ended some other way."""
    path = project.log(round_id) / f"{stage}.error.json"
    return read_json(path) if path.is_file() else None
