"""The tables of the page say what the files of the round say."""

from __future__ import annotations

import pandas as pd
import pytest

from adapt_inf.data.manifest import MANIFEST, read_manifest
from adapt_inf.files import read_json, write_json
from adapt_inf.project import Project
from adapt_inf.review import figures
from adapt_inf.review.answers import skill_gallery
from adapt_inf.review.figures import Table
from adapt_inf.review.round_files import matrix_table, samples_per_second
from adapt_inf.review.tables import Review, score_of


def dicts(table: Table | None) -> list[dict[str, str]]:
    assert table is not None
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.parametrize("which", ["real", "hand-made"])
def test_selectors_are_those_of_the_file(which: str, real: Review, project: Project) -> None:
    review = real if which == "real" else Review(project, "r002")
    clusters = read_json(review.project.output("r002", "select") / "selectors.json")["clusters"]
    rows = {int(row["cluster"]): row for row in dicts(figures.selectors(review))}
    assert set(rows) == {cluster["cluster"] for cluster in clusters}
    for cluster in clusters:
        row = rows[cluster["cluster"]]
        assert row["selector"] == cluster["selector"]
        assert [number(row[key]) for key in ("size", "budget", "selected")] == [
            cluster[key] for key in ("size", "budget", "selected")
        ]
        assert float(row["entropy"]) == pytest.approx(cluster["entropies"][cluster["selector"]], abs=0.006)
        assert float(row["margin"]) == pytest.approx(cluster["margin"], abs=0.006)


def test_new_and_pruned_of_each_cluster_add_up_to_the_round(real: Review) -> None:
    rows = dicts(figures.selectors(real))
    assert sum(number(row["new"]) for row in rows) == real.files.ingest["train"]
    assert sum(number(row["pruned"]) for row in rows) == real.files.pool["pruned"] > 0
    assigned = pd.read_parquet(real.files.path("cluster", "assignments.parquet"))["cluster"]
    assert {int(row["cluster"]): number(row["size"]) for row in rows} == assigned.value_counts().to_dict()


def test_what_was_thrown_away_is_counted_by_skill(real: Review) -> None:
    rows = dicts(figures.thrown(real))
    skills = real.files.selectors["skills"]
    assert {row["dataset/skill"]: (number(row["candidates"]), number(row["selected"])) for row in rows} == {
        name: (counts["candidates"], counts["selected"]) for name, counts in skills.items()
    }
    manifest = read_manifest(real.files.path("pool", MANIFEST))
    pruned = manifest[manifest["pruned_round"] == "r002"]
    counts = (pruned["drop"] + "/" + pruned["skill"]).value_counts().to_dict()
    assert {row["dataset/skill"]: number(row["pruned"]) for row in rows if row["pruned"] != "0"} == counts


def test_what_the_model_knew_is_the_median_of_its_surprise(real: Review) -> None:
    samples = real.samples
    rows = dicts(figures.knew(real))
    assert {row["from"] for row in rows} == {"new", "pool"}
    for row in rows:
        here = samples[samples["drop"] + "/" + samples["skill"] == row["dataset/skill"]]
        assert float(row["median log perplexity"]) == pytest.approx(here[score_of("perplexity")].median(), abs=0.006)
        assert number(row["candidates"]) == len(here)


def test_skills_before_and_after_are_those_of_the_matrix(real: Review) -> None:
    values = real.files.matrix["values"]
    rows = dicts(figures.skills(skill_gallery(real)))
    assert {row["skill"] for row in rows} == set(values["r002"])
    for row in rows:  # exact match only: a right answer is a score of 1
        assert float(row["after"]) == pytest.approx(values["r002"][row["skill"]], abs=0.006)
        assert float(row["before"]) == pytest.approx(values["r001"][row["skill"]], abs=0.006)
        gain = number(row["learned"]) - number(row["forgotten"])
        assert float(row["change"]) == pytest.approx(gain / number(row["samples"]), abs=0.006)


