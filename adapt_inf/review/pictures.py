"""The pictures of a round: every one that its files allow, each as a file, with the sentences that go with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapt_inf.files import write_text
from adapt_inf.project import Project
from adapt_inf.review import arriving, choosing, learning, mapping, pooling
from adapt_inf.review.picture import Picture
from adapt_inf.review.svg import document
from adapt_inf.review.tables import Review

PICTURES: dict[str, Callable[[Review], Picture | None]] = {
    "accuracy_matrix": learning.accuracy_matrix,
    "skill_curves": learning.skill_curves,
    "averages": learning.averages,
    "cluster_entropies": choosing.cluster_entropies,
    "cluster_sizes": choosing.cluster_sizes,
    "strata": choosing.strata,
    "curve_of_k": choosing.curve_of_k,
    "map": mapping.sketch_map,
    "cluster_fill": arriving.cluster_fill,
    "similarity": pooling.similarity,
    "pool": pooling.pool_history,
}
"""By the name of the picture's file; each gives None where something that it shows is missing."""


def write_pictures(project: Project, round_id: str, pictures: dict[str, Picture]) -> list[Path]:
    """Write each to rounds/<round>/pictures/<name>.svg, and leave no other there."""
    folder = project.round(round_id) / "pictures"
    for old in set(folder.glob("*.svg")) - {folder / f"{name}.svg" for name in pictures}:
        old.unlink()
    paths = []
    for name, picture in pictures.items():
        path = folder / f"{name}.svg"
        write_text(path, document(picture.title, picture.panels, picture.columns))
        paths.append(path)
    return paths
