"""What a comparison consists of: strategies x variants x seeds, each a lineage over the same drops from the base.

The plan is written down in comparisons/<name>/comparison.json before anything runs, and never changed: the same command
goes on with it, and another one under the same name is refused, naming what differs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt_inf import lineage
from adapt_inf.comparison.pipeline import depends_on, read_pipeline, value_at
from adapt_inf.config import Params, load_params, parse_params
from adapt_inf.data.drops import drop_digest, is_name
from adapt_inf.drop_queue import pending_drops
from adapt_inf.errors import AdaptInfError, ConfigError
from adapt_inf.files import folder_digest, read_json, write_json
from adapt_inf.project import BASE, Project
from adapt_inf.proxy import check_proxy
from adapt_inf.selection.scores.base import HIDDEN
from adapt_inf.selection.scores.registry import available, resolve

STRATEGIES = ("adapt_inf", "random", "sequential", "full")
SEEDS = 5
_RECORD = "comparison.json"
_OWN = {"seed": "--seeds", "select.strategy": "--strategies"}  # keys that the plan sets by itself

Variant = tuple[tuple[str, str], ...]
"""Keys of params.yaml, each with a value as `show` has it: what is varied besides strategy and seed."""


@dataclass(frozen=True)
class Lineage:
    """One strategy at one seed, under one variant."""

    variant: Variant
    strategy: str
    seed: int

    def __str__(self) -> str:
        return " ".join([f"seed {self.seed}", self.strategy, *(f"{key}={value}" for key, value in self.variant)])


@dataclass(frozen=True)
class Plan:
    """A comparison as comparison.json holds it.

    Attributes:
        strategies: in the order of the table.
        seeds: in the order of work.
        set: dotted keys of params.yaml with the value that all lineages have.
        vary: dotted keys with their values.
        drops: name -> digest of its content, in the order of the rounds.
        base: name -> digest of rounds/base/<name>.
        params: all of params.yaml that stages depend on, `set` included.
    """

    strategies: list[str]
    seeds: list[int]
    set: dict[str, Any]
    vary: dict[str, list[Any]]
    drops: dict[str, str]
    base: dict[str, str]
    params: dict[str, Any]

    @property
    def variants(self) -> list[Variant]:
        shown = ([show(value) for value in values] for values in self.vary.values())
        return [tuple(zip(self.vary, values, strict=True)) for values in itertools.product(*shown)]

    def lineages(self) -> list[Lineage]:
        """All of them, seed by seed: what is cut off leaves whole pairs."""
        return [
            Lineage(variant, strategy, seed)
            for seed in self.seeds
            for variant in self.variants
            for strategy in self.strategies
        ]

    def params_of(self, line: Lineage, source: Path) -> Params:
        """The parameters of a lineage; one whose expert reads hidden states keeps them.

        Raises:
            ConfigError: a value that the key does not take, naming `source`.
        """
        values = copy.deepcopy(self.params)
        for key, value in {**values_of(line.variant), "select.strategy": line.strategy, "seed": line.seed}.items():
            _put(values, key, value)
        if line.strategy in available() and HIDDEN in resolve([line.strategy], source)[0].needs:
            _put(values, "sketch.hidden", True)  # of its own lineages alone: the others' results stay what they are
        return parse_params(values, source)


def show(value: Any) -> str:
    """A value as params.yaml has it, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def values_of(variant: Variant) -> dict[str, Any]:
    return {key: yaml.safe_load(value) for key, value in variant}


def make_plan(
    project: Project,
    strategies: Sequence[str],
    seeds: Sequence[int],
    set_values: Mapping[str, Any],
    vary: Mapping[str, list[Any]],
    drops: Sequence[str] | None,
) -> Plan:
    """The plan of a new comparison.

    Args:
        drops: their names in order; None: those of the head's line, then those that wait.

    Raises:
        AdaptInfError: a strategy, score, key, value or drop that is none, or no drop at all.
    """
    source = project.params_file
    keys = depends_on(read_pipeline(project.root / "dvc.yaml"))
    params = asdict(load_params(source))
    for key in [*set_values, *vary]:
        _check_key(key, params, keys, source)
    if both := [key for key in vary if key in set_values]:
        raise AdaptInfError(f"`{both[0]}` stands in --set and in --vary.", "Leave it in one of them.")
    for key, value in set_values.items():
        _put(params, key, value)
    sections = {key.partition(".")[0] for key in keys}
    plan = Plan(
        strategies=list(strategies),
        seeds=list(seeds),
        set=dict(set_values),
        vary={key: list(values) for key, values in vary.items()},
        drops={name: _digest(project, name) for name in _drops(project, drops)},
        base={name: folder_digest(project.output(BASE, name)) for name in project.base_outputs()},
        params={section: value for section, value in params.items() if section in sections},
    )
    for line in plan.lineages():
        if line.seed == plan.seeds[0]:
            own = plan.params_of(line, source)
            lineage.check_selection(own, source)
            check_proxy(project, own, source)
    return plan


