"""Every move of the head, and with it of the champion: when, from where to where, why, by whom; never changed.

rounds/history.jsonl has a line a move. A move is more than one file (the head, the round's record, git, MLflow), so it
is first written down whole in rounds/.move.json and struck off there at its end: whoever comes after a kill in between
reads what was meant and does it again, and every part of it may be done twice. The history is rewritten whole for each
new line, which costs its length (150 bytes a move) and never leaves half a line.
"""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from adapt_inf.errors import AdaptInfError
from adapt_inf.files import read_json, write_json, write_text
from adapt_inf.project import Project

Kind = Literal["round", "rollback", "promote"]


@dataclass(frozen=True)
class Move:
    """One move of the head from the round `origin` (`from` in JSON) to `round`; `time` is ISO 8601 in UTC."""

    time: str
    round: str
    origin: str
    kind: Kind
    why: str
    by: str

    @classmethod
    def now(cls, round_id: str, origin: str, kind: Kind, why: str, by: str | None) -> Move:
        """A move at this moment, by `by` or else whoever runs this process."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), round_id, origin, kind, why, by or whoami())

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Move:
        return cls(**{"origin" if key == "from" else key: value for key, value in line.items()})

    def to_json(self) -> dict[str, Any]:
        return {"from" if key == "origin" else key: value for key, value in vars(self).items()}


def whoami() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def moves(project: Project) -> list[Move]:
    """Every move, oldest first.

    Raises:
        AdaptInfError: a line that nobody here wrote.
    """
    path = _history(project)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Move.from_json(json.loads(line)))
        except (ValueError, TypeError, AttributeError) as error:
            mend = "Nothing but adapt-inf writes there: take the file back from git."
            raise AdaptInfError(f"{path}: line {number} is no move of the head ({error}).", mend) from None
    return found


def append(project: Project, move: Move) -> None:
    """Add a move; one that is the last already is not added again."""
    before = moves(project)
    if before[-1:] != [move]:
        lines = [json.dumps(each.to_json(), ensure_ascii=False) + "\n" for each in (*before, move)]
        write_text(_history(project), "".join(lines))


def begin(project: Project, change: dict[str, Any]) -> None:
    """Write down what is about to be done."""
    write_json(_journal(project), change)


def half_done(project: Project) -> dict[str, Any] | None:
    """What a killed process had begun and not ended."""
    path = _journal(project)
    return read_json(path) if path.is_file() else None


def end(project: Project) -> None:
    _journal(project).unlink(missing_ok=True)


def _history(project: Project) -> Path:
    return project.rounds / "history.jsonl"


def _journal(project: Project) -> Path:
    return project.rounds / ".move.json"
