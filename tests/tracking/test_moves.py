"""The head in MLflow: aliases follow it, its run is marked, every move is a row and a point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracked_project import lineage_of

from adapt_inf.files import read_json
from adapt_inf.project import Project
from adapt_inf.tracking.moves import show_moves
from adapt_inf.tracking.rounds import begin_round, finish_round
from adapt_inf.tracking.store import connect, find_runs

FORTH = [("r001", "base", "round"), ("r002", "r001", "round")]
BACK = [*FORTH, ("r001", "r002", "rollback")]


@pytest.fixture
def client(project: Project) -> MlflowClient:
    for round_id in ("r001", "r002"):
        (entry,) = lineage_of(project, round_id)
        begin_round(project, round_id)
        finish_round(project, round_id, "finished", {key: entry[key] for key in ("pool_hash", "parent", "drop")})
    return connect(project).client


def show(project: Project, moves: list[tuple[str, str, str]]) -> None:
    rows = [
        {"time": f"2026-01-0{day}", "round": to, "from": origin, "kind": kind, "why": "a | b", "by": "me@here"}
        for day, (to, origin, kind) in enumerate(moves, start=1)
    ]
    show_moves(project, moves[-1][0], lineage_of(project, "r001", "r002"), rows)


def aliases(client: MlflowClient) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model("garden").aliases.items()}


def head_runs(project: Project) -> list[str]:
    return [run.data.tags["adapt_inf.round"] for run in find_runs(connect(project), {"head": "true"})]


def test_aliases_and_mark_follow_the_head(project: Project, client: MlflowClient) -> None:
    show(project, FORTH[:1])
    assert (aliases(client), head_runs(project)) == ({"champion": 1}, ["r001"])
    show(project, FORTH)
    assert (aliases(client), head_runs(project)) == ({"champion": 2, "previous": 1}, ["r002"])
    show(project, BACK)
    assert (aliases(client), head_runs(project)) == ({"champion": 1, "previous": 2}, ["r001"])
    show(project, [*BACK, ("base", "r001", "rollback")])
    assert (aliases(client), head_runs(project)) == ({"previous": 1}, [])


def test_the_moves_are_a_table_a_curve_and_a_description(project: Project, client: MlflowClient) -> None:
    for _ in range(2):  # again: nothing is there twice
        show(project, FORTH)
    for _ in range(2):
        show(project, BACK)
    (run,) = find_runs(connect(project), {"adapt_inf.kind": "history"})
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "head")]
    assert points == [(1, 1), (2, 2), (3, 1)]
    table: dict[str, Any] = read_json(Path(client.download_artifacts(run.info.run_id, "history.json")))
    assert [row[1:4] for row in table["data"]] == [list(move) for move in BACK]
    newest = "| 2026-01-03 | r001 | r002 | rollback | a \\| b | me@here |"
    assert newest in run.data.tags["mlflow.note.content"]
    assert newest in client.get_registered_model("garden").description
    assert run.info.status == "FINISHED"


def test_a_store_that_knows_none_of_the_rounds_gets_no_alias(project: Project) -> None:
    show(project, BACK)
    assert connect(project).client.search_registered_models() == []
