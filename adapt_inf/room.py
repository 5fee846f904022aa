"""Free what nobody needs any more: the workings of finished rounds, and what DVC's cache holds for nothing.

A finished round keeps what it takes to build on it, to evaluate it and to roll back to it (pool, model, evaluate), and
what says how it came about (select, ingest but for the shards that no pool holds). Its sketches, scores and clusters
can be computed again and are read by no later round; they go, sketches first, the oldest round first. Rounds that are
running or failed keep everything: they go on from it.

Bytes are counted as `du` counts them, and only where a file's last name goes: outputs, the cache and pool versions have
files in common by hard links. What may go is found anew each time from what is there: a run that was killed is
completed by the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt_inf import lineage
from adapt_inf.data.manifest import SHARDS
from adapt_inf.project import BASE, Project
from adapt_inf.stages.runner import WORKINGS
from adapt_inf.storage import Cache, all_records, records

REJECTED_SHARDS = "ingest"  # of it, the shards that no pool holds
LEFTOVERS = "leftovers"  # of killed runs
CACHE = "cache"  # objects that nothing refers to


@dataclass(frozen=True)
class Room:
    """Something that may go: a part of a round, or (`round` None) of the cache.

    Attributes:
        what: sketch, score, cluster, ingest, leftovers or cache.
        paths: files and folders, each after what is in it.
        bytes: that the disk gets back, once what stands before this in the list is gone.
    """

    round: str | None
    what: str
    paths: tuple[Path, ...]
    bytes: int


def find_room(project: Project) -> list[Room]:
    """What may go, in the order in which it goes."""
    cache = Cache.of(project)
    known = records(project)
    finished = [record.round for record in lineage.rounds(project) if record.status == "finished"]
    going = {f"rounds/{round_id}/{name}" for round_id in finished for name in WORKINGS}
    with_shards = {f"rounds/{round_id}/ingest" for round_id in finished}
    needed: set[str] = set()
    for record in {*all_records(project), *known.values()}:
        if record.path in with_shards:
            listing = cache.listing(record.md5) or {}
            needed |= {record.md5, *(md5 for name, md5 in listing.items() if not name.startswith(f"{SHARDS}/"))}
        elif record.path not in going:
            needed |= cache.hashes(record.md5)

    found: list[tuple[str | None, str, list[Path]]] = []
    taken: set[Path] = set()

    def objects(md5s: Iterable[str]) -> list[Path]:
        """Objects of the project's own cache that nothing needs; another's may serve others, too."""
        free = [cache.object(md5) for md5 in md5s if md5 not in needed] if _own(project, cache) else []
        free = [path for path in free if path.exists() and path not in taken]
        taken.update(free)
        return free

    for name in WORKINGS:
        for round_id in finished:
            path = f"rounds/{round_id}/{name}"
            hashes = cache.hashes(known[path].md5) if path in known else set()
            found.append((round_id, name, [*_tree(project.root / path), *objects(sorted(hashes))]))
    for round_id in finished:
        path = f"rounds/{round_id}/ingest"
        listing = (cache.listing(known[path].md5) or {}) if path in known else {}
        spare = {name: md5 for name, md5 in listing.items() if name.startswith(f"{SHARDS}/") and md5 not in needed}
        here = [file for name in spare if (file := project.root / path / name).exists()]
        found.append((round_id, REJECTED_SHARDS, [*here, *objects(spare.values())]))
    for round_id in (BASE, *finished):
        found.append((round_id, LEFTOVERS, list(_leftovers(project, round_id))))
    if _own(project, cache):
        found.append((None, CACHE, list(_unneeded(project, cache, needed, taken, {p for *_, ps in found for p in ps}))))
    return _counted(found)


def free(rooms: Iterable[Room]) -> int:
    """Remove it all, and return the bytes that the disk got back. The caller holds the writer's place."""
    total = 0
    for room in rooms:
        for path in room.paths:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        total += room.bytes
    return total


def room_table(project: Project, rooms: Sequence[Room]) -> str:
    """What may go, a row per round and a column per part, in MB; and what stays."""
    own = "" if _own(project, cache := Cache.of(project)) else f"\nThe cache {cache.folder} may serve others: it stays."
    if not rooms:
        return f"Nothing here may go: what there is, something needs.{own}"
    columns = list(dict.fromkeys(room.what for room in rooms))
    rows = {room.round or "-": dict.fromkeys(columns, 0) for room in sorted(rooms, key=lambda room: room.round or "~")}
    for room in rooms:
        rows[room.round or "-"][room.what] += room.bytes
    rows["all"] = {name: sum(row[name] for row in rows.values()) for name in columns}
    lines = [["round", *columns, "MB"]]
    lines += [[name, *(_mb(row[key]) for key in columns), _mb(sum(row.values()))] for name, row in rows.items()]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    shown = "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )
    kept = sum(record.status == "finished" for record in lineage.rounds(project))
    stays = f"Pools, models and evaluations of base and {kept} rounds stay, and what says how they were chosen."
    return f"{shown}\n{stays}{own}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size else "-"


def _own(project: Project, cache: Cache) -> bool:
    return cache.folder.resolve().is_relative_to(project.root.resolve())


def _tree(folder: Path) -> Iterator[Path]:
    """Everything in a folder, and it last."""
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.iterdir()):
            yield from _tree(path)
    if folder.exists() or folder.is_symlink():
        yield folder


def _leftovers(project: Project, round_id: str) -> Iterator[Path]:
    """Unfinished work beside the outputs of a round that is finished."""
    for path in sorted(project.work(round_id).glob("*")):
        if path.name != ".lock":
            yield from _tree(path)
    for path in sorted(project.round(round_id).glob(".*.old")):
        yield from _tree(path)


def _unneeded(project: Project, cache: Cache, needed: set[str], taken: set[Path], going: set[Path]) -> Iterator[Path]:
    """Objects that no record needs, and that are no other name of a file that stays in a round's folder."""
    kept = {
        (about.st_dev, about.st_ino)
        for folder, _, names in os.walk(project.rounds)
        for path in (Path(folder) / name for name in names)
        if path not in going
        for about in [path.lstat()]
    }
    for path in sorted(cache.objects()):
        about = path.lstat()
        if path not in taken and cache.name(path) not in needed and (about.st_dev, about.st_ino) not in kept:
            yield path


def _counted(found: list[tuple[str | None, str, list[Path]]]) -> list[Room]:
    """Credit each file's bytes to the room with which its last name goes."""
    names: dict[tuple[int, int], int] = {}
    rooms = []
    for round_id, what, paths in found:
        gained = 0
        for path in paths:
            about = path.lstat()
            key = (about.st_dev, about.st_ino)
            names[key] = names.get(key, 0) + 1
            if path.is_dir() or names[key] == about.st_nlink:
                gained += about.st_blocks * 512
        if paths:
            rooms.append(Room(round_id, what, tuple(paths), gained))
    return rooms
