"""A round in MLflow: one run, a child run per stage, a version of the registered model.

All of it is written by the orchestrator from the files that the stages left, so a stage that DVC took from its cache
logs as one that ran, and everything may be logged again: runs are found by their tags. A whole round costs about half a
second. Its page and pictures are the project's own (see adapt_inf.review): MLflow gets a copy.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapt_inf.config import load_params
from adapt_inf.files import folder_digest
from adapt_inf.project import Project
from adapt_inf.review.round_files import (
    FIGURES,
    RoundFiles,
    matrix_table,
    round_number,
    samples_per_second,
    selector_table,
)
from adapt_inf.tracking.describe import round_note
from adapt_inf.tracking.store import (
    KIND,
    NOTE,
    ROUND,
    STAGE,
    Store,
    as_params,
    connect,
    ensure_run,
    find_runs,
    flat,
    is_number,
    note_address,
    now_ms,
    registry_text,
    skill_key,
    write,
    write_curves,
    write_tables,
)

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run
    from mlflow.entities.model_registry import RegisteredModel

_RUN_STATUS = {"finished": "FINISHED", "killed": "KILLED"}  # any other status of a round is a run that failed
_FACT_TAGS = {"pool_hash": "pool_version", "commit": "mlflow.source.git.commit"}  # a fact that is known by another name
_PARENT_RUN = "mlflow.parentRunId"
_CURVE_POINTS = 320  # of a training curve; MLflow's page draws no more
_DIGEST_LENGTH = 36  # of an MLflow dataset: DVC's "<md5>.dir" to the letter


def begin_round(project: Project, round_id: str) -> str:
    """The id of the round's run, marked RUNNING: the one that an earlier attempt left, or a new one."""
    store = connect(project)
    found = runs_of(store, round_id).get("")
    run_id = _ensure_round(store, project, round_id, found)
    if found is not None and run_id == found.info.run_id and found.info.status != "RUNNING":
        store.client.update_run(run_id, status="RUNNING")
    return run_id


def log_stage(project: Project, round_id: str, stage: str, outcome: dict[str, Any]) -> None:
    """Log one stage as a child of the round's run.

    Args:
        stage: one of the eight.
        outcome: what the stage runner returned, shaped as rounds/<round>/log/<stage>.json, which wins where it exists;
            a stage that raised has `error`, and none of an earlier attempt's measures.
    """
    store = connect(project)
    runs = runs_of(store, round_id)
    child = runs.get(stage)
    cached = bool(outcome.get("cached", False))
    parent_id = runs[""].info.run_id if "" in runs else _ensure_round(store, project, round_id, None)
    if child is not None and child.data.tags.get(_PARENT_RUN) != parent_id:
        store.client.delete_run(child.info.run_id)  # of a round that went to the trash
        child = None
    if cached and child is not None and child.info.status == "FINISHED":
        return  # nothing happened since it was logged
    files = RoundFiles(project, round_id)
    error = outcome.get("error")
    measured = outcome if error else {**outcome, **files.log(stage)}
    seconds = measured.get("seconds") or 0.0
    tags = {KIND: "stage", ROUND: round_id, STAGE: stage, _PARENT_RUN: parent_id}
    params = as_params(asdict(load_params(project.params_of(round_id))).get(stage, {}))
    began = child.info.start_time if child is not None else now_ms() - (0 if cached else int(1000 * seconds))
    run_id = ensure_run(store, child, f"{round_id} {stage}", tags, params, began)
    labels = {"cached": str(cached).lower()}
    if error or (child is not None and NOTE in child.data.tags):
        labels[NOTE] = str(error or "")  # what an earlier attempt met is over
    training = files.training if stage == "train" else []
    write(store, run_id, _stage_metrics(measured, seconds), tags=labels)
    every = math.ceil(len(training) / _CURVE_POINTS) or 1
    write_curves(store, run_id, (_curve_point(row) for row in training[every - 1 :: every]), began)
    if stage == "select" and files.selectors:
        write_tables(store, run_id, {"selectors.json": selector_table(files.selectors)})
    store.client.set_terminated(run_id, "FAILED" if error else "FINISHED")


