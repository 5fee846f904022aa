"""What the stages of a round depend on, as the project's dvc.yaml has it, and the name that their result gets by it.

A result is named by a fingerprint of the stage, the round, the content of everything that the stage reads, the
parameters that it depends on and the code that computes it; two lineages that come to the same name share it. A
strategy that asks for neither clusters nor scores (`random`, `sequential`, `full`) needs no sketches where nothing is
pruned: its samples are drawn from whom the model can read, which is the same draw, see `adapt_inf.comparison.drawing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from adapt_inf import proxy
from adapt_inf.config import Params
from adapt_inf.errors import AdaptInfError
from adapt_inf.files import file_digest, fingerprint, parse_yaml
from adapt_inf.project import BASE
from adapt_inf.proxy import PROXY_PATH, asks_proxy
from adapt_inf.selection.strategies import OVER_ALL
from adapt_inf.stages.runner import STAGES

_COMPUTING = ("data", "evaluation", "models", "selection", "sketching", "stages")
_ALONE = ("comparison/drawing.py", "parallel.py", "proxy.py")  # modules that results depend on, too
_LIBRARIES = ("numpy", "pillow", "pyarrow", "torch", "transformers", "peft")

READ, DRAW = "read", "draw"  # in the place of sketch and select where there are no sketches
BASE_MODEL = f"rounds/{BASE}/model"  # adapters name it, whichever round they are of


@dataclass(frozen=True)
class Stage:
    """A stage of some round.

    Attributes:
        deps: paths below a project's root that it reads; ${round}, ${parent} and ${drop} stand for names.
        params: dotted keys of params.yaml.
        out: the path that it writes.
    """

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    out: str

    def of(self, **names: str) -> Stage:
        """The stage of one round: `round`, `parent` and `drop` filled in."""

        def fill(path: str) -> str:
            return re.sub(r"\$\{(\w+)\}", lambda found: names[found[1]], path)

        return replace(self, deps=tuple(map(fill, self.deps)), out=fill(self.out))


def read_pipeline(path: Path) -> dict[str, Stage]:
    """The stages that a dvc.yaml defines, by name, in order.

    Raises:
        AdaptInfError: it is not the definition of the eight stages.
    """
    try:
        found = {name: entry["do"] for name, entry in parse_yaml(path.read_text(encoding="utf-8"))["stages"].items()}
        stages = {
            name: Stage(name, tuple(do["deps"]), tuple(do["params"]), do["outs"][0]) for name, do in found.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise AdaptInfError(f"{path} defines no stages that can be read ({error!r}).", _MEND) from error
    if tuple(stages) != STAGES:
        raise AdaptInfError(f"{path} defines the stages {', '.join(stages)}.", _MEND)
    return stages


_MEND = "Take back the file that `adapt-inf init` writes."


def stages_for(pipeline: Mapping[str, Stage], params: Params, parent: str) -> list[Stage]:
    """The stages that a round with these parameters needs, in order.

    Args:
        parent: the round's; what an earlier one read need not be read again.
    """
    stages = list(pipeline.values())
    if asks_proxy(params):
        stages = [replace(stage, deps=tuple(proxy.depends_on(stage.name, stage.deps))) for stage in stages]
    if needs_sketches(params):
        return stages
    ingest, select = pipeline["ingest"], pipeline["select"]
    pool = "rounds/${parent}/pool"
    known = () if parent == BASE else (pipeline["sketch"].out.replace("${round}", "${parent}"),)
    models = (BASE_MODEL, PROXY_PATH) if asks_proxy(params) else (BASE_MODEL,)
    read = Stage(READ, (ingest.out, pool, *models, *known), (), pipeline["sketch"].out)
    draw = Stage(DRAW, (ingest.out, pool, read.out), select.params, select.out)
    needed = [ingest, read, draw, pipeline["prune"], pipeline["train"], pipeline["evaluate"]]
    missing = {pipeline["sketch"].out, pipeline["cluster"].out, pipeline["score"].out}
    return [
        stage if stage is draw else replace(stage, deps=tuple(path for path in stage.deps if path not in missing))
        for stage in needed
    ]


def needs_sketches(params: Params) -> bool:
    """Whether what a round selects or prunes depends on more than who can be read."""
    return params.select.strategy not in OVER_ALL or params.prune.pool_cap is not None


def depends_on(pipeline: Mapping[str, Stage]) -> list[str]:
    """Every key or section of params.yaml that some stage depends on."""
    return sorted({key for stage in pipeline.values() for key in stage.params})


@cache
def made_by() -> str:
    """Fingerprint of the code of stages and of the libraries that compute in it: under another one nothing is shared.

    One table must not mix what two versions computed.
    """
    home = Path(__file__).parents[1]
    files = sorted(path for package in _COMPUTING for path in (home / package).rglob("*.py"))
    files += [home / module for module in _ALONE]
    code = [[path.relative_to(home).as_posix(), file_digest(path)] for path in files]
    import faiss  # of one distribution or another

    return fingerprint([code, {name: version(name) for name in _LIBRARIES}, faiss.__version__])


def result_name(stage: Stage, round_id: str, digests: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """The name of what a stage of a round yields.

    Args:
        stage: filled in for the round.
        digests: of what stands at each of the stage's `deps`.
        params: all parameters, as nested mappings.
    """
    values = {key: value_at(params, key) for key in stage.params}
    return fingerprint([stage.name, round_id, [[path, digests[path]] for path in stage.deps], values, made_by()])


def value_at(params: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key."""
    value: Any = params
    for part in key.split("."):
        value = value[part]
    return value
