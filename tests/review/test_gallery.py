"""The gallery shows of each cluster what it says: nearest, extremes, selected, pruned beside what was kept."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from adapt_inf.data.manifest import MANIFEST, read_manifest
from adapt_inf.project import Project
from adapt_inf.review.choosing import name_of
from adapt_inf.review.gallery import Card, cluster_gallery, clusters_to_show
from adapt_inf.review.tables import Review


@pytest.fixture(scope="module")
def gallery(real: Review) -> dict[int, dict[str, list[Card]]]:
    return {cluster.about["cluster"]: cluster.rows for cluster in cluster_gallery(real)}


def ids(cards: list[Card]) -> list[str]:
    return [card.sample.sample_id for card in cards]


def test_every_cluster_is_shown_with_samples_of_its_own(
    real: Review, gallery: dict[int, dict[str, list[Card]]]
) -> None:
    table = pd.read_parquet(real.files.path("cluster", "assignments.parquet")).set_index("sample_id")["cluster"]
    assert set(gallery) == {cluster["cluster"] for cluster in real.files.selectors["clusters"]}
    for cluster, rows in gallery.items():
        assert {int(table[name]) for cards in rows.values() for name in ids(cards)} == {cluster}
        for cards in rows.values():
            assert all(card.sample.question or card.sample.answer for card in cards)


def test_the_nearest_are_the_nearest_and_the_extremes_the_extremes(
    real: Review, gallery: dict[int, dict[str, list[Card]]]
) -> None:
    table = pd.read_parquet(real.files.path("cluster", "assignments.parquet")).set_index("sample_id")
    scores = pd.read_parquet(real.files.path("score", "scores.parquet")).set_index("sample_id")
    for about in real.files.selectors["clusters"]:
        rows, name = gallery[about["cluster"]], about["selector"]
        members = table[table["cluster"] == about["cluster"]]
        near = members["similarity"].nlargest(3)
        assert members["similarity"][ids(rows["nearest to the middle"])].tolist() == near.tolist()
        values = scores.loc[members.index, name].dropna()
        assert values[ids(rows[f"highest {name}"])].tolist() == values.nlargest(3).tolist()
        assert values[ids(rows[f"lowest {name}"])].tolist() == values.nsmallest(3).tolist()
        assert rows[f"highest {name}"][0].note == f"{name} {values.max():.2f}"


def test_selected_were_selected_and_pruned_stand_beside_what_was_kept(
    real: Review, gallery: dict[int, dict[str, list[Card]]]
) -> None:
    selected = set(pd.read_parquet(real.files.path("select", "selected.parquet"))["sample_id"])
    manifest = read_manifest(real.files.path("pool", MANIFEST)).set_index("sample_id")
    pairs = 0
    for rows in gallery.values():
        assert set(ids(rows.get("selected, from low to high", []))) <= selected
        for card in rows.get("pruned, beside what was kept", []):
            row = manifest.loc[card.sample.sample_id]
            assert row["pruned_round"] == "r002"
            if card.beside is not None:
                pairs += 1
                assert card.beside.sample_id == row["duplicate_of"]
                assert card.note == f"cosine {row['similarity']:.3f}"
                assert card.beside.answer
    assert pairs > 0


def test_without_clusters_there_is_no_gallery(project: Project) -> None:
    assert cluster_gallery(Review(project, "r002")) == []


def drawn_up(contents: dict[int, tuple[str, float]], new: set[int]) -> Review:
    """A round of clusters 0, 1, ... of sizes that fall; those in `new` consist of new samples."""
    review = Review(Project(Path()), "r002")
    sizes = range(len(contents) + 4, 4, -1)
    review.__dict__["clusters"] = [{"cluster": number, "size": size} for number, size in enumerate(sizes)]
    review.__dict__["contents"] = contents
    rows = [number for number, size in enumerate(sizes) for _ in range(size)]
    review.__dict__["samples"] = pd.DataFrame({"cluster": rows, "new": [number in new for number in rows]})
    return review


def test_small_clusters_of_a_skill_of_their_own_and_new_ones_are_shown_too() -> None:
    contents = {number: (f"pool/{min(number, 2)}", 0.4) for number in range(80)}
    contents |= {60: ("pool/rare", 0.3), 75: ("pool/rare", 0.9), 79: ("pool/rarest", 1.0)}
    shown = [cluster["cluster"] for cluster in clusters_to_show(drawn_up(contents, {50, 51, 78}))]
    assert len(shown) == 24
    assert shown == sorted(shown), "the largest first"
    assert {0, 1, 2, 3, 50, 51, 78, 60, 79} <= set(shown)
    assert 75 not in shown
    assert set(shown) - {50, 51, 78, 60, 79} == set(range(19))


def test_of_too_many_skills_the_largest_and_the_newest_stay_in() -> None:
    contents = {number: (f"pool/{number}", 1.0) for number in range(60)}
    shown = [cluster["cluster"] for cluster in clusters_to_show(drawn_up(contents, {57, 58}))]
    assert shown == [*range(22), 57, 58]


def test_a_cluster_is_named_with_the_share_of_its_skill() -> None:
    review = drawn_up({0: ("scenes/count", 0.34), 1: ("flags/country", 1.0), 2: ("flags/capital", 0.996)}, set())
    names = [name_of(review, cluster) for cluster in [*review.clusters, {"cluster": 9}]]
    assert names == ["0 scenes/count 34%", "1 flags/country", "2 flags/capital", "9"]
