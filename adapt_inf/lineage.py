"""The tree of rounds: which drop each took, which parent it builds on, how it ended, and where the head stands.

A round is a folder with a frozen params.yaml and dvc.yaml and a round.json that says how it ended; the head is a small
file, which adapt_inf.promotion moves. Nothing here is ever deleted but a round whose drop was refused before anything
was computed from it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from adapt_inf import history
from adapt_inf.config import Params, load_params
from adapt_inf.drop_queue import mark_refused, pending_drops
from adapt_inf.errors import AdaptInfError, ConfigError, RoundError
from adapt_inf.files import parse_yaml, read_json, write_json, write_text
from adapt_inf.project import BASE, Project
from adapt_inf.proxy import asks_proxy, check_proxy, depends_on
from adapt_inf.stages.runner import OUTPUTS, WORKINGS

_ROUND = re.compile(r"r(\d{3,})")


_THAWED = "Put that line back: what a round began with stays."
_FAULTS = {"failed": "failed its gate", "waiting": "waits for approval", "declined": "was declined"}


@dataclass(frozen=True)
class Round:
    """One round, as round.json holds it and `adapt-inf lineage --json` prints it.

    `content` is the digest of what the drop holds, `license` what its description says. `status` is running, finished
    or failed. Counts and figures are None until the stage that yields them has run. A finished round has a `gate`:
    verdict (passed, failed, waiting, promoted or declined), reasons and figures.
    """

    round: str
    parent: str
    drop: str
    strategy: str
    content: str | None = None
    license: str | None = None
    status: str = "running"
    pool_hash: str | None = None
    pool_size: int | None = None
    candidates: int | None = None
    selected: int | None = None
    pruned: int | None = None
    rejected: int | None = None
    model_version: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] | None = None
    error: str | None = None

    @property
    def verdict(self) -> str | None:
        """Of the gate, or None where the round is not finished."""
        return self.gate["verdict"] if self.gate else None

    @property
    def fault(self) -> str | None:
        """Why no round may build on this one, to follow its name; None where one may."""
        if self.status != "finished":
            return "failed" if self.status == "failed" else "is not finished"
        return _FAULTS.get(self.verdict or "")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def head(project: Project) -> str:
    """The round that the next one builds on, and whose model is the champion."""
    path = project.rounds / "head.json"
    return read_json(path)["round"] if path.is_file() else BASE


def move_head(project: Project, round_id: str) -> None:
    write_json(project.rounds / "head.json", {"round": round_id})


def round_number(round_id: str) -> int:
    """r007 -> 7, base -> 0: the step of a round in every curve."""
    match = _ROUND.fullmatch(round_id)
    return int(match[1]) if match else 0


def rounds(project: Project) -> list[Round]:
    """Every round that began, oldest first."""
    found = (path.parent.name for path in project.rounds.glob("r*/round.json"))
    return [read_round(project, name) for name in sorted(filter(_ROUND.fullmatch, found), key=round_number)]


def read_round(project: Project, round_id: str) -> Round:
    path = project.round(round_id) / "round.json"
    if not path.is_file():
        raise RoundError(round_id, "there is no such round", "`adapt-inf lineage` lists the rounds.")
    return Round(**read_json(path))


def write_round(project: Project, record: Round) -> None:
    write_json(project.round(record.round) / "round.json", record.to_json())


def entries(project: Project) -> list[dict[str, Any]]:
    """The rounds as `adapt-inf lineage --json` lists them, oldest first: each with its place in the tree."""
    found, at = rounds(project), head(project)
    children: dict[str, list[str]] = {}
    for record in found:
        children.setdefault(record.parent, []).append(record.round)
    return [
        record.to_json()
        | {"head": record.round == at, "champion": record.round == at, "children": children.get(record.round, [])}
        for record in found
    ]


# --- a round's life ---------------------------------------------------------------------------------------------------


def missing_outputs(project: Project, round_id: str) -> list[str]:
    """Outputs that a round made here, that are gone, and that something reads once the round is finished."""
    if not project.log(round_id).is_dir():  # it came from elsewhere
        return []
    lasting = [name for name in OUTPUTS.values() if name not in WORKINGS]
    return [name for name in lasting if not project.output(round_id, name).exists()]


def unfinished(project: Project) -> list[str]:
    """Rounds that were cut off, failed, or lost an output, oldest first."""
    return [
        record.round
        for record in rounds(project)
        if record.status != "finished" or missing_outputs(project, record.round)
    ]


def awaiting(project: Project) -> list[str]:
    """Rounds that passed their gate and wait for `adapt-inf promote`, oldest first; no new round begins behind them."""
    return [record.round for record in rounds(project) if record.verdict == "waiting"]


def has_work(project: Project) -> bool:
    """Whether a drop may be taken in, a round is unfinished, or a move of the head was cut off."""
    if history.half_done(project) or unfinished(project):
        return True
    return bool(pending_drops(project)) and not awaiting(project)


def next_round(project: Project) -> str | None:
    """The round to work on: an unfinished one, else a new one for the oldest drop unless a round awaits approval."""
    for round_id in unfinished(project):
        check_frozen(project, round_id)
        return round_id
    waiting = [] if awaiting(project) else pending_drops(project)
    return begin_round(project, waiting[0]) if waiting else None


def begin_round(project: Project, drop: str) -> str:
    """Freeze the definition for `drop` on top of the head; the round exists once its round.json does.

    Raises:
        ConfigError: params.yaml is not right; nothing was written.
        AdaptInfError: no round may build on the head; nothing was written.
    """
    params = load_params(project.params_file)
    check_selection(params, project.params_file)
    check_proxy(project, params, project.params_file)
    numbers = [round_number(record.round) for record in rounds(project)]
    round_id, parent = f"r{max(numbers, default=0) + 1:03d}", head(project)
    check_parent(project, round_id, parent)
    folder = project.round(round_id)
    folder.mkdir(exist_ok=True)
    filled = {"round": round_id, "parent": parent, "drop": drop}
    write_text(folder / "params.yaml", freeze_params(project.params_file.read_text(encoding="utf-8"), filled))
    write_text(folder / "dvc.yaml", freeze_pipeline((project.root / "dvc.yaml").read_text(encoding="utf-8"), params))
    write_round(project, Round(round_id, parent, drop, params.select.strategy))
    return round_id


def check_parent(project: Project, round_id: str, parent: str) -> None:
    """Refuse a parent that is not there, is not finished, or whose gate stands in the way.

    Raises:
        AdaptInfError: naming both, and what to do.
    """
    by_name = {record.round: record for record in rounds(project)}
    if parent != BASE and parent not in by_name:
        mend = "`adapt-inf lineage` lists the rounds, `adapt-inf rollback ROUND` takes the head to one of them."
        raise AdaptInfError(f"round {round_id} names parent {parent}, which is not there.", mend)
    if parent == BASE or (fault := by_name[parent].fault) is None:
        return
    before = by_name[parent].parent
    while before in by_name and by_name[before].fault:
        before = by_name[before].parent
    judged = by_name[parent].gate is not None
    first = f"Promote it with `adapt-inf promote {parent}`" if judged else "Finish it with `adapt-inf round`"
    mend = f"{first}, or start from {before} with `adapt-inf rollback {before}`."
    raise AdaptInfError(f"round {round_id} names parent {parent}, which {fault}.", mend)


def check_frozen(project: Project, round_id: str) -> None:
    """Refuse to go on with a round whose frozen params.yaml was changed to name another round, parent or drop.

    Raises:
        AdaptInfError: naming what it says now, and what it said when the round began.
    """
    record, file = read_round(project, round_id), project.params_of(round_id)
    params = load_params(file)
    if params.round != round_id and project.round(params.round).is_dir():
        raise RoundError(round_id, f"{file} calls it {params.round}, and there is a round of that name", _THAWED)
    check_parent(project, round_id, params.parent)
    for key in ("round", "parent", "drop"):
        now, then = getattr(params, key), getattr(record, key)
        if now != then:
            raise RoundError(round_id, f"{file} says `{key}: {now}`, but it began with {then}", _THAWED)


def check_selection(params: Params, source: Path) -> None:
    """Refuse a strategy or score that cannot be before a round spends its time on the stages ahead of it.

    Raises:
        ConfigError: naming one that does not exist and what there is, or what one needs.
    """
    from adapt_inf.selection.scores.base import HIDDEN
    from adapt_inf.selection.scores.registry import available, resolve
    from adapt_inf.selection.strategies import ADAPT_INF, WITHOUT_EXPERTS, is_strategy

    strategy = params.select.strategy
    if not is_strategy(strategy, available()):
        known = ", ".join(dict.fromkeys([ADAPT_INF, *WITHOUT_EXPERTS, *available()]))
        raise ConfigError(source, "select.strategy", f"there is no strategy {strategy}; there are {known}")
    one_more = [] if strategy in (ADAPT_INF, *WITHOUT_EXPERTS, *params.select.scores) else [strategy]
    for score in resolve([*params.select.scores, *one_more], source):
        if HIDDEN in score.needs and not params.keeps_hidden:
            raise ConfigError(source, "sketch.hidden", f"score {score.name} needs hidden states: set it to true")


def freeze_params(text: str, filled: dict[str, str]) -> str:
    """The text of params.yaml with the keys of `filled` set and the scratch round off; other lines stay as they are."""
    kept = [line for line in text.splitlines() if not re.match(rf"({'|'.join(filled)}|scratch):", line)]
    # In quotes: a drop may be called 2024 or null.
    return "\n".join([*(f"{key}: {json.dumps(value)}" for key, value in filled.items()), *kept]) + "\n"


def freeze_pipeline(text: str, params: Params) -> str:
    """The stages of the root's dvc.yaml as they stand in a round's folder, with that round's params.yaml."""
    stages = {}
    for name, definition in parse_yaml(text)["stages"].items():
        stage = dict(definition["do"])
        if asks_proxy(params):
            stage["deps"] = depends_on(name, stage["deps"])
        stage["params"] = [{"rounds/${round}/params.yaml": stage["params"]}]
        stages[name] = {"wdir": "../..", **stage}
    return yaml.safe_dump({"stages": stages}, sort_keys=False, width=120)


