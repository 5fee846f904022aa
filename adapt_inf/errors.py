"""Every error that a user can cause, each naming the thing at fault and the mend.

The command line prints `adapt-inf: <message>` and leaves with status 1; nothing else is printed, so a message must
stand alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def shown(text: str) -> str:
    """`text` as people may see it: without the passwords that stand in addresses."""
    masked = re.sub(r"(?<=://)([^/@:\s]*):\S*(?=@)", r"\1:***", text)
    return re.sub(r"(?i)(?<=[?&]password=)[^&\s]*", "***", masked)


class AdaptInfError(Exception):
    """A fault with a mend: `message` names the thing, `mend` says what to do about it; both without passwords."""

    def __init__(self, message: str, mend: str = "") -> None:
        message, mend = shown(message), shown(mend)
        super().__init__(f"{message}\n  {mend}" if mend else message)
        self.message = message
        self.mend = mend

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes: subclasses are made of other things than their text."""
        return _remade, (type(self), self.args), self.__dict__


def _remade(kind: type[AdaptInfError], arguments: tuple[Any, ...]) -> AdaptInfError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class NotAProjectError(AdaptInfError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is no adapt_inf project.", "Make one with `adapt-inf init DIR`, or change into one.")


class ConfigError(AdaptInfError):
    def __init__(self, path: Path, key: str, problem: str) -> None:
        super().__init__(f"{path}: `{key}`: {problem}.", "See the comments in that file for what each key takes.")


class ModelError(AdaptInfError):
    def __init__(
        self,
        model: str,
        problem: str,
        mend: str = "Name a folder or hub id that AutoModelForImageTextToText and AutoProcessor load.",
    ) -> None:
        self.problem = problem
        super().__init__(f"model {model}: {problem}.", mend)


class SampleError(AdaptInfError):
    """One sample that a model cannot read. A pass sets it aside and goes on; `problem` is kept as the reason."""

    def __init__(self, sample_id: str, problem: str) -> None:
        self.sample_id = sample_id
        self.problem = problem
        super().__init__(f"sample {sample_id}: {problem}.", "Leave it out of the drop, or mend it there.")


class ScoreError(AdaptInfError):
    """A score that gave back what no score may; `origin` says which package brought it."""

    def __init__(self, score: str, origin: str, problem: str) -> None:
        super().__init__(
            f"score {score} ({origin}): {problem}.",
            f"Mend it there, or take {score} out of `select` in the round's params.yaml.",
        )


class DropError(AdaptInfError):
    def __init__(self, drop: str, problem: str, mend: str = "") -> None:
        super().__init__(f"drop {drop}: {problem}.", mend)


class RoundError(AdaptInfError):
    def __init__(self, round_id: str, problem: str, mend: str = "") -> None:
        super().__init__(f"round {round_id}: {problem}.", mend)


class StageInputError(AdaptInfError):
    """A file that a stage reads is not there or does not fit the others."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}.", "Run the round again with `adapt-inf round`: missing stages run first.")


class NoRoomError(AdaptInfError):
    """A disk that is full, or would be with the `needed` bytes that are known beforehand."""

    def __init__(self, folder: Path, free: int, needed: int | None = None) -> None:
        wanted = f", of {needed / 2**20:.1f} MB needed" if needed is not None else ""
        super().__init__(
            f"{folder}: the disk is full ({free / 2**20:.1f} MB free{wanted}).",
            "Nothing half-written was left in place. Free some room (`adapt-inf gc` shows what it could), then run the "
            "same command again.",
        )
