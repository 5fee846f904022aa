"""What more than one part of the tests needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature import make_miniature


@pytest.fixture(scope="session")
def miniature_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature LLaVA (see tests/miniature.py), made once; nobody writes into it."""
    return make_miniature(tmp_path_factory.mktemp("miniature") / "model")