def finish_round(project: Project, round_id: str, status: str, facts: dict[str, Any]) -> int | None:
    """Log what the round came to, register its model and end its run.

    Args:
        status: of the round in the lineage. `finished` ends the run as FINISHED, `killed` as KILLED, anything else as
            FAILED. No alias moves: see adapt_inf.tracking.moves.
        facts: pool_hash, parent, drop, strategy, commit; each may be None or missing. `error`: why it failed.

    Returns:
        The version of the registered model, or None where the round did not come as far as its evaluation.
    """
    store = connect(project)
    files = RoundFiles(project, round_id)
    run_id = _ensure_round(store, project, round_id, runs_of(store, round_id).get(""))
    note = round_note(project, {**facts, "round": round_id, "status": status})
    known = {key: str(value) for key, value in facts.items() if value is not None and key != "error"}
    tags = {_FACT_TAGS.get(key, key): value for key, value in known.items()} | {"status": status, NOTE: note}
    write(store, run_id, round_metrics(files), tags=tags, step=round_number(round_id))
    inputs = _dataset_inputs(files, facts)
    if inputs:
        store.client.log_inputs(run_id, datasets=inputs)
    tables = {}
    if files.selectors:
        tables["selectors.json"] = selector_table(files.selectors)
    if files.matrix:
        tables["accuracy_matrix.json"] = matrix_table(files.matrix)
    if tables:
        write_tables(store, run_id, tables)
    _log_page(store, project, run_id, round_id)
    pictures = project.round(round_id) / "pictures"
    if pictures.is_dir():
        store.client.log_artifacts(run_id, str(pictures), "pictures")
    version = _register(store, files, run_id, status, known, note)
    store.client.set_terminated(run_id, _RUN_STATUS.get(status, "FAILED"))
    return version


def _log_page(store: Store, project: Project, run_id: str, round_id: str) -> None:
    """A copy of the round's page, as it stands now, where it has one."""
    from adapt_inf.review.report import report_path

    if (page := report_path(project, round_id)).is_file():
        store.client.log_artifact(run_id, str(page))


def tag_commit(project: Project, round_id: str, commit: str | None) -> None:
    """Name the git commit that holds the finished round on its run and on its model's version."""
    if commit is None:
        return
    store = connect(project)
    run = runs_of(store, round_id).get("")
    if run is None:
        return
    write(store, run.info.run_id, tags={_FACT_TAGS["commit"]: commit})
    for version in store.client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        store.client.set_model_version_tag(version.name, version.version, "commit", commit)


def fail_stale(project: Project) -> int:
    """Mark every run that a killed process left RUNNING as KILLED; how many there were.

    The caller sees to it that nobody else is writing.
    """
    store = connect(project)
    stale = find_runs(store, {}, status="RUNNING")
    for run in stale:
        store.client.set_terminated(run.info.run_id, "KILLED")
    return len(stale)


def tag_gate(project: Project, entry: dict[str, Any]) -> None:
    """Say on the round's run and on its model's version what the gate came to, as tags and in words.

    Args:
        entry: the round, as `adapt-inf lineage --json` lists it.
    """
    store = connect(project)
    run = runs_of(store, entry["round"]).get("")
    if run is None or not entry["gate"]:
        return
    tags = {"gate": entry["gate"]["verdict"], "gate.reasons": "; ".join(entry["gate"]["reasons"])}
    note = round_note(project, entry)
    _log_page(store, project, run.info.run_id, entry["round"])
    figures = {f"gate.{name}": value for name, value in entry["gate"]["figures"].items()}
    write(store, run.info.run_id, figures, tags=tags | {NOTE: note}, step=round_number(entry["round"]))
    for version in store.client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        for key, value in tags.items():
            store.client.set_model_version_tag(version.name, version.version, key, registry_text(value))
        store.client.update_model_version(version.name, version.version, registry_text(note))


def round_metrics(files: RoundFiles) -> dict[str, Any]:
    """Every figure of a round under the name that it has in MLflow: the figures, the counts, each skill."""
    found = {name: files.metrics.get(name) for name in FIGURES}
    found |= {f"rare.{name}": value for name, value in (files.metrics.get("rare") or {}).items()}
    found |= files.counts
    found |= {skill_key(skill): score for skill, score in files.metrics.get("skills", {}).items()}
    return found


