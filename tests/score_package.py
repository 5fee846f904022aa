"""A package with scores of its own, as pip lays one out: modules beside a .dist-info with entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def installed(
    folder: Path, name: str, source: str, points: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """While the block runs, `source` is the module `name` of a distribution of that name, version 1.0.

    Args:
        folder: where to install it.
        name: of the module; the distribution's has hyphens.
        source: the module's text.
        points: by the name of a score, the object that brings it.
        monkeypatch: puts `folder` on the path.
    """
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n"
    (info / "METADATA").write_text(about, encoding="utf-8")
    lines = [f"{score} = {place}" for score, place in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[adapt_inf.scores]", *lines]) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    try:
        yield
    finally:
        sys.modules.pop(name, None)
