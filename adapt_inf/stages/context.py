"""What every stage gets: the project, the round, its parameters, and a folder to write into that appears whole.

A stage writes into a work folder whose name carries a fingerprint of everything that the result depends on, so a killed
stage finds its own finished parts again and never those of another parent or other parameters. DVC never sees the work
folder; the output takes its place in one rename at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt_inf.config import Params
from adapt_inf.errors import StageInputError
from adapt_inf.files import fingerprint, publish_folder
from adapt_inf.project import BASE, PROXY, Project
from adapt_inf.proxy import asks_proxy


@dataclass(frozen=True)
class StageContext:
    """One stage of one round. `input` and `parent_input` are what it may read, `output` what it writes."""

    project: Project
    round: str
    params: Params

    @property
    def parent(self) -> str:
        return self.params.parent

    def input(self, name: str) -> Path:
        """An output of this round's earlier stages (`ingest`, `sketch`, ...)."""
        return self._there(self.project.output(self.round, name))

    def parent_input(self, name: str) -> Path:
        """An output of the parent round (`pool`, `model`, `evaluate`)."""
        return self._there(self.project.output(self.parent, name))

    def looking_model(self) -> Path:
        """The model that looks at the candidates: the parent's, or the proxy."""
        return self._there(self.project.output(BASE, PROXY)) if asks_proxy(self.params) else self.parent_input("model")

    def _there(self, path: Path) -> Path:
        if not path.exists():
            raise StageInputError(path, "is not there")
        return path

    @contextmanager
    def output(self, name: str, depends_on: list[Any]) -> Iterator[Path]:
        """The folder to fill; it becomes rounds/<round>/<name> when the block ends without an error.

        Args:
            name: the output's name.
            depends_on: JSON-able values (parameters, digests of inputs) that the content depends on. A folder left by a
                killed run with the same values is handed out again, with the parts that it holds.
        """
        work = self.project.work(self.round) / f"{name}-{fingerprint(depends_on)}"
        for other in self.project.work(self.round).glob(f"{name}-*"):
            if other != work:
                shutil.rmtree(other)
        work.mkdir(parents=True, exist_ok=True)
        yield work
        for part in [*work.rglob(".*.part"), *work.rglob(".tmp*")]:  # ours, and those of safetensors
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)  # it was in such a folder
        publish_folder(work, self.project.output(self.round, name))
