"""Plans: the product of strategies, variants and seeds; what may not be asked for, and what may not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from concluded_project import make_project, run_stages
from machine import copy_project
from make_drop import make_drop

from adapt_inf import lineage
from adapt_inf.comparison.plan import Lineage, Plan, check_sources, keep_plan, make_plan, read_plan
from adapt_inf.config import set_values
from adapt_inf.drop_queue import add_drop
from adapt_inf.errors import AdaptInfError
from adapt_inf.project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with three drops, two of which rounds took; tests that change it change a copy."""
    home = tmp_path_factory.mktemp("planned")
    project = make_project(home / "project")
    for name in ("one", "two", "three"):
        make_drop(home / name, name, train=4, eval=2)
        add_drop(project, home / name, name)
    for name in ("one", "two"):
        lineage.move_head(project, run_stages(project, name))
        record = lineage.rounds(project)[-1]
        lineage.write_round(project, replace(record, status="finished"))
    return project


def plan_of(
    project: Project,
    strategies: Sequence[str] = ("adapt_inf", "random"),
    seeds: Sequence[int] = (0, 1),
    drops: Sequence[str] | None = None,
    vary: dict[str, list[Any]] | None = None,
    **values: Any,
) -> Plan:
    settings = {key.replace("__", "."): value for key, value in values.items()}
    return make_plan(project, strategies, seeds, settings, vary or {}, drops)


def test_lineages_go_seed_by_seed_over_every_variant_and_strategy(project: Project) -> None:
    plan = plan_of(project, vary={"select.budget": [0.1, 0.25], "cluster.k": ["auto", 4]}, train__steps=3)
    lines = plan.lineages()
    assert len(lines) == len(set(lines)) == 2 * 2 * 2 * 2
    assert [line.seed for line in lines] == [0] * 8 + [1] * 8
    assert lines[0] == Lineage((("select.budget", "0.1"), ("cluster.k", "auto")), "adapt_inf", 0)
    assert str(lines[3]) == "seed 0 random select.budget=0.1 cluster.k=4"
    params = plan.params_of(lines[-1], project.params_file)
    assert (params.seed, params.select.strategy, params.select.budget) == (1, "random", 0.25)
    assert (params.cluster.k, params.train.steps) == (4, 3)


def test_only_who_reads_hidden_states_keeps_them(project: Project) -> None:
    plan = plan_of(project, ("adapt_inf", "random", "crds_w", "oasis", "rds_plus"), seeds=[0])
    kept = {line.strategy: plan.params_of(line, project.params_file).sketch.hidden for line in plan.lineages()}
    assert kept == {"adapt_inf": False, "random": False, "crds_w": True, "oasis": False, "rds_plus": True}
    asked = plan_of(project, seeds=[0], sketch__hidden=True)
    assert all(asked.params_of(line, project.params_file).sketch.hidden for line in asked.lineages())


def test_drops_are_those_of_the_heads_line_and_then_those_that_wait(project: Project, tmp_path: Path) -> None:
    project = copy_project(project, tmp_path / "copy")
    assert list(plan_of(project).drops) == ["one", "two", "three"]
    lineage.move_head(project, "r001")
    assert list(plan_of(project).drops) == ["one", "three"]
    assert list(plan_of(project, drops=["three", "one"]).drops) == ["three", "one"]


def test_a_plan_is_the_same_when_it_is_read_again(project: Project, tmp_path: Path) -> None:
    plan = plan_of(project, vary={"sketch.layers": ["middle", [0, 2]]}, prune__pool_cap=None)
    assert read_plan(tmp_path / "kept") is None
    keep_plan(tmp_path / "kept", plan)
    keep_plan(tmp_path / "kept", plan)
    assert read_plan(tmp_path / "kept") == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": (0, 1, 2)}, r"seeds was \[0, 1\], now \[0, 1, 2\]"),
        ({"strategies": ("random", "adapt_inf")}, r"strategies was \[adapt_inf, random\], now \[random, adapt_inf\]"),
        ({"train__steps": 7}, r"train\.steps was null, now 7\."),
        ({"vary": {"cluster.k": [3, 4]}}, r"vary was \{\}, now \{cluster\.k: \[3, 4\]\}"),
        ({"drops": ["two", "one"]}, r"drops was \[one, two, three\], now \[two, one\]"),
    ],
)
def test_another_plan_under_the_same_name_is_refused(
    project: Project, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    keep_plan(tmp_path / "kept", plan_of(project))
    with pytest.raises(AdaptInfError, match=f"comparison kept was begun otherwise: {words}"):
        keep_plan(tmp_path / "kept", plan_of(project, **change))


def test_params_that_changed_since_are_named(project: Project, tmp_path: Path) -> None:
    project = copy_project(project, tmp_path / "copy")
    keep_plan(tmp_path / "kept", plan_of(project))
    text = project.params_file.read_text()
    project.params_file.write_text(set_values(text, {"train.learning_rate": 0.5, "gate.max_forgetting": 0.1}))
    with pytest.raises(AdaptInfError, match=r"otherwise: train\.learning_rate was 0\.0002, now 0\.5\."):
        keep_plan(tmp_path / "kept", plan_of(project))


@pytest.mark.parametrize("path", ["drops/one/train.json", "rounds/base/pool/more"])
def test_sources_that_changed_since_are_named(project: Project, tmp_path: Path, path: str) -> None:
    project = copy_project(project, tmp_path / "copy")
    plan = plan_of(project)
    check_sources(project, plan)
    with open(project.root / path, "a") as file:
        file.write(" ")
    named = "drop one" if "one" in path else "rounds/base/pool"
    with pytest.raises(AdaptInfError, match=f"{named} is not what it was"):
        check_sources(project, plan)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strategies": ["best"]}, "there is no strategy best; there are adapt_inf"),
        ({"select__scores": ["best"]}, "best"),
        ({"train__stepps": 3}, r"`train\.stepps`: no such key"),
        ({"train": 3}, "`train`: no such key"),
        ({"train__steps__x": 3}, r"`train\.steps\.x`: no such key"),
        ({"vary": {"cluster.q": [3]}}, r"`cluster\.q`: no such key"),
        ({"train__steps": "many"}, r"`train\.steps`: .*not 'many'"),
        ({"vary": {"cluster.k": [3, "some"]}}, r"`cluster\.k`: .*not 'some'"),
        ({"vary": {"select.scores": [["best"]]}}, "best"),
        ({"gate__max_forgetting": 0.1}, r"No stage of a round depends on `gate\.max_forgetting`"),
        ({"seed": 3}, "`seed` is not for --set or --vary"),
        ({"vary": {"select.strategy": ["random"]}}, r"`select\.strategy` is not for --set or --vary"),
        ({"cluster__k": 3, "vary": {"cluster.k": [4]}}, r"`cluster\.k` stands in --set and in --vary"),
        ({"drops": ["four"]}, r"There is no drop four in .*\n.*one, three, two"),
        ({"drops": ["../drops/one"]}, r"There is no drop \.\./drops/one"),
    ],
)
def test_what_is_wrong_is_named(project: Project, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(AdaptInfError, match=words):
        plan_of(project, **wrong)


def test_a_project_without_drops_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "empty")
    with pytest.raises(AdaptInfError, match="has no drop to compare strategies on"):
        plan_of(project)
