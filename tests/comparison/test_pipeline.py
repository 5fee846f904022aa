"""What a result is named by: the definition's own lists, and what a strategy without sketches leaves out."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from adapt_inf.comparison import pipeline
from adapt_inf.comparison.pipeline import depends_on, needs_sketches, read_pipeline, result_name, stages_for
from adapt_inf.config import Params, Prune, Select
from adapt_inf.creation import definition
from adapt_inf.errors import AdaptInfError

NAMES = {"round": "r002", "parent": "r001", "drop": "shapes"}


@pytest.fixture
def dvc_yaml(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(definition("dvc.yaml"))
    return tmp_path / "dvc.yaml"


def test_stages_are_those_of_the_definition(dvc_yaml: Path) -> None:
    stages = read_pipeline(dvc_yaml)
    sketch = stages["sketch"].of(**NAMES)
    assert sketch.deps == ("rounds/r002/ingest", "rounds/r001/pool", "rounds/r001/model")
    assert sketch.params == ("seed", "memory_mb", "sketch", "cluster.features", "prune.features")
    assert sketch.out == "rounds/r002/sketch"
    assert stages["ingest"].of(**NAMES).deps == ("drops/shapes", "rounds/r001/pool")
    assert "select.scores" in depends_on(stages)
    assert "gate" not in depends_on(stages)


def test_a_definition_that_is_none_is_named(dvc_yaml: Path) -> None:
    whole = yaml.safe_load(dvc_yaml.read_text())
    del whole["stages"]["prune"]
    for text in ("stages: [", "stages: {train: {cmd: x}}", yaml.safe_dump(whole)):
        dvc_yaml.write_text(text)
        with pytest.raises(AdaptInfError, match=r"dvc\.yaml defines"):
            read_pipeline(dvc_yaml)


@pytest.mark.parametrize(
    ("strategy", "cap", "sketches"),
    [
        ("random", None, False),
        ("sequential", None, False),
        ("full", None, False),
        ("random", 100, True),  # what is pruned depends on the sketches
        ("cluster_random", None, True),
        ("perplexity", None, True),
        ("adapt_inf", None, True),
    ],
)
def test_stages_that_change_nothing_are_left_out(
    dvc_yaml: Path, strategy: str, cap: int | None, sketches: bool
) -> None:
    params = replace(Params(), select=Select(strategy=strategy), prune=Prune(pool_cap=cap))
    assert needs_sketches(params) == sketches
    found = [stage.of(**NAMES) for stage in stages_for(read_pipeline(dvc_yaml), params, "r001")]
    if sketches:
        assert found == [stage.of(**NAMES) for stage in read_pipeline(dvc_yaml).values()]
        return
    assert [stage.name for stage in found] == ["ingest", "read", "draw", "prune", "train", "evaluate"]
    made = {
        "drops/shapes",
        "rounds/r001/sketch",
        *(f"rounds/{at}/{name}" for at in ("r001", "base") for name in ("pool", "model", "evaluate")),
    }
    for stage in found:  # each reads only what those before it wrote
        assert set(stage.deps) <= made
        made.add(stage.out)
    first = stages_for(read_pipeline(dvc_yaml), params, "base")[1].of(round="r001", parent="base", drop="shapes")
    assert (first.name, first.deps) == ("read", ("rounds/r001/ingest", "rounds/base/pool", "rounds/base/model"))


def test_a_name_follows_from_what_the_stage_depends_on_and_nothing_else(dvc_yaml: Path) -> None:
    select = read_pipeline(dvc_yaml)["select"].of(**NAMES)
    digests = {path: f"digest of {path}" for path in select.deps}
    params = asdict(Params())

    def name(**changed: object) -> str:
        return result_name(select, "r002", digests, params | changed)

    before = name()
    assert name() == name(train={"steps": 1}) == name(memory_mb=5)
    assert name() != name(seed=1)
    assert name() != name(select=params["select"] | {"bins": 7})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "made_by", lambda: "another version")
        assert name(seed=0) != before
    assert name(seed=0) == before
    for path in select.deps:
        assert result_name(select, "r002", digests | {path: "other"}, params) != name()
