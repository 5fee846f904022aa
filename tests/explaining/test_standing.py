"""Where a candidate stood in a round, held against counts made sample by sample."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from selection_project import ROUND, make_selection_round, put_faults, put_scores, with_params

from adapt_inf.data.manifest import candidates
from adapt_inf.explaining.standing import rank_of, standing
from adapt_inf.files import read_json
from adapt_inf.selection.coverage import HIGHEST
from adapt_inf.stages import cluster, select
from adapt_inf.stages.context import StageContext

UNREADABLE = 3  # position of the candidate that the model cannot read


def make_round(root: Path, **params: Any) -> StageContext:
    values = {"cluster": {"k": 4}, **params}
    values["select"] = {"budget": 0.3, **params.get("select", {})}
    ctx = make_selection_round(root, **values)
    put_faults(ctx, [candidates(ctx)["sample_id"][UNREADABLE]])
    cluster.run(ctx)
    select.run(ctx)
    return ctx


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    return make_round(tmp_path_factory.mktemp("standing"))


def stand(ctx: StageContext, position: int) -> dict[str, Any]:
    frame = candidates(ctx)
    return standing(ctx.project, ROUND, frame["sample_id"][position], new=frame["round"][position] == ROUND, over=True)


def slowly(ctx: StageContext, name: str) -> dict[str, list[float]]:
    """Every expert's values in the cluster of the sample `name`, one sample after the other."""
    at = pd.read_parquet(ctx.input("cluster") / "assignments.parquet").set_index("sample_id")["cluster"].to_dict()
    faults = set(pd.read_parquet(ctx.input("sketch") / "faults.parquet")["sample_id"])
    values: dict[str, list[float]] = {}
    for row in pd.read_parquet(ctx.input("score") / "scores.parquet").to_dict("records"):
        if at[row["sample_id"]] == at[name] and row["sample_id"] not in faults:
            for key, value in row.items():
                if key != "sample_id" and not math.isnan(value):
                    values.setdefault(str(key), []).append(value)
    return values


def test_ranks_are_those_of_a_count_sample_by_sample(ctx: StageContext) -> None:
    frame, scores = candidates(ctx), pd.read_parquet(ctx.input("score") / "scores.parquet")
    for position in [place for place in range(0, len(frame), 7) if place != UNREADABLE]:
        name = frame["sample_id"][position]
        others = slowly(ctx, name)
        for expert, said in stand(ctx, position)["experts"].items():
            value = scores[expert][position]
            assert said["of"] == len(others.get(expert, []))
            if math.isnan(value):
                assert (said["value"], said["rank"], said["quantile"]) == (None, None, None)
                continue
            assert said["value"] == value
            assert said["rank"] == 1 + sum(other > value for other in others[expert])
            below = sum(other < value for other in others[expert]) + sum(other == value for other in others[expert]) / 2
            assert said["quantile"] == pytest.approx(below / len(others[expert]))


def test_cluster_and_choice_are_those_of_the_stages(ctx: StageContext) -> None:
    table = read_json(ctx.input("select") / "selectors.json")
    assignments = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")
    for position in (0, 50, 100):
        said = stand(ctx, position)
        row = table["clusters"][assignments["cluster"][position]]
        assert said["cluster"]["size"] == row["size"]
        assert said["cluster"]["similarity"] == pytest.approx(assignments["similarity"][position])
        assert (said["selector"], said["margin"]) == (row["selector"], row["margin"])
        assert {name: each["entropy"] for name, each in said["experts"].items()} == row["entropies"]


def test_the_strata_are_those_that_selected_and_their_counts_add_up(ctx: StageContext) -> None:
    selected = pd.read_parquet(ctx.input("select") / "selected.parquet").set_index("sample_id")
    frame = candidates(ctx)
    members = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"] == 1
    strata: dict[int, list[dict[str, Any]]] = {}
    for position in [place for place in np.flatnonzero(members).tolist() if place != UNREADABLE]:
        said, name = stand(ctx, position), frame["sample_id"][position]
        assert said["selected"] == (name in selected.index)
        strata.setdefault(said["stratum"]["number"], []).append(said)
        if said["selected"]:
            assert said["stratum"]["number"] == selected["stratum"][name]
            assert said["why"].startswith("selected: ")
    for found in strata.values():
        counts = {"size": len(found), "selected": sum(said["selected"] for said in found)}
        assert all({key: said["stratum"][key] for key in counts} == counts for said in found)
    tails = [said["why"] for number, found in strata.items() if number < 0 for said in found]
    assert any("lowest 5%, which are set aside and used last" in why for why in tails)
    assert any("highest 5%" in why for why in tails)


def test_what_the_model_cannot_read_is_said_with_the_reason(ctx: StageContext) -> None:
    said = stand(ctx, UNREADABLE)
    assert (said["unreadable"], said["selected"]) == ("too long", False)
    assert said["why"] == "not selected: the model cannot read it (too long)"


