"""The MLflow store of a project, and the few words in which the rest of tracking speaks to it.

A project is an experiment, named after its folder and found again by the project's id: renamed, or cloned, it goes on
there, and another project of the same name on a shared server gets one of its own. It lies in mlflow.db at the root,
artifacts beside it; MLFLOW_TRACKING_URI wins. Every run of ours is found again by its tags, so that logging twice
changes nothing. Opening costs 1 s of imports, and some seconds more the first time, while MLflow lays out its tables;
after that a round trip is about 10 ms.

MLflow is imported inside functions only: the command line answers without it.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt_inf.errors import AdaptInfError
from adapt_inf.files import fingerprint, is_full, read_json, write_json
from adapt_inf.project import Project

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PROJECT = "adapt_inf.project"  # of an experiment: the project's id
KIND = "adapt_inf.kind"  # round, stage, timeline, history or comparison
ROUND = "adapt_inf.round"
STAGE = "adapt_inf.stage"
NOTE = "mlflow.note.content"  # what the UI shows as a run's description, in Markdown

_METRICS_PER_BATCH = 1000  # limits of MLflow's log_batch
_PARAMS_OR_TAGS_PER_BATCH = 100
_TAG_LENGTH = 8000
_REGISTRY_LENGTH = 5000  # of a description or a tag in the registry: a column of its tables
_PAGE = 1000
_EXPERIMENT_NOTE = (
    "A run per round with a child per stage, a timeline run per branch of the lineage whose steps are its rounds, and "
    "a run with the moves of the head."
)


class MLflowError(AdaptInfError):
    """MLflow is not there, or does not answer."""


@dataclass(frozen=True)
class Store:
    """A client, the experiment that it writes into, and the name of that and of the registered model."""

    client: MlflowClient
    experiment_id: str
    name: str


def _folder_name(project: Project) -> str:
    """The name of the project's folder, less what MLflow refuses."""
    return re.sub(r"[^\w.\- ]", "_", project.root.resolve().name) or "adapt_inf"


def tracking_uri(project: Project) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project.root.resolve() / 'mlflow.db'}"


def open_store(project: Project) -> MlflowClient:
    """A client on the project's store, made with its experiment where it is not there yet."""
    return connect(project).client


def connect(project: Project) -> Store:
    return _connect(project.root.resolve(), _folder_name(project), project.identity(), tracking_uri(project))


def note_address(project: Project, round_id: str, experiment_id: str, run_id: str) -> None:
    """Keep where the round's run is, for who asks for its address: a server may be far, and slow to ask."""
    noted = {"store": fingerprint([tracking_uri(project)]), "experiment": experiment_id, "run": run_id}
    write_json(_address(project, round_id), noted)


def address_of(project: Project, round_id: str | None) -> str:
    """Where on the pages of the store in use the round's run is, as it was noted; empty where it was not."""
    if round_id is None or not (path := _address(project, round_id)).is_file():
        return ""
    noted = read_json(path)
    known = noted["store"] == fingerprint([tracking_uri(project)])
    return f"/{noted['experiment']}/runs/{noted['run']}" if known else ""


def _address(project: Project, round_id: str) -> Path:
    return project.rounds / ".tracked" / f"{round_id}.json"  # not among its logs: those say that it was run here


def import_ahead(project: Project) -> None:
    """Import what `connect` will need; nothing is opened."""
    _be_quiet()
    import mlflow.tracking.client

    if tracking_uri(project).startswith("sqlite:"):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def _be_quiet() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines at each run's end
    # What cannot be sent now is sent later, see adapt_inf.tracking.outbox; MLflow's own 7 tries of two minutes each
    # would hold a round up for a quarter of an hour.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # A page of migrations on every new project; that it may wait for a model version that is there at once.
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@lru_cache(maxsize=8)
def _connect(root: Path, name: str, identity: str | None, uri: str) -> Store:
    _be_quiet()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    own = root / "mlflow.db"
    try:
        if uri == f"sqlite:///{own}":
            _lay_out(own, root / "rounds")
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = client.get_experiment_by_name(name)
        if identity is not None and (experiment is None or experiment.tags.get(PROJECT) != identity):
            ours = client.search_experiments(filter_string=f"tags.`{PROJECT}` = '{identity}'")
            name = name if experiment is None else f"{name}-{identity[:6]}"
            experiment = ours[0] if ours else None
    except (MlflowException, SQLAlchemyError) as error:
        if is_full(error):
            raise
        problem = (str(error).splitlines() or ["no word why"])[0].partition(" failed with")[0]
        if uri == f"sqlite:///{own}":
            mend = "Move that file away: `adapt-inf track` fills a new one from what the project holds."
            raise MLflowError(f"MLflow cannot use {own} ({problem}).", mend) from error
        mend = "See to it that it runs and that MLFLOW_TRACKING_URI is right, then give the same command again."
        raise MLflowError(f"MLflow at {uri} does not answer ({problem}).", mend) from error
    if experiment is not None:
        return Store(client, experiment.experiment_id, experiment.name)
    # A tracking server keeps artifacts where it was told to; our own store keeps them in the project.
    location = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    tags = {"mlflow.experimentKind": "custom_model_development", NOTE: _EXPERIMENT_NOTE}
    tags |= {PROJECT: identity} if identity is not None else {}
    return Store(client, client.create_experiment(name, artifact_location=location, tags=tags), name)


