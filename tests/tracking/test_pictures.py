"""Pictures: every kind is written, the same data give the same bytes, and crowded data still draw."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tracked_project import EXPERTS, lineage_of

from adapt_inf.project import Project
from adapt_inf.tracking import pictures
from adapt_inf.tracking.pictures import Curve, spread, write_pictures
from adapt_inf.tracking.reports import ancestry


def test_a_round_gets_every_picture_and_always_the_same(project: Project) -> None:
    lineage = lineage_of(project, "r001", "r002")
    written = write_pictures(project, "r002", lineage)
    assert [path.relative_to(project.round("r002")).as_posix() for path in written] == [
        f"pictures/{name}.png"
        for name in ("forgetting", "accuracy_matrix", "cluster_sizes", "cluster_entropies", "curve_of_k", "pool")
    ]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_pictures(project, "r002", lineage)] == before
    for path in written:
        with Image.open(path) as image:
            assert max(image.size) < 3000


def test_a_long_lineage_shows_its_latest_rounds(project: Project) -> None:
    line = [{"round": f"r{i:03d}", "parent": f"r{i - 1:03d}", "pool_size": 9} for i in range(1, 201)]
    (path,) = [path for path in write_pictures(project, "r200", line) if path.stem == "pool"]
    with Image.open(path) as image:
        assert max(image.size) < 3000


def test_a_round_that_left_nothing_gets_no_picture(tmp_path: Path) -> None:
    assert write_pictures(Project(tmp_path), "r001", []) == []


def test_ancestry_follows_the_parents() -> None:
    tree = [{"round": name, "parent": parent} for name, parent in [("r1", "base"), ("r2", "r1"), ("r3", "r1")]]
    assert [entry["round"] for entry in ancestry(tree, "r3")] == ["r1", "r3"]
    assert ancestry(tree, "base") == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=13))
def test_labels_stay_apart_in_order_and_inside(heights: list[float]) -> None:
    placed = spread(sorted(heights), 0.07)
    assert len(placed) == len(heights)
    assert all(above - below > 0.07 - 1e-9 for below, above in pairwise(placed))
    assert all(-1e-9 <= height <= 1 + 1e-9 for height in placed)


@pytest.mark.parametrize("rounds", [1, 60])
def test_many_skills_and_rounds_draw(rounds: int, tmp_path: Path) -> None:
    names = [f"r{number:03d}" for number in range(rounds)]
    curves = [Curve(f"suite {i % 7}", f"skill {i}", [0.5] * rounds, 0) for i in range(20)]
    pictures.skill_curves(names, curves, [0.5] * rounds).savefig(tmp_path / "curves.png")
    scores: list[list[float | None]] = [[None] * rounds] * 20
    keys = [curve.skill for curve in curves]
    pictures.accuracy_matrix(names, keys, scores, names[:1] * 20).savefig(tmp_path / "matrix.png")
    pictures.pool_history(names, [None] * rounds, [3] * rounds, [0] * rounds).savefig(tmp_path / "pool.png")


def test_more_clusters_than_fit_show_the_largest(tmp_path: Path) -> None:
    clusters: list[dict[str, Any]] = [
        {"cluster": i, "size": 1000 - i, "budget": 9, "selected": 9, "selector": "el2n"}
        | {"entropies": dict.fromkeys(EXPERTS, 1.0)}
        for i in range(200)
    ]
    figure = pictures.cluster_entropies(clusters)
    assert "the 60 largest of 200" in figure.axes[0].get_title()
    figure.savefig(tmp_path / "entropies.png")
