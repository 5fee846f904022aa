"""Work in the processes that a launcher begins, one a GPU: `torchrun ...` or `accelerate launch ...`.

The launcher begins this module as often as it is told to; each process learns from RANK and WORLD_SIZE which one it is,
does its share, and tells on its standard output, a line of JSON each, what it has done or why it could not. Everything
ends with the process that began the launcher, however that ends.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist

from adapt_inf.config import load_params
from adapt_inf.errors import AdaptInfError
from adapt_inf.executors.faults import error_of, fault_of
from adapt_inf.files import write_beside_others, write_json
from adapt_inf.models.sharding import Turns, join
from adapt_inf.parallel import Team
from adapt_inf.processes import end_with_parent
from adapt_inf.project import Project
from adapt_inf.stages.context import StageContext

_MARK = "\x1eadapt-inf "  # before what is told; other lines are the launcher's, and are handed on
_JOB = ".job.part"  # the stage's output is cleared of such names
_OUT = 1  # standard output
_GONE = (
    5.0  # seconds: where another was killed, this one's broken connection is no fault; its launcher ends it meanwhile
)
_NO_COMMAND = (2, 126, 127)  # a launcher that does not know an option, or the shell's word that there is none


def on_launched(
    launcher: str, share: Callable[..., Any], ctx: StageContext, out: Path, parts: list[int] | None
) -> Iterator[int]:
    """Have `launcher` begin processes that share a work; numbers of samples as they are done.

    Args:
        launcher: the words of a command; ours are added behind.
        share: of a module. With `parts` a class of `parts.PartWorker`, made of (context, out), each process doing every
            so many-th part; without, a function of (context, out, team).
        ctx: of the stage.
        out: where the processes write.
        parts: the numbers of those to do.

    Raises:
        AdaptInfError: the launcher cannot be begun, or what a process raised, if it raised such a one.
        OSError: what a process met of that kind, as a full disk.
        ChildProcessError: a process was killed.
        RuntimeError: a process failed otherwise, with its traceback.
    """
    job = out / _JOB
    names = {"module": share.__module__, "function": share.__qualname__}
    write_json(job, {**names, "root": str(ctx.project.root), "round": ctx.round, "out": str(out), "parts": parts})
    words = [*shlex.split(launcher), "-m", __name__, str(job)]
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: end_with_parent(parent, signal.SIGTERM)
        )
    except (FileNotFoundError, PermissionError) as error:
        raise AdaptInfError(
            f"`executor.launcher` is `{launcher}`, and {words[0]} cannot be begun ({error.strerror}).",
            "Set it to what begins processes here, such as `torchrun --standalone --nproc-per-node 8`.",
        ) from error
    faults: list[dict[str, Any]] = []
    with process:
        assert process.stdout is not None
        try:
            yield from _heard(process.stdout, faults)
        except BaseException:
            process.terminate()
            process.wait()  # it ends those that it began first
            raise
    job.unlink(missing_ok=True)
    if faults:  # what can be mended before what came of it in other processes
        raise error_of(min(faults, key=lambda fault: fault["kind"] == "other"))
    if process.returncode in _NO_COMMAND:
        raise AdaptInfError(
            f"`executor.launcher` is `{launcher}`, which left with {process.returncode}.",
            "What it printed stands above.",
        )
    if process.returncode:
        raise ChildProcessError(f"{words[0]} left with {process.returncode}; what it printed stands above")


def _heard(lines: IO[str], faults: list[dict[str, Any]]) -> Iterator[int]:
    for line in lines:
        before, mark, text = line.partition(_MARK)  # a launcher may put a label before each line
        if not mark:
            print(before, end="", file=sys.stderr)
            continue
        told = json.loads(text)
        if isinstance(told, int):
            yield told
        else:
            faults.append(told)


def _tell(what: Any) -> None:
    # In one write: several processes share the pipe, and `print` may write a line and its end apart.
    line = f"{_MARK}{json.dumps(what)}\n".encode()
    while line:
        line = line[os.write(_OUT, line) :]


def main(job: str) -> int:
    """Be one of the processes."""
    launcher = os.getppid()
    if not end_with_parent(launcher):
        return 1
    _tell(0)  # fails where the stage has ended while this process imported
    write_beside_others()
    team = Team(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    elif team.count > 1:
        torch.set_num_threads(1)  # see adapt_inf.parallel
    try:
        about = json.loads(Path(job).read_text(encoding="utf-8"))
        project = Project(Path(about["root"]))
        shared = join()
        ctx = StageContext(project, about["round"], load_params(project.params_of(about["round"])))
        share = getattr(importlib.import_module(about["module"]), about["function"])
        out, parts = Path(about["out"]), about["parts"]
        if parts is None:
            share(ctx, out, team)
        elif shared or len(parts) > team.rank:
            worker = share(ctx, out)
            turns = Turns(worker.vlm) if shared else None
            for part in parts[team.rank :: team.count]:
                worker(part, _tell)
            if turns is not None:
                turns.see_out(worker.idle)
                dist.destroy_process_group()
    except Exception as error:
        fault = fault_of(error, f"Process {team.rank} of {team.count} on {socket.gethostname()}")
        if dist.is_initialized() and fault["kind"] == "other":
            time.sleep(_GONE)
        _tell(fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
