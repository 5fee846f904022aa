"""What MLflow has still to be told: a list in the project, which `adapt-inf track` works off.

MLflow is for people to look at; no round, pool or model depends on it. So where it does not answer, the round goes on
and ends, and its name is set down here. After the first failure nothing more of that round is tried, and nothing at all
for a minute: a server that is gone costs a round one delay, not one for each of its stages. What is missed can be
sent later, since all of it follows from what the project holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from adapt_inf.errors import shown
from adapt_inf.files import is_full, read_json, write_json
from adapt_inf.project import Project
from adapt_inf.tracking.process import call
from adapt_inf.tracking.store import MLflowError, tracking_uri

HEAD = "head"  # the name under which moves of the head are missed

_QUIET_SECONDS = 60.0
_LONGEST = 200  # characters of a reason
# Packages by which MLflow speaks to its server, its database and where artifacts lie.
_STORES = ("mlflow", "requests", "urllib3", "sqlalchemy", "botocore", "boto3", "s3transfer", "azure", "google")

T = TypeVar("T")
_failed: dict[str, tuple[float, str]] = {}  # by the store's address: when it last failed in this process, and why


def tell(project: Project, name: str, send: Callable[..., T], *arguments: Any) -> T | None:
    """`attempt`, and set `name` down where it failed; None there, and where MLflow has failed for `name` before.

    Args:
        name: a round, or HEAD: what is set down as missed. Moves of the head are not tried where a round is missed,
            since they point at its run and its model.

    Returns:
        What `send` returned.
    """
    missed = untracked(project)
    if name in missed:
        return None
    why, given = next(reversed(missed.values()), None) if name == HEAD else None, None
    if why is None:
        why, given = call(_try, project, send, arguments)
    if why is not None:
        write_json(_file(project), missed | {name: why})
    return given


def attempt(project: Project, send: Callable[..., object], *arguments: Any) -> str | None:
    """Do `send`, which speaks to MLflow; why MLflow failed at it, or did within the last minute, or None.

    Args:
        send: a function of a module's top level, which a process of its own may be asked to do; see `process`.

    Raises:
        Exception: a fault that is not MLflow's: ours, or a disk that is full.
    """
    return call(_try, project, send, arguments)[0]


def _try(project: Project, send: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[str | None, T | None]:
    when, why = _failed.get(uri := tracking_uri(project), (0.0, ""))
    if when and time.monotonic() - when < _QUIET_SECONDS:
        return why, None
    try:
        return None, send(*arguments)
    except Exception as error:
        if not _of_mlflow(error):
            raise
        _failed[uri] = time.monotonic(), _reason(uri, error)
        return _failed[uri][1], None


def untracked(project: Project) -> dict[str, str]:
    """What MLflow has not been told, and why: rounds, and HEAD."""
    path = _file(project)
    return read_json(path) if path.is_file() else {}


def strike_off(project: Project, *names: str) -> None:
    """Take names off the list: they have been sent, or are about to be sent anew."""
    left = {name: why for name, why in untracked(project).items() if name not in names}
    if left:
        write_json(_file(project), left)
    else:
        _file(project).unlink(missing_ok=True)


def notice(project: Project) -> str | None:
    """A line on what waits to be sent, for a person; None where nothing does."""
    missed = untracked(project)
    if not missed:
        return None
    names = ", ".join("moves of the head" if name == HEAD else name for name in missed)
    return f"MLflow has not got {names} ({next(reversed(missed.values()))}): `adapt-inf track` sends it later."


def _of_mlflow(error: Exception) -> bool:
    """Whether an error is one of MLflow, of the network or of a store behind it, and not of what we had to send."""
    if is_full(error):
        return False
    if isinstance(error, MLflowError | ConnectionError | TimeoutError):
        return True
    return type(error).__module__.partition(".")[0] in _STORES


def _reason(uri: str, error: Exception) -> str:
    text = error.message if isinstance(error, MLflowError) else f"MLflow at {uri}: {error or type(error).__name__}"
    line = " ".join(shown(text).partition(" failed with exception")[0].split()).rstrip(".")
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _file(project: Project) -> Path:
    return project.rounds / ".untracked.json"
