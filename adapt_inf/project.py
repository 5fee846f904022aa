"""Where things stand in a project. Everything that names a path below a project's root is here, and only here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from adapt_inf.errors import NotAProjectError

SCRATCH = "scratch"  # the round that `dvc repro` runs at the root, outside the lineage
BASE = "base"  # where a lineage starts
SOURCE = "source.json"  # beside them: where they came from, and the project's id
PROXY = "proxy"  # beside its model there: a smaller one, see adapt_inf.proxy


@dataclass(frozen=True)
class Project:
    """A project on disk, by its root folder."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project that `start` (or the current folder) stands in.

        Raises:
            NotAProjectError: no folder from there upwards holds params.yaml and rounds/base.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents):
            if (folder / "params.yaml").is_file() and (folder / "rounds" / BASE).is_dir():
                return cls(folder)
        raise NotAProjectError(here)

    def identity(self) -> str | None:
        """What `adapt-inf init` drew to tell this project from all others; its clones have it, too."""
        source = self.rounds / BASE / SOURCE
        return json.loads(source.read_text(encoding="utf-8")).get("project") if source.is_file() else None

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def drops(self) -> Path:
        return self.root / "drops"

    @property
    def rounds(self) -> Path:
        return self.root / "rounds"

    def drop(self, name: str) -> Path:
        return self.drops / name

    def round(self, round_id: str) -> Path:
        return self.rounds / round_id

    def params_of(self, round_id: str) -> Path:
        """The params.yaml that a round runs with: its frozen copy, or the root's for the scratch round."""
        return self.params_file if round_id == SCRATCH else self.round(round_id) / "params.yaml"

    def output(self, round_id: str, name: str) -> Path:
        """What a stage of a round writes: ingest, sketch, cluster, score, select, pool, model or evaluate."""
        return self.round(round_id) / name

    def base_outputs(self) -> list[str]:
        """What a lineage begins from, by its name in rounds/base."""
        return ["pool", "model", "evaluate", *([PROXY] if self.output(BASE, PROXY).is_dir() else [])]

    def log(self, round_id: str) -> Path:
        """What the stages of a round printed and how long they took; not part of any hash."""
        return self.round(round_id) / "log"

    def work(self, round_id: str) -> Path:
        """Unfinished work of a round's stages, from which a killed stage goes on."""
        return self.round(round_id) / ".work"
