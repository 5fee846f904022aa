"""Take rounds to a DVC remote and fetch them from one: a folder, S3, whatever DVC speaks.

A round travels as what a child, an evaluation and a rollback need: its pool, model and evaluation, the selection that
made the model, and the base model that its adapter sits on. Git carries the definition (params, locks, round.json).
Either way may be cut off and begun again: files appear whole, and what is there is not sent twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from adapt_inf import lineage, versions
from adapt_inf.errors import AdaptInfError, RoundError
from adapt_inf.files import room_for
from adapt_inf.project import BASE, PROXY, Project
from adapt_inf.remote_faults import causes, in_our_words, of_a_cloud
from adapt_inf.storage import Cache, Record, md5_of, records

if TYPE_CHECKING:
    from dvc.repo import Repo

TRAVELS = ("pool", "model", "evaluate", "select")


class RemoteError(AdaptInfError):
    """The remote cannot be reached, or does not let us in."""

    def __init__(self, name: str, url: str, problem: str, mend: str) -> None:
        super().__init__(f"remote {name} ({url}): {problem}.", mend)


def push(project: Project, rounds: Sequence[str]) -> int:
    """Send rounds to the default remote; how many files were not there yet.

    Args:
        rounds: their names; the head if there are none.

    Raises:
        AdaptInfError: no such round, a part of it is not here, or what is wrong with the remote.
    """
    cache, known = Cache.of(project), records(project)
    # Who pulled a round has base's model without its pool; the remote has that, then.
    base = [path for path in _base(known, *TRAVELS[:3], PROXY) if cache.object(known[path].md5).exists()]
    wanted = _records(project, rounds or [lineage.head(project)], base)
    for record in wanted:
        if not _is_here(cache, record):
            name = Path(record.path).parts[1]
            raise RoundError(
                name, f"{record.path} is not in DVC's cache", f"Bring it back with `adapt-inf pull {name}`."
            )
    with versions.open_repository(project.root) as repo, _remote(repo):
        return int(repo.push(targets=[record.path for record in wanted]))


def pull(project: Project, rounds: Sequence[str]) -> int:
    """Fetch rounds from the default remote and put them in place; how many files came.

    What is here already is hashed first, and what is broken of it removed, so that a pull also mends. Where DVC's cache
    has all of it, no remote is asked.

    Args:
        rounds: their names; the head if there are none.

    Raises:
        AdaptInfError: no such round, a part of it is not on the remote, or what is wrong with the remote.
    """
    base = [f"rounds/{BASE}/model", *_base(records(project), PROXY)]
    wanted = _records(project, rounds or [lineage.head(project)], base)
    project.drops.mkdir(exist_ok=True)  # git does not carry the drops
    cache, targets, fetched = Cache.of(project), [record.path for record in wanted], 0
    with room_for(project.rounds), versions.open_repository(project.root) as repo:
        for record in wanted:
            _remove_broken(project, cache, record)
        if not all(_is_here(cache, record) for record in wanted):
            with _remote(repo) as (name, url):
                fetched = int(repo.fetch(targets=targets))
                for record in wanted:  # DVC only logs what a remote lacks
                    if not _is_here(cache, record):
                        problem = f"it does not have all of {record.path}"
                        made = f"`adapt-inf push {Path(record.path).parts[1]}` where that round was made"
                        raise RemoteError(name, url, problem, f"{made}, then pull again.")
        repo.checkout(targets=targets, force=True)
    return fetched


def _base(known: Mapping[str, Record], *names: str) -> list[str]:
    """Those of rounds/base/<name> that the project has."""
    return [path for name in names if (path := f"rounds/{BASE}/{name}") in known]


def _is_here(cache: Cache, record: Record) -> bool:
    return all(cache.object(md5).exists() for md5 in cache.hashes(record.md5))


def remote_of(repo: Repo) -> tuple[str, str]:
    """The name and the address of the default remote.

    Raises:
        AdaptInfError: there is none.
    """
    name = repo.config["core"].get("remote")
    if not name:
        raise AdaptInfError(
            f"{repo.root_dir} has no remote.",
            "Name one with `dvc remote add -d store PATH`, a folder or s3://bucket/path, then commit .dvc/config.",
        )
    return name, str(repo.config["remote"].get(name, {}).get("url", ""))


def _records(project: Project, rounds: Sequence[str], base: Sequence[str]) -> list[Record]:
    """What DVC has on record of the rounds, and of base, which every round sits on."""
    known = records(project)
    paths: list[str] = []
    for round_id in rounds:
        if round_id != BASE and lineage.read_round(project, round_id).status != "finished":
            raise RoundError(round_id, "it is not finished", "`adapt-inf round` goes on with it.")
        names = TRAVELS[:3] if round_id == BASE else TRAVELS
        paths += [path for name in names if (path := f"rounds/{round_id}/{name}") not in paths]
    paths += [path for path in base if path not in paths]
    for path in paths:
        if path not in known:
            raise RoundError(Path(path).parts[1], f"DVC has no record of {path}", "`git pull` brings the records.")
    return [known[path] for path in paths]


@contextmanager
def _remote(repo: Repo) -> Iterator[tuple[str, str]]:
    """The default remote's name and address; its faults, in our words."""
    from dvc.exceptions import DvcException

    name, url = remote_of(repo)
    if "://" not in url and not Path(url).parent.is_dir():
        raise RemoteError(name, url, "there is no such folder", "Mount it, or `dvc remote modify` names another.")
    with _logged() as problems:
        try:
            yield name, url
        except AdaptInfError:
            raise
        # What a remote raises depends on its library (fsspec, botocore, ...): none shares a class with another.
        except Exception as error:
            found = [*problems, *causes(error)]
            if not any(isinstance(each, DvcException | OSError) or of_a_cloud(each) for each in found):
                raise
            raise RemoteError(name, url, *in_our_words(found)) from error


@contextmanager
def _logged() -> Iterator[list[BaseException]]:
    """What DVC only logs: it goes on after the first file that fails, and says at the end how many did."""
    problems: list[BaseException] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                problems.extend(causes(record.exc_info[1]))

    shown = {log: log.handlers for log in map(logging.getLogger, ("dvc", "dvc_data", "dvc_objects"))}
    for log in shown:
        log.handlers = [Keep(logging.ERROR)]
    try:
        yield problems
    finally:
        for log, handlers in shown.items():
            log.handlers = handlers


def _remove_broken(project: Project, cache: Cache, record: Record) -> None:
    """Remove the objects of a record that are not what they are named by, and their names in the round's folder."""
    for md5 in cache.hashes(record.md5):
        path = cache.object(md5)
        if path.is_file() and md5_of(path) != md5.removesuffix(".dir"):
            os.chmod(path, 0o644)
            path.unlink()
    folder = project.root / record.path
    for name, md5 in (cache.listing(record.md5) or {}).items():
        if (file := folder / name).is_file() and md5_of(file) != md5:
            file.unlink()
