"""The page of a round: complete, of one file, safe against what samples say, and there however the round ended."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from machine import copy_project

from adapt_inf.data.samples import Sample
from adapt_inf.data.shards import read_shard, write_shard
from adapt_inf.files import read_json, write_json, write_parquet, write_text
from adapt_inf.project import Project
from adapt_inf.review.report import make_report, report_path, show_verdict
from adapt_inf.review.tables import Review
from adapt_inf.versions import commit_of_round

MARKUP = "</style><script>alert(1)</script><img src=http://away.example/x onerror=alert(1)>"
PARTS = ("came", "knew", "chosen", "thrown", "learned", "gallery", "origin")


class Tags(HTMLParser):
    """The tags of a page and the addresses that they would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]


def record_of(project: Project, round_id: str) -> dict[str, object]:
    return read_json(project.round(round_id) / "round.json")


def test_a_round_leaves_its_page_behind_and_it_is_whole(real: Review) -> None:
    page = report_path(real.project, "r002").read_text()
    found = Tags(page)
    assert set(PARTS) <= set(found.ids)
    assert all(load.startswith(("data:image/webp;base64,", "#")) for load in found.loads)
    assert "script" not in found.tags
    assert "could not be made" not in page
    assert 'class="fault"' not in page
    assert "Passed its gate" in page
    assert "share of right answers" not in page, "the matrix holds mean scores"
    assert len(page) < 4_000_000
    assert page.count('<svg class="chart"') > 20
    assert found.tags.count("img") > 20


def test_the_same_round_gives_the_same_page(real: Review, tmp_path: Path) -> None:
    project = copy_project(real.project, tmp_path / "again")
    record = record_of(project, "r002")
    pages = [make_report(project, record).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_page_names_the_commit_once_there_is_one(real: Review, project: Project, tmp_path: Path) -> None:
    mine = copy_project(real.project, tmp_path / "committed")
    commit = commit_of_round(mine, "r002")
    assert commit is not None
    record = record_of(mine, "r002")
    assert "commit" not in record
    page = make_report(mine, record).read_text()
    assert f"<td>round/r002</td><td>{commit}</td>" in page
    assert f"commit {commit}" in page
    assert "<td>round/r002</td><td>c0ffee</td>" in make_report(mine, record | {"commit": "c0ffee"}).read_text()
    outside = make_report(project, {"round": "r002", "status": "finished"}).read_text()
    assert "round/r002" not in outside


def test_text_of_samples_is_never_markup(real: Review, tmp_path: Path) -> None:
    project = copy_project(real.project, tmp_path / "hostile")
    suite = project.output("r002", "pool") / "suites" / "second.parquet"
    write_shard(suite, [spoilt(sample) for sample in read_shard(suite)])
    for name in ("predictions.parquet", "before.parquet"):
        path = project.output("r002", "evaluate") / name
        frame = pd.read_parquet(path)
        frame["prediction"] = MARKUP
        frame["answers"] = [[MARKUP]] * len(frame)
        write_parquet(path, frame)
    report = project.output("r002", "ingest") / "report.json"
    write_json(report, read_json(report) | {"reasons": [MARKUP], "description": MARKUP, "license": MARKUP})
    record = record_of(project, "r002") | {"gate": {"verdict": "failed", "reasons": [MARKUP], "figures": {}}}
    page = make_report(project, record).read_text()
    assert page.count("&lt;script&gt;alert(1)") > 8
    found = Tags(page)
    assert "script" not in found.tags
    assert all(load.startswith(("data:image/webp;base64,", "#")) for load in found.loads)
    assert page.count("</style>") == 1


def spoilt(sample: Sample) -> Sample:
    turn = {"role": "user", "content": [{"type": "text", "text": MARKUP}]}
    return replace(sample, images=(), messages=[turn, sample.messages[-1]])


def test_a_round_that_failed_shows_as_far_as_it_came(project: Project) -> None:
    write_text(project.params_of("r003"), yaml.safe_dump({"round": "r003", "parent": "r002", "drop": "broken"}))
    record = {"round": "r003", "status": "failed", "gate": None}
    write_json(project.log("r003") / "ingest.error.json", {"kind": "DropError", "message": "drop broken: no good <b>"})
    page = make_report(project, record).read_text()
    assert "Stopped at ingest" in page
    assert "no good &lt;b&gt;" in page
    assert set(PARTS) <= set(Tags(page).ids)
    assert "could not be made" not in page
    shutil.copytree(project.output("r002", "ingest"), project.output("r003", "ingest"))
    shutil.copytree(project.output("r002", "select"), project.output("r003", "select"))
    page = make_report(project, record).read_text()
    assert "3,000" in page
    assert "The clusters in figures" in page


def test_a_round_that_is_cut_off_says_where(project: Project) -> None:
    (project.log("r002") / "train.json").unlink()
    (project.log("r002") / "evaluate.json").unlink()
    page = make_report(project, {"round": "r002", "status": "running"}).read_text()
    assert "Stopped at train" in page
    assert "`adapt-inf round` goes on from there" in page


def test_a_part_that_cannot_be_made_gives_way_to_the_reason(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.output("r002", "select") / "selectors.json"
    selectors = read_json(path)
    del selectors["clusters"][0]["entropies"]
    selectors["clusters"][0]["budget"] = "many"
    write_json(path, selectors)
    page = make_report(project, {"round": "r002", "status": "finished"}).read_text()
    assert "cluster sizes could not be made: TypeError" in page
    assert "TypeError" in capsys.readouterr().err
    assert 'id="accuracy_matrix"' in page


def test_once_gc_freed_the_workings_the_page_stays_but_for_the_verdict(real: Review, tmp_path: Path) -> None:
    project = copy_project(real.project, tmp_path / "freed")
    whole = report_path(project, "r002").read_text()
    for name in ("sketch", "score", "cluster"):
        shutil.rmtree(project.output("r002", name))
    record = record_of(project, "r002")
    gate = {"verdict": "promoted", "reasons": ["it was worth it"], "figures": {}}
    page = make_report(project, record | {"gate": gate}).read_text()
    assert "it was worth it" in page
    assert verdict(page) != verdict(whole)
    assert page.replace(verdict(page), "") == whole.replace(verdict(whole), "")
    report_path(project, "r002").unlink()
    page = make_report(project, record).read_text()
    assert "Not all pictures can be drawn: sketch, score, cluster are not on this machine" in page
    assert "The clusters in figures" in page


def test_whoever_has_to_decide_reads_what_fell_and_how_to_say_it(project: Project) -> None:
    make_report(project, {"round": "r002", "status": "finished"})
    figures = {"max_forgetting": 0.21, "max_forgetting_skill": "base/<naming>"}
    for state, words in (("waiting", "the same with --decline"), ("failed", "takes it all the same")):
        gate = {"verdict": state, "reasons": ["it fell"], "figures": figures}
        page = verdict(show_verdict(project, {"round": "r002", "status": "finished", "gate": gate}).read_text())
        assert "base/&lt;naming&gt; by 0.210" in page
        assert "adapt-inf promote r002" in page
        assert words in page
        assert "it fell" in page


def verdict(page: str) -> str:
    found = re.search("<!--verdict-->.*<!--/verdict-->", page, re.DOTALL)
    assert found
    return found[0]


def test_a_verdict_finds_no_page_where_there_is_none(project: Project) -> None:
    gate = {"verdict": "failed", "reasons": [], "figures": {}}
    assert not show_verdict(project, {"round": "r001", "status": "finished", "gate": gate}).exists()
