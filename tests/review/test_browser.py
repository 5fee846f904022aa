"""What a person sees, in a real browser: MLflow's pages of a project of four rounds, and the page of a round by itself.

MLflow is started by the command that we print and opened at the address that we print. It is the only test that may be
left out, on a machine without a browser.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import MISSING, Page, browser, find_browser
from serving import PATIENCE
from tracked_project import STAGES, add_round, empty_project, lineage_of

from adapt_inf.files import read_json
from adapt_inf.project import Project
from adapt_inf.review.report import make_report, report_path
from adapt_inf.review.tables import Review
from adapt_inf.tracking.moves import show_moves
from adapt_inf.tracking.rounds import begin_round, finish_round, log_stage, tag_commit, tag_gate
from adapt_inf.tracking.store import connect, find_runs
from adapt_inf.tracking.summary import mlflow_command

pytestmark = pytest.mark.skipif(find_browser() is None, reason=MISSING)

ROUNDS = ("r001", "r002", "r003", "r004")
PASSED = {"verdict": "passed", "reasons": [], "figures": {}}
SHEET = 718  # pixels: A4 between the margins that a browser leaves
LEAST_LETTERS = 8.4  # pixels: the smallest text of a picture, on the narrowest page


@pytest.fixture(scope="module")
def debugger() -> Iterator[str]:
    with browser() as address:
        yield address


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four rounds on disk, told to MLflow as the flow does."""
    project = empty_project(tmp_path_factory.mktemp("browser") / "garden")
    for round_id in ROUNDS:
        add_round(project, round_id)
        begin_round(project, round_id)
        for stage in STAGES:
            log_stage(project, round_id, stage, {"stage": stage, "cached": False})
        (entry,) = lineage_of(project, round_id)
        facts = {key: entry[key] for key in ("pool_hash", "parent", "drop", "strategy")}
        make_report(project, entry | {"gate": PASSED})
        finish_round(project, round_id, "finished", facts)
        tag_gate(project, entry | {"gate": PASSED})
        tag_commit(project, round_id, "c0ffee" * 6)
    moves = [
        {"time": "2026-01-01", "round": to, "from": origin, "kind": "round", "why": "took it in", "by": "me@here"}
        for origin, to in zip(("base", *ROUNDS), ROUNDS, strict=False)
    ]
    show_moves(project, "r004", lineage_of(project, *ROUNDS), moves)
    return project


