"""A stage's output appears whole, and unfinished work is found again only where it still fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt_inf.config import Params
from adapt_inf.errors import StageInputError
from adapt_inf.project import Project
from adapt_inf.stages.context import StageContext


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    return StageContext(Project(tmp_path), "r001", Params(round="r001", drop="a"))


def write_half(context: StageContext, text: str) -> None:
    """What a stage leaves that dies with its first part written."""
    with context.output("sketch", ["model", 1]) as folder:
        (folder / "part-0").write_text(text, encoding="utf-8")
        raise OSError("disk full")


def test_an_output_appears_at_the_end_and_only_then(context: StageContext) -> None:
    with context.output("select", [1]) as folder:
        (folder / "a.json").write_text("{}", encoding="utf-8")
        assert not context.project.output("r001", "select").exists()
    assert [path.name for path in context.input("select").iterdir()] == ["a.json"]


def test_work_that_failed_is_handed_out_again_for_the_same_inputs(context: StageContext) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_half(context, "done")
    with context.output("sketch", ["model", 1]) as folder:
        assert (folder / "part-0").read_text(encoding="utf-8") == "done"


def test_work_for_other_inputs_is_thrown_away(context: StageContext) -> None:
    with pytest.raises(OSError, match="disk full"):
        write_half(context, "stale")
    with context.output("sketch", ["model", 2]) as folder:
        assert list(folder.iterdir()) == []
    assert list(context.project.work("r001").iterdir()) == []


def test_half_a_file_is_not_published(context: StageContext) -> None:
    with context.output("pool", []) as folder:
        (folder / ".manifest.parquet.part").write_text("half", encoding="utf-8")
        (folder / ".tmpA1b2C3").write_text("half of what safetensors wrote", encoding="utf-8")
        (folder / "..parts.part").mkdir()
        (folder / "..parts.part" / ".tmpD4").write_text("in a folder that was being removed", encoding="utf-8")
    assert list(context.input("pool").iterdir()) == []


def test_a_missing_input_is_named(context: StageContext) -> None:
    with pytest.raises(StageInputError, match=r"rounds/base/pool: is not there"):
        context.parent_input("pool")