def keep_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a comparison down, or see that it is the one that stands there.

    Raises:
        AdaptInfError: another does; naming what differs.
    """
    known = read_plan(folder)
    if known is None:
        write_json(folder / _RECORD, asdict(plan))
    elif changes := list(_changes(_content(known), _content(plan))):
        mend = "Give this one another name with --name: what both share is not computed again. "
        mend += f"`adapt-inf compare --name {folder.name}` alone goes on with the other."
        raise AdaptInfError(f"comparison {folder.name} was begun otherwise: {'; '.join(changes[:4])}.", mend)


def _content(plan: Plan) -> dict[str, Any]:
    """What makes one plan another; `set` is part of `params`."""
    return {key: value for key, value in asdict(plan).items() if key != "set"}


def read_plan(folder: Path) -> Plan | None:
    """The plan of a comparison that was begun, or None."""
    path = folder / _RECORD
    return Plan(**read_json(path)) if path.is_file() else None


def check_sources(project: Project, plan: Plan) -> None:
    """See that the base and the drops are what they were when the comparison began.

    Raises:
        AdaptInfError: naming the first that is not.
    """
    now = {f"drop {name}": (_digest(project, name), digest) for name, digest in plan.drops.items()}
    now |= {
        f"rounds/{BASE}/{name}": (folder_digest(project.output(BASE, name)), digest)
        for name, digest in plan.base.items()
    }
    for what, (digest, then) in now.items():
        if digest != then:
            raise AdaptInfError(
                f"{what} is not what it was when this comparison began.", "Take it back, or begin another with --name."
            )


def _drops(project: Project, named: Sequence[str] | None) -> list[str]:
    if named is not None:
        return list(dict.fromkeys(named))
    records = {record.round: record for record in lineage.rounds(project)}
    taken: list[str] = []
    at = lineage.head(project)
    while at in records:
        taken.insert(0, records[at].drop)
        at = records[at].parent
    if not (found := [*taken, *pending_drops(project)]):
        raise AdaptInfError(
            f"{project.root} has no drop to compare strategies on.",
            "`adapt-inf drop PATH` brings one in; it need not run a round.",
        )
    return found


def _digest(project: Project, name: str) -> str:
    folder = project.drop(name)
    if not is_name(name) or not folder.is_dir():
        there = ", ".join(sorted(path.name for path in project.drops.glob("[!.]*/"))) or "none"
        raise AdaptInfError(f"There is no drop {name} in {project.drops}.", f"There are: {there}.")
    return drop_digest(folder.resolve(), name)


def _check_key(key: str, params: Mapping[str, Any], keys: Iterable[str], source: Path) -> None:
    if key in _OWN:
        raise AdaptInfError(f"`{key}` is not for --set or --vary.", f"{_OWN[key]} sets it.")
    try:
        known = not isinstance(value_at(params, key), Mapping)
    except (KeyError, TypeError):
        known = False
    if not known:
        raise ConfigError(source, key, "no such key")
    if not any(key == each or key.startswith(f"{each}.") for each in keys):
        raise AdaptInfError(f"No stage of a round depends on `{key}`, so it changes nothing here.", "Leave it out.")


def _put(params: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        params = params[section]
    params[last] = value


def _changes(then: Any, now: Any, at: str = "") -> Iterable[str]:
    if isinstance(then, dict) and isinstance(now, dict) and at not in ("drops", "vary"):
        for key in dict.fromkeys([*then, *now]):
            yield from _changes(then.get(key), now.get(key), f"{at}.{key}" if at else key)
    elif then != now or (isinstance(then, dict) and list(then) != list(now)):
        name = at.removeprefix("params.")
        hidden = name.startswith("base.") or name == "drops"
        if name == "drops" and list(then) != list(now):
            hidden, then, now = False, list(then), list(now)
        yield f"{name} has changed" if hidden else f"{name} was {show(then)}, now {show(now)}"