@pytest.fixture(scope="module")
def port(project: Project) -> Iterator[int]:
    """MLflow's own server on the project, started by the command that we print."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = shlex.split(mlflow_command(project, port=port).splitlines()[0])
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with open(project.root / "server.log", "wb") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"], env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(f"http://127.0.0.1:{port}/health"):
            up = server.poll() is None and time.monotonic() < deadline
            assert up, (project.root / "server.log").read_text()
            time.sleep(0.2)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except OSError:
        return False


def link(project: Project, port: int, round_id: str | None = None) -> str:
    return mlflow_command(project, round_id, port=port).splitlines()[1]


def test_the_printed_address_opens_the_round_with_all_that_belongs_to_it(
    project: Project, port: int, debugger: str
) -> None:
    with Page(debugger, 1400, 1400) as page:
        page.open(link(project, port, "r004"))
        page.wait_for_text("r004 pairs", *(f"r004 {stage}" for stage in STAGES))
        page.wait_for_text("drop pairs", "Registered models", "garden", "v4", "What it gained", "What the model knew")
        page.wait_for_text("parent", "r003", "strategy", "adapt_inf", "gate", "passed", "c0ffee")
        page.wait_for_text("Model training")
        more = "[...document.querySelectorAll('button')].filter(each => each.innerText.trim() === '+2').pop()"
        page.wait(f"!!{more}")
        page.ask(f"{more}.click()")  # the datasets that there was no room for
        page.wait_for_text("pool r003", "pool r004", f"{'r003':0<32}.dir")
        assert all(each.startswith(f"http://127.0.0.1:{port}/") for each in page.requests)


def test_the_experiment_lists_the_rounds_and_the_timeline(project: Project, port: int, debugger: str) -> None:
    with Page(debugger, 1400, 1200) as page:
        page.open(link(project, port))
        page.wait_for_text("r001 shapes", "r002 flags", "r003 languages", "r004 pairs", "timeline base to r004")


def test_the_model_has_a_version_a_round_and_its_aliases(project: Project, port: int, debugger: str) -> None:
    with Page(debugger, 1600, 1400) as page:
        page.open(f"http://127.0.0.1:{port}/#/models/garden?workflowType=machine_learning")
        page.wait_for_text("Version 4", "Version 3", "champion", "previous")
        rows = page.wait(
            "(rows => rows.some(r => r.includes('Version 1')) && rows)"
            "([...document.querySelectorAll('[role=row]')].map(row => row.innerText))"
        )
        marked = {name: row for name in ("champion", "previous") for row in rows if name in row}
        assert "Version 4" in marked["champion"]
        assert "Version 3" in marked["previous"]
        assert "pool_version" in marked["champion"]
        assert sum("Version " in row for row in rows) >= len(ROUNDS)


def test_the_timeline_draws_a_point_a_round(project: Project, port: int, debugger: str) -> None:
    store = connect(project)
    (run,) = find_runs(store, {"adapt_inf.kind": "timeline"})
    with Page(debugger, 1400, 1200) as page:
        page.open(
            f"http://127.0.0.1:{port}/#/experiments/{store.experiment_id}/runs/{run.info.run_id}/model-metrics"
            "?workflowType=machine_learning"
        )
        page.wait_for_text("average_accuracy", "forgetting")
        expected = [read_json(project.output(name, "evaluate") / "metrics.json")["average_accuracy"] for name in ROUNDS]
        drawn = page.wait(  # each chart comes when its own request is answered
            "(lines => lines.some(line => Math.abs(line[1][0] - FIRST) < 1e-6) && lines)"
            "([...document.querySelectorAll('.js-plotly-plot')]"
            ".flatMap(plot => plot.data || []).filter(line => line.x && line.x.length === 4)"
            ".map(line => [[...line.x], [...line.y]]))".replace("FIRST", repr(expected[0])),
            "a chart of four points that begins as the average accuracy does",
        )
    assert [[1, 2, 3, 4], pytest.approx(expected)] in drawn


def test_the_selectors_are_a_table_with_a_row_a_cluster(project: Project, port: int, debugger: str) -> None:
    clusters = Review(project, "r004").clusters
    with Page(debugger, 1400, 1200) as page:
        address, _, view = link(project, port, "r004").partition("?")
        page.open(f"{address}/artifacts/selectors.json?{view}")
        page.wait_for_text("View as table", "selector", "budget")
        rows = page.wait(
            f"(rows => rows.length === {len(clusters) + 1} && rows)"
            "([...document.querySelectorAll('[role=row]')].map(row => row.innerText.split(/\\s+/)))",
            f"a table of {len(clusters)} clusters and its head",
        )
    for cluster in clusters:
        assert [str(cluster["cluster"]), cluster["selector"], str(cluster["size"])] in [row[:3] for row in rows]


def test_the_page_and_the_pictures_show_among_the_artifacts(project: Project, port: int, debugger: str) -> None:
    with Page(debugger, 1400, 1200) as page:
        address, _, view = link(project, port, "r004").partition("?")
        page.open(f"{address}/artifacts/report.html?{view}")
        page.wait_for_text("report.html", "pictures")
        page.wait("!!document.querySelector('iframe')?.src", "the page in its frame")
        shown = page.ask("fetch(document.querySelector('iframe').src).then(answer => answer.text())")
        assert shown == report_path(project, "r004").read_text()
        page.open(f"{address}/artifacts/pictures/accuracy_matrix.svg?{view}")
        page.wait("[...document.images].some(image => image.naturalWidth > 300)", "the picture")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_round_reads_well_by_itself(two_rounds: Project, debugger: str, width: int, dark: bool) -> None:
    file = report_path(two_rounds, "r002")
    with Page(debugger, width, 900, dark=dark) as page:
        page.open(file.as_uri())
        page.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.ask("document.documentElement.scrollWidth") == width
        wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.panels, .scroll, .row, svg')"
        assert page.ask(f"{wide} && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)") == []
        sizes = page.ask(
            "[...document.querySelectorAll('svg.chart')].flatMap(svg => [...svg.querySelectorAll('text')].map(text =>"
            " text.getAttribute('font-size') * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"
        )
        assert min(sizes) > LEAST_LETTERS
        assert page.ask("[...document.images].length") > 20
        assert page.ask("[...document.images].filter(image => !image.naturalWidth).length") == 0
        ink, ground = (
            page.ask(f"getComputedStyle({what}).{key}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)")
            for what, key in (
                ("document.querySelector('svg.chart text')", "fill"),
                ("document.body", "backgroundColor"),
            )
        )
        assert (ink - ground if dark else ground - ink) > 250, "words in a picture stand out from the page"
        note = "document.querySelector('.card small:last-child')"
        tones = [
            page.ask(f"({note}.className = '{tone}', getComputedStyle({note}).color)") for tone in ("", "up", "down")
        ]
        assert len(set(tones)) == 3, "good and bad news stand out"
        assert page.complaints == []
        assert page.requests == [file.as_uri()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_on_paper_everything_is_open_and_fits(two_rounds: Project, debugger: str, dark: bool) -> None:
    with Page(debugger, SHEET, 1000, dark=dark) as page:
        page.open(report_path(two_rounds, "r002").as_uri())
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", media="print", features=[scheme])
        closed = "[...document.querySelectorAll('details:not([open])')]"
        assert page.ask(f"{closed}.length") > 3
        seen = "each.checkVisibility() && each.getBoundingClientRect().height"
        inside = f"{closed}.flatMap(each => [...each.children].slice(1))"
        assert page.ask(f"{inside}.filter(each => !({seen})).map(each => each.outerHTML)") == []
        assert page.ask("document.documentElement.scrollWidth") == SHEET
        out = "each.getBoundingClientRect().right > innerWidth + 1"
        everything = "[...document.querySelectorAll('body *')].filter(each => !each.closest('svg *'))"
        assert page.ask(f"{everything}.filter(each => {out}).map(each => each.outerHTML.slice(0, 200))") == []
        clipped = "each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX != 'visible'"
        assert page.ask(f"{everything}.filter(each => {clipped}).map(each => each.outerHTML.slice(0, 200))") == []
        assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
