"""docs/models.md says of every family what the tests here hold."""

from __future__ import annotations

from pathlib import Path

from family_models import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_table_names_each_family_with_its_environment_and_what_it_takes() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    told = {row[0]: row[1:5] for row in rows if len(row) == 7}
    for family in FAMILIES:
        environment = "torchvision" if family.needs_torchvision else "default"
        text = "passed" if family.text_only else "refused by the family"
        assert told.pop(family.name) == [environment, "passed", "passed", text]
    assert [name for name in told if name.strip("-")] == ["family"]