def refuse_drop(project: Project, round_id: str, reason: str) -> None:
    """Take back a round whose drop was refused at ingest: the round goes, the drop stays, marked with the reason."""
    mark_refused(project, read_round(project, round_id).drop, reason)
    away = project.rounds / f".{round_id}.refused"
    shutil.rmtree(away, ignore_errors=True)
    os.rename(project.round(round_id), away)  # in one step: half a round could be neither gone on with nor taken back
    shutil.rmtree(away)


def fail_round(project: Project, round_id: str, error: str) -> None:
    write_round(project, replace(read_round(project, round_id), status="failed", error=error))


def gather_facts(project: Project, round_id: str) -> Round:
    """Take what the stages wrote into round.json; the round is not done yet."""
    record = replace(read_round(project, round_id), error=None, **round_facts(project, round_id))
    write_round(project, record)
    return record


def round_facts(project: Project, round_id: str) -> dict[str, Any]:
    """Counts and figures of a round whose eight stages have run, by the names of `Round`'s fields."""
    pool = read_json(project.output(round_id, "pool") / "pool.json")
    selection = read_json(project.output(round_id, "select") / "selectors.json")
    ingest = read_json(project.output(round_id, "ingest") / "report.json")
    figures = read_json(project.output(round_id, "evaluate") / "metrics.json")
    return {
        "content": ingest.get("content"),
        "license": ingest.get("license"),
        "pool_hash": output_hash(project, round_id, "pool"),
        "pool_size": pool["live"],
        "candidates": selection["candidates"],
        "selected": selection["selected"],
        "pruned": pool["pruned"],
        "rejected": ingest["rejected"],
        "metrics": {key: value for key, value in figures.items() if key not in ("round", "parent")},
    }


def output_hash(project: Project, round_id: str, name: str) -> str:
    """The DVC hash of an output of a round: the version of a pool or a model.

    Raises:
        RoundError: DVC has not recorded that output.
    """
    path = f"rounds/{round_id}/{name}"
    lock = project.round(round_id) / "dvc.lock"
    records = [project.round(round_id) / f"{name}.dvc"] if round_id == BASE else [lock]
    for file in records:
        if not file.is_file():
            continue
        content = parse_yaml(file.read_text(encoding="utf-8"))
        stages = content.get("stages", {"": content}).values()
        for out in (out for stage in stages for out in stage.get("outs", [])):
            if out["path"] in (path, name):
                return out["md5"]
    raise RoundError(round_id, f"DVC has no record of its {name}", "Run `adapt-inf round` to complete it.")