@pytest.mark.parametrize(
    ("strategy", "old", "new"),
    [
        ("sequential", "sequential trains on the new drop only", "sequential drew 42 of 140 candidates"),
        ("random", "random drew 41 of 140", "random drew 41 of 140"),
        ("full", "trains on every candidate", "trains on every candidate"),
        ("cluster_random", "drawn with the same chance each", "drawn with the same chance each"),
        ("perplexity", "chosen by perplexity; its value is", "chosen by perplexity; its value is"),
    ],
)
def test_every_strategy_has_its_reason(ctx: StageContext, strategy: str, old: str, new: str, tmp_path: Path) -> None:
    other = make_round(tmp_path, select={"strategy": strategy})
    count = len(pd.read_parquet(other.input("select") / "selected.parquet"))
    before, after = (stand(other, position) for position in (1, 100))
    assert old.replace("41 of", f"{count} of") in before["why"]
    assert new.replace("42 of", f"{count} of") in after["why"]
    assert (before["new"], after["new"]) == (False, True)


@pytest.mark.parametrize("split", ["equal", "proportional"])
def test_a_small_cluster_gives_all(tmp_path: Path, split: str) -> None:
    ctx = make_round(tmp_path, cluster={"k": 40}, select={"budget": 0.9, "split": split})
    sizes = [row["size"] for row in read_json(ctx.input("select") / "selectors.json")["clusters"]]
    small = pd.read_parquet(ctx.input("cluster") / "assignments.parquet")["cluster"] == sizes.index(2)
    said = stand(ctx, int(np.flatnonzero(small)[0]))
    number = said["cluster"]["number"]
    because = "" if split == "equal" else " (fewer than select.min_cluster, 32)"  # equal looks at no size
    assert said["why"] == f"selected: cluster {number} gave all of its 2 samples{because}"


def test_what_gc_removed_is_named_and_the_rest_told(ctx: StageContext, tmp_path: Path) -> None:
    shutil.copytree(ctx.project.root, tmp_path / "thin")
    thin = with_params(tmp_path / "thin", cluster={"k": 4}, select={"budget": 0.3})
    for name in ("sketch", "score", "cluster"):
        shutil.rmtree(thin.project.output(ROUND, name))
    chosen = set(pd.read_parquet(thin.input("select") / "selected.parquet")["sample_id"])
    ids = candidates(thin)["sample_id"]
    inside = next(place for place, name in enumerate(ids) if name in chosen)
    outside = next(place for place, name in enumerate(ids) if name not in chosen)
    before, after = stand(ctx, inside), stand(thin, inside)
    same = ("selected", "selector", "score", "margin")
    assert [after[key] for key in same] == [before[key] for key in same]
    assert after["stratum"]["number"] == before["stratum"]["number"]
    assert after["why"].startswith("selected: ")
    lost = stand(thin, outside)
    assert (lost["selected"], lost["cluster"]) == (False, None)
    assert "its cluster is not known here any more" in lost["why"]
    assert {name.split("/")[2] for name in lost["missing"]} == {"sketch", "cluster"}


def test_a_selection_that_is_not_here_is_told_from_one_that_is_still_to_come(ctx: StageContext, tmp_path: Path) -> None:
    shutil.copytree(ctx.project.root, tmp_path / "bare")
    project = with_params(tmp_path / "bare").project
    name = candidates(ctx)["sample_id"][0]
    for output in ("select", "score", "cluster", "sketch"):
        shutil.rmtree(project.output(ROUND, output))
    gone, ahead = (standing(project, ROUND, name, new=False, over=over) for over in (True, False))
    assert (gone["selected"], gone["why"]) == (None, "its selection is not on this machine")
    assert f"rounds/{ROUND}/select/selectors.json" in gone["missing"]
    assert (ahead["why"], ahead["missing"]) == ("the round has not come to its selection", [])


def test_equal_values_share_the_better_rank() -> None:
    values = np.array([3.0, 1.0, 3.0, np.nan, 2.0])
    assert rank_of(values, 0) == {"value": 3.0, "rank": 1, "of": 4, "quantile": 0.75}
    assert rank_of(values, 1) == {"value": 1.0, "rank": 4, "of": 4, "quantile": 0.125}
    assert rank_of(values, 3) == {"value": None, "rank": None, "of": 4, "quantile": None}


def test_one_of_the_highest_and_one_that_is_not(tmp_path: Path) -> None:
    ctx = make_selection_round(tmp_path, cluster={"k": 4})
    frame = candidates(ctx)
    values = np.random.default_rng(3).normal(size=len(frame))
    values[::5] = np.nan
    put_scores(ctx, frame["sample_id"], {"perplexity": np.abs(np.nan_to_num(values)), "visnec": values})
    ctx = with_params(
        tmp_path, cluster={"k": 4}, select={"budget": 0.3, "scores": ["perplexity"], "strategy": "visnec"}
    )
    cluster.run(ctx)
    select.run(ctx)
    seen = set()
    for position in range(len(frame)):
        found = stand(ctx, position)
        rank = found["experts"]["visnec"]["rank"]
        taken = found["selected"] and found["cluster"]["selected"] < found["cluster"]["size"]
        if 0 < found["cluster"]["selected"] < found["cluster"]["size"]:
            assert found["stratum"]["number"] == HIGHEST
            end = f"number {rank:,} from the top" if rank else "it has no value, and such come last"
            assert found["why"].endswith(end)
            if rank:
                assert found["selected"] == (rank <= found["cluster"]["selected"])
            seen.add((bool(taken), rank is None))
    assert seen >= {(True, False), (False, False), (False, True)}
    shutil.rmtree(ctx.input("score"))
    chosen = pd.read_parquet(ctx.input("select") / "selected.parquet")["sample_id"][0]
    later = stand(ctx, int(frame.index[frame["sample_id"] == chosen][0]))
    assert later["why"].endswith("which takes the highest; the values are not here any more")
