"""The queue of drops: folders in drops/ that no round has taken yet, oldest first.

A folder in drops/ with a file READY waits. Its place is a number in drops/.queue.json, given out under a lock of the
kernel's, so neither clocks nor two commands at once can change the order. A folder that came by other means than
`adapt-inf drop` gets its number when somebody first looks (a round, the poll, `status`, another drop); several that are
new then, in the order of the time of READY. The number goes first and the folder's last rename after it, so a killed
`drop` leaves either a drop that waits in its place or none; what it had copied is a hidden folder, which the next one
removes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from adapt_inf.data.drops import READY, check_name, drop_digest, drop_files, is_name
from adapt_inf.errors import DropError, NoRoomError
from adapt_inf.files import link_or_copy, read_json, room_for, sync_folder, write_json
from adapt_inf.project import BASE, Project

_PART = ".part"  # ends the name of a folder that is still being copied


@dataclass(frozen=True)
class _Place:
    """A drop's place in the queue.

    Attributes:
        content: the digest of what it holds, once that is known.
        again: whether it may hold what a round took already.
        refused: why its round refused it.
    """

    number: int
    content: str | None = None
    again: bool = False
    refused: str | None = None


def add_drop(project: Project, source: Path, name: str, *, again: bool = False, ours: bool = False) -> Path:
    """Copy the folder `source` into drops/<name>, whole or not at all, and queue it.

    A drop of that name that was refused is replaced. A folder that stands in drops/ already is queued where it is.

    Args:
        source: a folder that `read_drop` has found in order.
        name: what to call it.
        again: take it in although a round has, or another drop that waits holds, the same content.
        ours: nobody else has or changes the files of `source`, on the project's disk: they are not copied.

    Raises:
        DropError: the name is taken, the content is, or something in the folder may not be there.
        NoRoomError: the disk is full.
    """
    target = project.drop(check_name(name))
    source = source.resolve()
    if source == target.resolve():
        return _queue_in_place(project, name, again=again)
    if project.root.resolve().is_relative_to(source):
        raise DropError(name, f"the project {project.root} lies in it", "Drop a folder with nothing but the dataset.")
    project.drops.mkdir(exist_ok=True)
    with room_for(project.drops), part_folder(project, name) as beside:
        _copy(source, beside, name, ours=ours)
        content = drop_digest(beside, name)
        (beside / READY).touch()
        os.sync()  # once: for each of a million pictures it would take an hour
        with _locked(project) as queue:
            _check_name_free(project, name, queue)
            _check_new(project, name, content, queue, again=again)
            write_json(_file(project), _with(queue, name, content, again=again))
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_PART, dir=project.drops))
                os.rename(target, old / name)
                shutil.rmtree(old, ignore_errors=True)
            os.rename(beside, target)
            sync_folder(project.drops)
    return target


def pending_drops(project: Project) -> list[str]:
    """Drops that no round has taken yet, oldest first."""
    taken, queue = _taken(project), _seen(project)
    waiting = [name for name, place in queue.items() if name not in taken and place.refused is None]
    return sorted(waiting, key=lambda name: (queue[name].number, name))


def refused_drops(project: Project) -> dict[str, str]:
    """Drops that were refused, with the reason."""
    found = {name: place.refused for name, place in _seen(project).items() if place.refused is not None}
    for path in project.drops.glob(f"[!.]*/{READY}"):
        if not is_name(path.parent.name):
            found[path.parent.name] = "Its folder has no name for a drop: rename it."
    return dict(sorted(found.items()))


def mark_refused(project: Project, name: str, reason: str) -> None:
    """Let a drop wait no longer; its folder stays, and may be another user's."""
    with _locked(project) as queue:
        if name in queue:
            write_json(_file(project), _as_json(queue | {name: replace(queue[name], refused=reason)}))


def drop_content(project: Project, name: str, round_id: str) -> str:
    """The digest of what a drop holds, for the round that takes it in.

    Raises:
        DropError: an earlier round took in the same.
    """
    place = _read(project).get(name)
    content = place.content if place and place.content else drop_digest(project.drop(name).resolve(), name)
    if place and not place.content:
        with _locked(project) as queue:
            write_json(_file(project), _with(queue, name, content, again=place.again))
    first = _taken_content(project).get(content)
    if first is not None and _number(first) < _number(round_id) and not (place and place.again):
        raise DropError(
            name,
            f"round {first} took in the same content",
            f"`adapt-inf drop {project.drop(name)} --again` takes it in once more.",
        )
    return content


def _queue_in_place(project: Project, name: str, *, again: bool) -> Path:
    target = project.drop(name)
    content = drop_digest(target.resolve(), name)
    with room_for(project.drops), _locked(project) as queue:
        if (taken := _taken(project).get(name)) is not None:
            raise DropError(name, f"round {taken} took it in already", "Drop a copy under another name with `--name`.")
        _check_new(project, name, content, queue, again=again)
        write_json(_file(project), _with(queue, name, content, again=again))
        (target / READY).touch()
    return target


