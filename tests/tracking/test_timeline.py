"""The timeline: a point per round and figure, none twice, none of a round that is no longer in the lineage."""

from __future__ import annotations

from tracked_project import add_round, lineage_of

from adapt_inf.project import Project
from adapt_inf.tracking.store import connect, find_runs
from adapt_inf.tracking.timeline import log_timeline


def points(project: Project, key: str) -> list[tuple[int, float]]:
    store = connect(project)
    (run,) = find_runs(store, {"adapt_inf.kind": "timeline"})
    return [(point.step, point.value) for point in store.client.get_metric_history(run.info.run_id, key)]


def test_every_figure_has_a_point_per_round(project: Project) -> None:
    lineage = lineage_of(project, "r001", "r002")
    log_timeline(project, lineage[:1])
    log_timeline(project, lineage)
    for name in ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
        assert points(project, name) == [(step, entry["metrics"][name]) for step, entry in enumerate(lineage, 1)]
    for name in ("pool_size", "selected", "pruned", "candidates"):
        assert points(project, name) == [(step, entry[name]) for step, entry in enumerate(lineage, 1)]
    assert [step for step, _ in points(project, "skill.base.naming")] == [1, 2]
    assert [step for step, _ in points(project, "skill.flags.capital")] == [2]


def test_logging_again_adds_no_point(project: Project) -> None:
    lineage = lineage_of(project, "r001", "r002")
    assert log_timeline(project, lineage) == log_timeline(project, lineage)
    assert len(points(project, "forgetting")) == 2


def test_a_mark_that_a_killed_process_never_wrote_costs_no_second_point(project: Project) -> None:
    lineage = lineage_of(project, "r001", "r002")
    run_id = log_timeline(project, lineage)
    connect(project).client.delete_tag(run_id, "adapt_inf.logged")
    assert log_timeline(project, lineage) == run_id
    assert len(points(project, "forgetting")) == 2


def branches(project: Project) -> dict[str, list[int]]:
    """The steps of each timeline run, by its name."""
    store = connect(project)
    return {
        run.info.run_name: [each.step for each in store.client.get_metric_history(run.info.run_id, "average_accuracy")]
        for run in find_runs(store, {"adapt_inf.kind": "timeline"})
    }


def test_a_branch_is_a_run_beside_the_one_it_left(project: Project) -> None:
    add_round(project, "r003")
    first, second, third = lineage_of(project, "r001", "r002", "r003")
    log_timeline(project, [first])
    run_id = log_timeline(project, [first, second | {"head": True}])
    assert branches(project) == {"timeline base to r002": [1, 2]}
    note = connect(project).client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "r002   flags" in note, "the head, which moves on, is not marked"
    branch = [first, third | {"parent": "r001"}]
    log_timeline(project, branch)
    assert branches(project) == {"timeline base to r002": [1, 2], "timeline base to r003": [1, 3]}
    log_timeline(project, [*branch, second | {"round": "r004", "parent": "r003"}])
    log_timeline(project, [first, second, second | {"round": "r005", "parent": "r002"}])
    assert branches(project) == {"timeline base to r005": [1, 2, 5], "timeline base to r004": [1, 3, 4]}


def test_a_round_that_came_out_otherwise_takes_all_its_points_again(project: Project) -> None:
    first, second = lineage_of(project, "r001", "r002")
    old = log_timeline(project, [first, second])
    assert log_timeline(project, [first, second | {"selected": 7}]) != old
    assert branches(project) == {"timeline base to r002": [1, 2]}
    assert points(project, "selected")[1] == (2, 7)


def test_rounds_without_figures_give_no_point(project: Project) -> None:
    assert log_timeline(project, [{"round": "r001", "parent": "base", "metrics": {}}]) is None
    assert log_timeline(project, []) is None
