"""docs/method.md names functions and commands that there are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"\badapt_inf(?:\.\w+)+", TEXT)))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_on_the_page_is_there(name: str) -> None:
    assert find(name) is not None


def test_the_page_names_something_of_every_part_of_the_method() -> None:
    parts = {name.split(".")[1] for name in NAMES}
    assert parts == {"sketching", "models", "selection", "stages", "evaluation"}


def test_every_file_on_the_page_is_there() -> None:
    files = re.findall(r"\bbenchmarks/\w+\.py", TEXT) + [
        f"docs/{page}" for page in re.findall(r"\]\((\w+\.md)\)", TEXT)
    ]
    assert len(set(files)) >= 4
    assert [file for file in files if not (ROOT / file).is_file()] == []


def find(name: str) -> Any:
    """The class, function or method called `name`."""
    parts = name.split(".")
    modules = [length for length in range(2, len(parts)) if (ROOT / Path(*parts[:length])).with_suffix(".py").is_file()]
    assert modules, f"{name} is in no module"
    found: Any = importlib.import_module(".".join(parts[: modules[-1]]))
    for attribute in parts[modules[-1] :]:
        found = getattr(found, attribute)
    return found
