"""Pictures of a round: every one that its files allow, of the same bytes each time, each with its sentences."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from machine import copy_project

from adapt_inf.files import read_json, write_json, write_parquet
from adapt_inf.project import Project
from adapt_inf.review.arriving import drift
from adapt_inf.review.pictures import PICTURES, write_pictures
from adapt_inf.review.tables import NO_CLUSTER, Review

WITHOUT_SAMPLES = {"accuracy_matrix", "skill_curves", "averages", "cluster_entropies", "cluster_sizes", "pool"}


def made(review: Review) -> dict[str, object]:
    return {name: picture for name, make in PICTURES.items() if (picture := make(review)) is not None}


def test_a_real_round_has_every_picture_with_its_sentences(real: Review) -> None:
    assert real.files.curve["chosen_by"] == "given"  # so there is no curve of k
    pictures = made(real)
    assert set(pictures) == set(PICTURES) - {"curve_of_k"}
    for picture in pictures.values():
        assert picture.how.endswith(".")  # type: ignore[attr-defined]
        assert picture.shows.endswith(".")  # type: ignore[attr-defined]
        assert picture.panels  # type: ignore[attr-defined]


def test_files_are_drawings_of_the_same_bytes_each_time(project: Project) -> None:
    pictures = {name: make(Review(project, "r002")) for name, make in PICTURES.items()}
    there = {name: picture for name, picture in pictures.items() if picture is not None}
    assert set(there) == WITHOUT_SAMPLES | {"curve_of_k"}
    paths = write_pictures(project, "r002", there)
    assert [path.relative_to(project.round("r002")).as_posix() for path in paths] == [
        f"pictures/{name}.svg" for name in there
    ]
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_pictures(project, "r002", there)] == before
    for path in paths:
        assert float(ElementTree.fromstring(path.read_text()).attrib["width"]) < 3000


def test_what_is_said_follows_from_the_files(real: Review, project: Project) -> None:
    clusters = real.files.selectors["clusters"]
    winners = {cluster["selector"] for cluster in clusters}
    picture = PICTURES["cluster_entropies"](real)
    assert picture is not None
    for name in winners:
        assert f"{name} in {sum(cluster['selector'] == name for cluster in clusters)}" in picture.shows
    assert sum(panel.body.count('fill="none"') for panel in picture.panels) == len(clusters)
    matrix = PICTURES["accuracy_matrix"](Review(project, "r002"))
    assert matrix is not None
    scores = read_json(project.output("r002", "evaluate") / "metrics.json")["skills"]
    assert f"best {max(scores, key=scores.__getitem__)} at {max(scores.values()):.2f}" in matrix.shows


def test_what_the_model_cannot_read_is_in_no_cluster(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "copy")
    before = Review(project, "r002")
    new = before.samples[before.samples["new"]]
    away = new.groupby("cluster").head(2)
    path = project.output("r002", "sketch") / "faults.parquet"
    write_parquet(path, pd.DataFrame({"sample_id": away["sample_id"], "fault": "too long"}))
    review = Review(project, "r002")
    fewer = before.samples.loc[away.index, "cluster"].value_counts()
    for cluster, count in before.per_cluster("new").items():
        assert review.per_cluster("new").get(cluster, 0) == count - fewer.get(cluster, 0)
    assert review.per_cluster("new")[NO_CLUSTER] == len(away)
    assert drift(review) is not None
    assert set(made(review)) == set(made(before))


def test_a_tie_is_close_and_the_parts_of_a_bar_are_the_whole(two_rounds: Project, tmp_path: Path) -> None:
    project = copy_project(two_rounds, tmp_path / "copy")
    path = project.output("r002", "select") / "selectors.json"
    table = read_json(path)
    write_json(path, table | {"clusters": [cluster | {"margin": 0.0} for cluster in table["clusters"]]})
    review = Review(project, "r002")
    entropies = PICTURES["cluster_entropies"](review)
    assert entropies is not None
    assert f"In {len(review.clusters)} of {len(review.clusters)} clusters" in entropies.shows
    samples, both = review.samples, review.per_cluster("trained on and pruned")
    for cluster in review.clusters:
        mine = samples[samples["cluster"] == cluster["cluster"]]
        kept = len(mine[~mine["selected"] & ~mine["pruned"]])
        gone = review.per_cluster("pruned")[cluster["cluster"]] - both[cluster["cluster"]]
        assert cluster["size"] == cluster["selected"] + kept + gone


def test_rare_skills_stand_apart(project: Project) -> None:
    path = project.output("r002", "evaluate") / "accuracy_matrix.json"
    matrix = read_json(path)
    matrix["skills"][0]["pool_share"] = 0.01
    write_json(path, matrix)
    picture = PICTURES["skill_curves"](Review(project, "r002"))
    assert picture is not None
    assert "apart at the end: 1 of" in picture.shows
    (panel,) = [panel for panel in picture.panels if "rare skills" in panel.body]
    assert matrix["skills"][0]["skill"] in panel.body
    assert matrix["skills"][1]["skill"] not in panel.body


def test_of_very_many_skills_those_that_moved_most_are_drawn(project: Project) -> None:
    path = project.output("r002", "evaluate") / "accuracy_matrix.json"
    matrix = read_json(path)
    extra = [{"skill": f"s{i}", "suite": "many", "round": "r001", "samples": 9, "pool_share": 0.1} for i in range(200)]
    matrix["skills"] += extra
    for i in range(200):
        matrix["values"]["r001"][f"many/s{i}"] = 0.5
        matrix["values"]["r002"][f"many/s{i}"] = 0.5 - (0.1 if i == 199 else 0.0)
    write_json(path, matrix)
    picture = PICTURES["accuracy_matrix"](Review(project, "r002"))
    assert picture is not None
    assert picture.title.endswith(f"the 120 of {len(matrix['skills'])} that moved most")
    assert "many/s199" in picture.panels[0].body
    assert picture.panels[0].body.count("many/s") < 2 * 200
    curves = PICTURES["skill_curves"](Review(project, "r002"))
    assert curves is not None
    assert any("s199" in panel.body for panel in curves.panels)


def test_a_strategy_without_experts_is_not_said_to_have_asked_one(project: Project) -> None:
    path = project.output("r002", "select") / "selectors.json"
    selectors = read_json(path)
    selectors["clusters"] = [cluster | {"selector": "random"} for cluster in selectors["clusters"]]
    write_json(path, selectors)
    picture = PICTURES["cluster_entropies"](Review(project, "r002"))
    assert picture is not None
    assert picture.shows.startswith(f"No expert was asked: random in {len(selectors['clusters'])}.")


def test_every_cluster_stands_in_one_of_the_panels(project: Project) -> None:
    path = project.output("r002", "select") / "selectors.json"
    selectors = read_json(path)
    row = selectors["clusters"][0]
    selectors["clusters"] = [row | {"cluster": number, "size": 1000 - number} for number in range(80)]
    write_json(path, selectors)
    review = Review(project, "r002")
    for name in ("cluster_entropies", "cluster_sizes"):
        picture = PICTURES[name](review)
        assert picture is not None
        assert len(picture.panels) == 3
        assert "of 80" not in picture.title
    selectors["clusters"] = [row | {"cluster": number} for number in range(200)]
    write_json(path, selectors)
    picture = PICTURES["cluster_sizes"](Review(project, "r002"))
    assert picture is not None
    assert picture.title.endswith("the 90 largest of 200")


def test_a_round_that_left_nothing_has_no_picture(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.round("r001").mkdir(parents=True)
    project.params_of("r001").write_text("{round: r001, parent: base, drop: d}")
    assert made(Review(project, "r001")) == {}


@pytest.mark.parametrize(
    ("new", "old", "expected"), [([0, 1], [0, 1], 0.0), ([0, 0], [1, 1], 1.0), ([0, 1, 1, 1], [0, 0, 0, 1], 0.5)]
)
def test_drift_runs_from_alike_to_nothing_in_common(new: list[int], old: list[int], expected: float) -> None:
    review = Review(Project(Path()), "r001")
    flags = np.array([True] * len(new) + [False] * len(old))
    review.__dict__["samples"] = pd.DataFrame({"cluster": [*new, *old], "new": flags})
    assert drift(review) == pytest.approx(expected)
