"""`adapt-inf report`: where the page is, how to open the round in MLflow, and what it says of rounds that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt_inf.cli import main
from adapt_inf.project import Project


def test_it_names_the_page_and_the_rounds_run(
    two_rounds: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where = ["-C", str(two_rounds.root)]
    assert main(["report", "r002", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    page = two_rounds.round("r002") / "report.html"
    assert lines[0] == page.as_uri()
    assert "/runs/" in lines[-1]
    assert lines[-1].endswith("?workflowType=machine_learning")
    copy = tmp_path / "copy.html"
    assert main(["report", "r002", "--out", str(copy), *where]) == 0
    assert capsys.readouterr().out.splitlines()[0] == copy.as_uri()
    assert copy.read_bytes() == page.read_bytes()


@pytest.mark.parametrize(("name", "said"), [("r009", "there is no such round"), ("base", "nothing was chosen there")])
def test_a_round_without_a_page_is_named(
    two_rounds: Project, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert main(["report", name, "-C", str(two_rounds.root)]) == 1
    error = capsys.readouterr().err
    assert f"round {name}: " in error
    assert said in error
    assert "`adapt-inf lineage` lists the rounds." in error
