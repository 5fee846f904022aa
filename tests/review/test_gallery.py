"""The gallery shows of each cluster what it says: nearest, extremes, selected, pruned beside what was kept."""

from __future__ import annotations

import pandas as pd
import pytest

from adapt_inf.data.manifest import MANIFEST, read_manifest
from adapt_inf.project import Project
from adapt_inf.review.gallery import Card, cluster_gallery
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