def test_the_headline_is_that_of_the_metrics(project: Project) -> None:
    cards = {card.name: card for card in figures.cards(Review(project, "r002"))}
    metrics = read_json(project.output("r002", "evaluate") / "metrics.json")
    assert cards["average accuracy"].value == f"{metrics['average_accuracy']:.3f}"
    before = read_json(project.output("r001", "evaluate") / "metrics.json")
    assert len(before["skills"]) < len(metrics["skills"]), "the two averages are not over the same skills"
    assert cards["average accuracy"].note == (
        f"over {len(metrics['skills'])} skills; r001 had {before['average_accuracy']:.3f} over {len(before['skills'])}"
    )
    first = {card.name: card for card in figures.cards(Review(project, "r001"))}
    assert first["average accuracy"].note == f"over {len(before['skills'])} skills"
    assert cards["came in"].value == "3,000"
    assert cards["came in"].note == "5 set aside"
    assert cards["in the pool"].note == "500 pruned"


def test_stages_versions_and_changed_settings(real: Review, project: Project) -> None:
    assert dicts(figures.stages(real))[0]["stage"] == "ingest"
    versions = {row["where"]: row["version"] for row in dicts(figures.versions(real, {"commit": "c0ffee"}))}
    assert versions["rounds/r001/pool"].endswith(".dir")
    assert versions["rounds/r002/pool"] == read_json(real.project.round("r002") / "round.json")["pool_hash"]
    assert versions["round/r002"] == "c0ffee"
    assert figures.changed(real) is None
    params = project.params_of("r002").read_text()
    project.params_of("r002").write_text(f"{params}\nselect: {{budget: 0.4}}\n")
    assert figures.changed(Review(project, "r002")).rows == [["select.budget", "0.25", "0.4"]]  # type: ignore[union-attr]


def test_the_line_ends_with_the_round(project: Project) -> None:
    record = project.round("r001") / "round.json"
    write_json(record, read_json(record) | {"drop": "shapes"})
    rows = dicts(figures.line(Review(project, "r002")))
    assert [(row["round"], row["on"]) for row in rows] == [("r001", "base"), ("r002", "r001")]
    assert rows[0]["dataset"] == "shapes"


def test_a_skill_may_be_named_as_the_page_prints_it() -> None:
    entry = {"suite": "shapes", "skill": "shapes/red", "round": "r001", "samples": 4}
    matrix = {"rounds": ["base", "r001"], "skills": [entry], "values": {"r001": {"shapes/shapes/red": 0.75}}}
    assert matrix_table(matrix)[1] == [["shapes", "shapes/red", "r001", 4, None, 0.75]]


@pytest.mark.parametrize(
    ("report", "rate"),
    [
        ({"samples": 100, "resumed": 90}, 1.0),
        ({"samples": 100}, 10.0),
        ({"read": 50}, 5.0),
        ({"candidates": 30}, 3.0),
        ({"samples": 100, "samples_per_second": 7.5}, 7.5),
        ({}, None),
    ],
)
def test_a_rate_is_that_of_the_last_start(report: dict[str, float], rate: float | None) -> None:
    assert samples_per_second(report, 10.0) == rate


@pytest.mark.parametrize(("after", "tone"), [(0.6, "up"), (0.4, "down"), (0.5001, "")])
def test_a_headline_is_good_or_bad_news_where_its_digits_moved(project: Project, after: float, tone: str) -> None:
    folder = project.output("r002", "evaluate")
    matrix, metrics = read_json(folder / "accuracy_matrix.json"), read_json(folder / "metrics.json")
    matrix["values"]["r001"] = dict.fromkeys(metrics["skills"], 0.5)
    write_json(folder / "accuracy_matrix.json", matrix)
    write_json(folder / "metrics.json", metrics | {"skills": dict.fromkeys(metrics["skills"], after)})
    cards = {card.name: card.tone for card in figures.cards(Review(project, "r002"))}
    assert cards["new skills"] == cards["earlier skills"] == tone