def _lay_out(database: Path, beside: Path) -> None:
    """Make MLflow's database whole or not at all.

    Its tables come by dozens of steps, none of which can be taken back or taken again: where a process is killed in
    between, MLflow could never open that file.

    Args:
        beside: a folder on the same disk for what is not whole yet.
    """
    if database.exists():
        return
    from mlflow import MlflowClient

    beside.mkdir(exist_ok=True)
    with open(beside / ".mlflow.lock", "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists():
            return
        part = beside / ".mlflow.db"
        for left in beside.glob(f"{part.name}*"):
            left.unlink()
        MlflowClient(tracking_uri=f"sqlite:///{part}", registry_uri=f"sqlite:///{part}").search_experiments()
        os.replace(part, database)


def find_runs(store: Store, tags: Mapping[str, str], status: str | None = None) -> list[Run]:
    """The live runs of the experiment that carry all of `tags`, newest first."""
    conditions = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    if status:
        conditions.append(f"attributes.status = '{status}'")
    found: list[Run] = []
    token: str | None = None
    while True:
        page = store.client.search_runs([store.experiment_id], " and ".join(conditions), 1, _PAGE, None, token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def ensure_run(
    store: Store,
    found: Run | None,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    start_time: int | None = None,
) -> str:
    """The id of `found`, or of a new run, holding `params`.

    MLflow never changes a parameter that was logged. A run whose parameters differ belongs to another attempt at the
    same thing, so it goes to MLflow's trash and a new one takes its place.
    """
    if found is not None:
        logged = found.data.params
        if all(logged.get(key, value) == value for key, value in params.items()):
            if len(logged) < len(params):
                write(store, found.info.run_id, params=params)
            return found.info.run_id
        store.client.delete_run(found.info.run_id)
    run = store.client.create_run(store.experiment_id, run_name=name, tags=dict(tags), start_time=start_time)
    if params:
        write(store, run.info.run_id, params=params)
    return run.info.run_id


def write(
    store: Store,
    run_id: str,
    metrics: Mapping[str, Any] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
    timestamp: int | None = None,
) -> None:
    """Log all of it in as few round trips as MLflow's limits allow; metrics that are no finite number are left out.

    Args:
        metrics: name to number; names are made fit by `metric_key`.
        timestamp: of the metrics, in ms; the same key, value, step and timestamp logged twice is one point. None: now,
            and only of those that the run does not show so already, so that logging again adds no point.
    """
    from mlflow.entities import Metric, Param, RunTag

    at = now_ms() if timestamp is None else timestamp
    points = [Metric(metric_key(key), float(v), at, step) for key, v in (metrics or {}).items() if is_number(v)]
    if points and timestamp is None:
        shown = store.client.get_run(run_id).data.metrics
        points = [point for point in points if shown.get(point.key) != point.value]
    settings = [Param(key, value) for key, value in (params or {}).items()]
    labels = [RunTag(key, value[:_TAG_LENGTH]) for key, value in (tags or {}).items()]
    size = _PARAMS_OR_TAGS_PER_BATCH
    while points or settings or labels:
        store.client.log_batch(run_id, points[:_METRICS_PER_BATCH], settings[:size], labels[:size])
        del points[:_METRICS_PER_BATCH], settings[:size], labels[:size]


def write_curves(store: Store, run_id: str, rows: Iterable[Mapping[str, Any]], start: int) -> None:
    """Log every number of `rows` but `step` as a point at that step.

    Args:
        rows: each with `step` and the figures at it.
        start: ms; the timestamp follows from the step, so that the same rows logged twice are the same points.
    """
    from mlflow.entities import Metric

    points = [
        Metric(metric_key(key), float(value), start + row["step"], row["step"])
        for row in rows
        for key, value in row.items()
        if key != "step" and is_number(value)
    ]
    for first in range(0, len(points), _METRICS_PER_BATCH):
        store.client.log_batch(run_id, points[first : first + _METRICS_PER_BATCH])


def write_tables(
    store: Store, run_id: str, tables: Mapping[str, tuple[Sequence[str], Iterable[Sequence[Any]]]]
) -> None:
    """Log tables as artifacts that the UI shows as tables.

    The file and the tag are those of MLflow's `log_table`, which would append to a table that is already there.

    Args:
        tables: file name to (columns, rows).
    """
    import json

    for name, (columns, rows) in tables.items():
        store.client.log_dict(run_id, {"columns": list(columns), "data": [list(row) for row in rows]}, name)
    listed = [{"path": name, "type": "table"} for name in tables]
    write(store, run_id, tags={"mlflow.loggedArtifacts": json.dumps(listed)})


def registry_text(text: str) -> str:
    """A description or a tag's value cut to what the registry's tables hold, at the end of a line where there is one.

    SQLite takes more, PostgreSQL refuses it.
    """
    if len(text) <= _REGISTRY_LENGTH:
        return text
    start = text[: _REGISTRY_LENGTH - 2]
    return f"{start.rpartition(chr(10))[0] or start}\n…"


def metric_key(name: str) -> str:
    """`name` as MLflow takes it: a replaced character is paid for by a short digest, so that no two names meet."""
    fit = re.sub(r"[^\w.\- /]", "_", name)
    fit = "/".join(part.strip() if part.strip(" .") else "_" for part in fit.split("/"))[:230]
    return fit if fit == name else f"{fit}-{fingerprint([name])[:6]}"


def skill_key(skill: str) -> str:
    """The metric of the skill "<suite>/<skill>": dots, since the UI shows names with a slash before all others."""
    suite, _, name = skill.partition("/")
    plain = metric_key(f"skill.{suite}.{name}".replace("/", "."))
    return plain if "." not in suite and "/" not in name else f"{plain}-{fingerprint([skill])[:6]}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def as_params(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: "null" if value is None else str(value) for key, value in flat(values).items()}


def now_ms() -> int:
    return int(time.time() * 1000)
