"""The head in MLflow: the aliases of the registered model, the tag of the head's run, and every move as a run.

`champion` is the version of the round that the head is at, `previous` that of the round that it was at before; where it
is at the base, or came from there, the alias is taken away. A run of its own holds the moves as a table and as a curve
(step = number of the move, value = number of the round), so a rollback is a step down. All of it follows from what the
project holds: doing it again changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt_inf.project import Project
from adapt_inf.review.round_files import ancestry, round_number
from adapt_inf.tracking.rounds import MODEL_NOTE, ensure_model, runs_of
from adapt_inf.tracking.store import (
    KIND,
    NOTE,
    Store,
    connect,
    find_runs,
    now_ms,
    registry_text,
    write,
    write_curves,
    write_tables,
)
from adapt_inf.tracking.timeline import log_timeline

if TYPE_CHECKING:
    from mlflow.entities import Run

HEAD = "head"  # the tag of the head's run, and the curve of the moves

_LOGGED = "adapt_inf.logged"  # how many moves were
_COLUMNS = ("time", "round", "from", "kind", "why", "by")
_LISTED = 20  # moves in the description of the registered model


def show_moves(project: Project, head: str, rounds: list[dict[str, Any]], moves: list[dict[str, Any]]) -> None:
    """Bring MLflow to what the project holds.

    Args:
        head: the round that the head is at.
        rounds: as `adapt-inf lineage --json` lists them.
        moves: as `adapt-inf history --json` lists them, at least one.
    """
    store = connect(project)
    _log_moves(store, moves)
    if line := ancestry(rounds, head):
        log_timeline(project, line)
    _mark_head(store, head)
    _set_aliases(store, head, moves)


def _mark_head(store: Store, head: str) -> None:
    marked = {run.info.run_id for run in find_runs(store, {HEAD: "true"})}
    run = runs_of(store, head).get("")
    wanted = {run.info.run_id} if run is not None else set()
    for run_id in marked - wanted:
        store.client.delete_tag(run_id, HEAD)
    for run_id in wanted - marked:
        store.client.set_tag(run_id, HEAD, "true")


def _set_aliases(store: Store, head: str, moves: list[dict[str, Any]]) -> None:
    name, client = store.name, store.client
    # By their tags: a project that came from elsewhere has other numbers in its own MLflow than round.json says.
    found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    if not found:
        return
    versions = {version.tags.get("round"): str(version.version) for version in found}
    aliases = {alias: str(version) for alias, version in ensure_model(store).aliases.items()}
    for alias, version in {"champion": versions.get(head), "previous": versions.get(moves[-1]["from"])}.items():
        if version is None and alias in aliases:
            client.delete_registered_model_alias(name, alias)
        elif version is not None and aliases.get(alias) != version:
            client.set_registered_model_alias(name, alias, version)
    client.update_registered_model(name, registry_text(f"{MODEL_NOTE}\n\n{_markdown(moves)}"))


def _log_moves(store: Store, moves: list[dict[str, Any]]) -> None:
    run: Run | None = next(iter(find_runs(store, {KIND: "history"})), None)
    if run is None:
        tags = {KIND: "history", "mlflow.source.name": "adapt-inf", "mlflow.source.type": "LOCAL"}
        run = store.client.create_run(store.experiment_id, now_ms(), tags, "moves of the head")
    run_id = run.info.run_id
    done = int(run.data.tags.get(_LOGGED, "0"))
    points = [{"step": number, HEAD: round_number(move["round"])} for number, move in enumerate(moves, start=1)]
    write_curves(store, run_id, points[done:], run.info.start_time)  # the timestamp follows from the step: none twice
    write_tables(store, run_id, {"history.json": (_COLUMNS, [[move[key] for key in _COLUMNS] for move in moves])})
    write(store, run_id, tags={NOTE: _markdown(moves), _LOGGED: str(len(moves))})
    if run.info.status != "FINISHED":
        store.client.set_terminated(run_id)


def _markdown(moves: list[dict[str, Any]]) -> str:
    """The last moves as a table, newest first."""
    rows = [[_cell(move[key]) for key in _COLUMNS] for move in reversed(moves[-_LISTED:])]
    lines = [list(_COLUMNS), ["---"] * len(_COLUMNS), *rows]
    return "**Moves of the head**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or "-"