def runs_of(store: Store, round_id: str) -> dict[str, Run]:
    """The round's runs by stage, its own under the empty name."""
    return {run.data.tags.get(STAGE, ""): run for run in find_runs(store, {ROUND: round_id})}


def _ensure_round(store: Store, project: Project, round_id: str, found: Run | None) -> str:
    params = load_params(project.params_of(round_id))
    tags = {
        KIND: "round",
        ROUND: round_id,
        "parent": params.parent,
        "drop": params.drop,
        "strategy": params.select.strategy,
        "mlflow.source.name": "adapt-inf round",
        "mlflow.source.type": "LOCAL",
    }
    # All of params.yaml, so that two rounds can be compared in the UI.
    run_id = ensure_run(store, found, f"{round_id} {params.drop}", tags, as_params(asdict(params)))
    note_address(project, round_id, store.experiment_id, run_id)
    return run_id


def _curve_point(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "samples"}


def _stage_metrics(measured: dict[str, Any], seconds: float) -> dict[str, Any]:
    report = flat(measured.get("report") or {})
    metrics: dict[str, Any] = {"seconds": seconds, "peak_memory_mb": measured.get("peak_memory_mb")}
    if (speed := samples_per_second(measured.get("report") or {}, seconds)) is not None:
        metrics["samples_per_second"] = speed
    return metrics | {f"report.{key}": value for key, value in report.items()}


def _dataset_inputs(files: RoundFiles, facts: dict[str, Any]) -> list[DatasetInput]:
    """The drop and the parent's pool, which the round read, and the pool that it left."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    parent, drop = facts.get("parent"), facts.get("drop")
    pool = files.hashes.get(f"rounds/{parent}/pool") if parent else None
    found = [
        (f"drop {drop}", files.drop_hash(drop) if drop else None, f"drops/{drop}", "drop", files.ingest),
        (f"pool {parent}", pool, f"rounds/{parent}/pool", "pool before", {}),
        (f"pool {files.round}", facts.get("pool_hash"), f"rounds/{files.round}/pool", "pool after", files.pool),
    ]
    return [
        DatasetInput(
            Dataset(
                name=name,
                digest=digest[:_DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": path}),
                profile=json.dumps({key: value for key, value in flat(profile).items() if is_number(value)}),
            ),
            [InputTag("mlflow.data.context", context)],
        )
        for name, digest, path, context, profile in found
        if digest
    ]


def _register(
    store: Store, files: RoundFiles, run_id: str, status: str, known: dict[str, str], note: str
) -> int | None:
    """A version for the round's adapter; the one that is there when the adapter is the same."""
    adapter = files.project.output(files.round, "model")
    if not adapter.is_dir() or not files.metrics:
        return None
    client, name = store.client, store.name
    tags: dict[str, str] = {key: value for key, value in known.items() if key != "pool_hash"}
    tags |= {"round": files.round, "status": status, "adapter": folder_digest(adapter)}
    if "pool_hash" in known:
        tags["pool_version"] = known["pool_hash"]
    version = None
    for old in client.search_model_versions(f"run_id = '{run_id}'"):
        if old.tags.get("adapter") == tags["adapter"]:
            version = str(old.version)
            if old.tags.get("status") != status:
                client.set_model_version_tag(name, version, "status", status)
                client.update_model_version(name, version, registry_text(note))
        else:
            client.delete_model_version(name, old.version)  # the round was run again and came out otherwise
    ensure_model(store)
    if version is None:
        client.log_artifacts(run_id, str(adapter), "model")
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        described = registry_text(note)
        version = str(client.create_model_version(name, source, run_id, tags, description=described).version)
    return int(version)


def ensure_model(store: Store) -> RegisteredModel:
    """The registered model, made where it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(store.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return store.client.create_registered_model(store.name, description=MODEL_NOTE)


MODEL_NOTE = (
    "One version per round of the lineage: a PEFT adapter on the base model in `rounds/base/model`. `champion` is the "
    "head's, `previous` that of the head before. The tag `pool_version` is the DVC hash of the pool that it left."
)