def _copy(source: Path, target: Path, name: str, *, ours: bool) -> None:
    """Copy a drop's files; a link stays a link, to the same place within the copy."""
    needed = sum(file.lstat().st_size for file in drop_files(source, name))
    if not ours and needed > (free := shutil.disk_usage(target).free):
        raise NoRoomError(target.parent, free, needed)  # before it takes the last room from a round at work
    for file in drop_files(source, name):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_symlink():
            os.symlink(os.path.relpath(os.path.realpath(file), file.parent), copy)
            continue
        if ours:
            link_or_copy(file, copy)
        else:
            shutil.copyfile(file, copy, follow_symlinks=False)


def _check_name_free(project: Project, name: str, queue: dict[str, _Place]) -> None:
    mend = "Give this one another with `--name`."
    if (taken := _taken(project).get(name)) is not None:
        raise DropError(name, f"round {taken} took in a drop of that name", mend)
    pool = project.output(BASE, "pool") / "pool.json"
    if pool.is_file() and name in read_json(pool)["drops"]:
        raise DropError(name, "the pool began with a drop of that name", mend)
    if project.drop(name).exists() and not (name in queue and queue[name].refused):
        raise DropError(name, f"there is a drop of that name in {project.drops}", mend)


def _check_new(project: Project, name: str, content: str, queue: dict[str, _Place], *, again: bool) -> None:
    if again:
        return
    mend = "`--again` takes it in all the same."
    if (taken := _taken_content(project).get(content)) is not None:
        raise DropError(name, f"round {taken} took in the same content", mend)
    for other, place in queue.items():
        if place.content == content and other != name and not place.refused:
            raise DropError(name, f"the drop {other}, which waits, holds the same content", mend)


def _seen(project: Project) -> dict[str, _Place]:
    """The queue, with the folders that nobody has seen yet."""
    queue = _read(project)
    if (found := _adopt(project, queue)) == queue or not os.access(project.drops, os.W_OK):
        return found  # nothing new, or somebody who may only look
    with _locked(project) as now:
        return now


@contextmanager
def part_folder(project: Project, name: str) -> Iterator[Path]:
    """A hidden folder to copy into, told by its lock from what a killed run left; gone at the end if still there."""
    with _locked(project):
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_PART, dir=project.drops))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


@contextmanager
def _locked(project: Project) -> Iterator[dict[str, _Place]]:
    """Hold the queue: its drops in order, with those that came by other means; what killed copies left is removed."""
    project.drops.mkdir(exist_ok=True)
    with open(project.drops / ".lock", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for part in project.drops.glob(f".*{_PART}"):
            _remove_dead(part)
        known = _read(project)
        queue = _adopt(project, known)
        if queue != known:
            write_json(_file(project), _as_json(queue))
        yield queue


def _remove_dead(part: Path) -> None:
    if not part.is_dir():
        return
    held = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(part, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody is copying into it
    finally:
        os.close(held)


def _adopt(project: Project, known: dict[str, _Place]) -> dict[str, _Place]:
    """The queue as the folders are now: those that are gone go, new ones get the next numbers."""
    ready = _ready(project)
    queue = {name: place for name, place in known.items() if name in ready}
    new = sorted((time, name) for name, time in ready.items() if name not in queue)
    for number, (_, name) in enumerate(new, start=_next(queue)):
        queue[name] = _Place(number)
    return queue


def _ready(project: Project) -> dict[str, int]:
    """Folders in drops/ that say they are whole, with the time at which they said so."""
    found = {}
    for path in project.drops.glob(f"[!.]*/{READY}"):
        with suppress(FileNotFoundError):  # a drop that is just being replaced
            if is_name(path.parent.name):
                found[path.parent.name] = path.stat().st_mtime_ns
    return found


def _with(queue: dict[str, _Place], name: str, content: str, *, again: bool) -> dict[str, dict[str, object]]:
    """The queue with what is known of a drop, at its place or at the end."""
    number = queue[name].number if name in queue else _next(queue)
    return _as_json(queue | {name: _Place(number, content, again)})


def _next(queue: dict[str, _Place]) -> int:
    return max((place.number for place in queue.values()), default=0) + 1


def _file(project: Project) -> Path:
    return project.drops / ".queue.json"


def _read(project: Project) -> dict[str, _Place]:
    path = _file(project)
    return {name: _Place(**place) for name, place in read_json(path).items()} if path.is_file() else {}


def _as_json(queue: dict[str, _Place]) -> dict[str, dict[str, object]]:
    return {name: asdict(place) for name, place in queue.items()}


def _taken(project: Project) -> dict[str, str]:
    """The rounds that took each drop."""
    return {record["drop"]: record["round"] for record in _records(project)}


def _taken_content(project: Project) -> dict[str, str]:
    """The first round that took each content. A round that is not done says it through its drop's place."""
    queue, found = _read(project), dict[str, str]()
    for record in sorted(_records(project), key=lambda record: _number(str(record["round"]))):
        place = queue.get(record["drop"])
        if content := record.get("content") or (place.content if place else None):
            found.setdefault(content, record["round"])
    return found


def _records(project: Project) -> list[dict[str, str]]:
    found = []
    for path in project.rounds.glob("r*/round.json"):
        with suppress(FileNotFoundError):  # a round that is just being taken back
            found.append(read_json(path))
    return found


def _number(round_id: str) -> int:
    return int(digits) if (digits := round_id[1:]).isdecimal() else 0
